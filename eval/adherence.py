"""Checks whether a video of a tiny model shows the colour, the shape and the direction of motion of its prompt.

It uses classical image processing without learned parts. The background is fitted as a smooth surface, and the object
is the difference from it. Positions are circular means, because shapes leave on one side and enter on the other.
"""

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

COLOURS = {  # RGB in 0..255, equal to the table in models/shapes.py
    "red": (225, 40, 40),
    "yellow": (245, 215, 45),
    "green": (45, 190, 70),
    "blue": (50, 95, 240),
    "pink": (245, 120, 200),
    "white": (245, 245, 245),
}
SHAPES = ("circle", "square", "triangle")
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}  # (x, y), y points down
MIN_CONTRAST = 0.12  # share of full scale; raising it: faint objects count as absent
MIN_AREA, MAX_AREA = 0.015, 0.35  # limits of the object's area, as a share of the frame
MIN_SPEED = 0.15  # pixels per frame at a width of 64; raising it: slow motion counts as no motion
LAG = 4  # frames between two compared positions; raising it: more stable, needs longer videos

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Adherence:
    """The result of the check. A field is None if the prompt does not name it."""

    colour: bool | None
    shape: bool | None
    direction: bool | None
    frames_present: int  # frames with an object of plausible size
    frames: int  # all frames
    jumps: int  # frames at which the object moves by more than a tenth of the width
    seen: tuple[str, str, str]  # detected colour, shape and direction; "" if not detected


def named(prompt: str) -> tuple[str | None, str | None, str | None]:
    """The first colour, shape and direction that the prompt names."""
    words = re.findall(r"[a-z]+", prompt.lower())
    words = [re.sub(r"wards?$", "", word) for word in words]
    first = lambda table: next((word for word in words if word in table), None)  # noqa: E731
    return first(COLOURS), first(SHAPES), first(DIRECTIONS)


def fit_background(video: Array) -> Array:
    """A smooth surface (H, W, 3): a polynomial of degree 3 fitted to the median over time, robust to outliers."""
    _, height, width, _ = video.shape
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    basis = np.stack([x**i * y**j for i in range(4) for j in range(4 - i)], -1).reshape(height * width, -1)
    target = np.median(video, 0).reshape(-1, 3)
    weight = np.ones(len(target))
    for _ in range(12):
        scaled = basis * weight[:, None]
        surface = basis @ np.linalg.solve(scaled.T @ basis + 1e-9 * np.eye(basis.shape[1]), scaled.T @ target)
        residual = np.abs(target - surface).max(1)
        width_of_noise = max(2.0 * float(np.median(residual)), 0.01)
        weight = 1 / (1 + (residual / width_of_noise) ** 4)
    return surface.reshape(height, width, 3)


def centre(mask: Array) -> Array:
    """Circular mean position (x, y) of the weight in a (H, W) mask, in pixels from 0 to the size of the axis."""
    found = []
    for axis in (0, 1):  # sum over y gives the profile along x, and the other way round
        profile = mask.sum(axis)
        angle = np.angle(profile @ np.exp(2j * np.pi * np.arange(len(profile)) / len(profile)))
        found.append(angle / (2 * np.pi) * len(profile) % len(profile))
    return np.array(found)


def isolate(soft: Array) -> tuple[Array, Array] | None:
    """The largest object of a soft mask (H, W), moved to the middle, and its position; None if there is no object."""
    height, width = soft.shape
    if soft.sum() < MIN_AREA * soft.size:
        return None
    place = centre(soft)
    middle = np.array([width // 2, height // 2])
    for _ in range(2):  # twice, because small spots elsewhere shift the first position
        move = middle - np.round(place).astype(int)
        moved = np.roll(soft, (move[1], move[0]), (0, 1))
        labels, count = ndimage.label(moved > 0.5)
        if count == 0:
            return None
        largest = 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
        object_ = moved * ndimage.binary_dilation(labels == largest, iterations=2)
        place = (centre(object_) - move) % (width, height)
    if not MIN_AREA <= object_.sum() / soft.size <= MAX_AREA:
        return None
    rest = middle - centre(object_)
    return ndimage.shift(object_, (rest[1], rest[0]), order=1, mode="constant"), place


def template(shape: str, area: float, size: tuple[int, int]) -> Array:
    """An anti-aliased shape of a given area in pixels around the middle of a frame."""
    y, x = np.meshgrid(np.arange(size[0]) - size[0] // 2, np.arange(size[1]) - size[1] // 2, indexing="ij")
    if shape == "circle":
        distance = np.hypot(x, y) - np.sqrt(area / np.pi)
    elif shape == "square":
        distance = np.maximum(np.abs(x), np.abs(y)) - np.sqrt(area) / 2
    else:
        distance = np.maximum(y, np.sqrt(3) / 2 * np.abs(x) - y / 2) - np.sqrt(area / np.sqrt(27))
    return np.clip(0.5 - distance, 0, 1)


def nearest_shape(mask: Array) -> str:
    """The shape whose template of the same area overlaps most (soft intersection over union) with a centred mask."""
    overlap = {}
    for shape in SHAPES:
        other = template(shape, float(mask.sum()), (mask.shape[0], mask.shape[1]))
        overlap[shape] = np.minimum(mask, other).sum() / np.maximum(mask, other).sum()
    return max(overlap, key=lambda shape: overlap[shape])


def wrapped(step: Array, size: Array) -> Array:
    """The shortest difference of two positions on the torus."""
    return (step + size / 2) % size - size / 2


def heading(places: Array, size: Array, scale: float) -> str:
    """The direction of a track (T, 2), which may contain NaN; "" for no motion, diagonal motion or a change of
    direction."""
    steps = wrapped(places[LAG:] - places[:-LAG], size) / LAG
    steps = steps[~np.isnan(steps).any(1)]
    if len(steps) == 0:
        return ""
    typical = np.median(steps, 0)
    for name, unit in DIRECTIONS.items():
        along, across = typical @ unit, abs(typical @ unit[::-1])
        if along > MIN_SPEED * scale and across < along / 2 and np.mean(steps @ unit > 0) >= 0.8:
            return name
    return ""


def adherence(frames: NDArray[np.uint8], prompt: str) -> Adherence | None:
    """Compare a video with its prompt.

    `frames` is uint8 (T, H, W, 3). Returns None if the prompt names no known colour, shape or direction. If the object
    is absent from half of the frames or more, it has no colour, shape or direction. Raises ValueError for another shape
    or type of `frames`.
    """
    frames = np.asarray(frames)
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or len(frames) <= LAG:
        raise ValueError(
            f"frames were {frames.dtype} of shape {frames.shape}; give uint8 of shape (T, H, W, 3) with T above {LAG}"
        )
    wanted = named(prompt)
    if wanted == (None, None, None):
        return None
    video = frames.astype(np.float64) / 255
    difference = np.abs(video - fit_background(video)).max(-1)
    contrast = float(np.median(np.sort(difference.ravel())[-max(1, difference.size // 50) :]))
    soft = np.clip((difference / max(contrast, MIN_CONTRAST) - 0.25) * 2, 0, 1)
    size = np.array([frames.shape[2], frames.shape[1]], dtype=np.float64)
    places, masks, colours = np.full((len(frames), 2), np.nan), [], []
    for i, mask in enumerate(soft):
        found = isolate(mask)
        if found is not None:
            masks.append(found[0])
            places[i] = found[1]
            colours.append(np.median(video[i][mask > 0.95], 0) if (mask > 0.95).any() else np.zeros(3))
    seen = ("", "", "")
    if 2 * len(masks) > len(frames):
        colour = np.median(colours, 0) * 255
        nearest = min(COLOURS, key=lambda name: float(np.linalg.norm(colour - COLOURS[name])))
        seen = (nearest, nearest_shape(np.mean(masks, 0)), heading(places, size, size[0] / 64))
    step = np.abs(wrapped(np.diff(places, axis=0), size))
    jumps = int((np.nan_to_num(step).max(1) > size[0] / 10).sum())
    match = [None if want is None else want == saw for want, saw in zip(wanted, seen, strict=True)]
    return Adherence(match[0], match[1], match[2], len(masks), len(frames), jumps, seen)
