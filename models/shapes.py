"""Procedural videos with captions: one coloured shape that moves over a gradient.

A shape that leaves the frame on one side enters on the opposite side, so its direction is constant in a video of any
length. A video is a pure function of its `Spec`. Lengths are in pixels of a 64-pixel frame and scale with the frame.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

COLOURS = {  # RGB in 0..255; eval/adherence.py holds the same table
    "red": (225, 40, 40),
    "yellow": (245, 215, 45),
    "green": (45, 190, 70),
    "blue": (50, 95, 240),
    "pink": (245, 120, 200),
    "white": (245, 245, 245),
}
SHAPES = ("circle", "square", "triangle")
DIRECTIONS = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0)}  # (x, y), y points down
BACKGROUNDS = {  # the two RGB colours of a gradient, and the direction (x, y) from the first to the second
    "dusk": ((58, 38, 72), (120, 78, 66), (0.0, 1.0)),
    "night": ((14, 18, 34), (62, 66, 92), (0.6, 0.8)),
    "forest": ((26, 46, 38), (84, 96, 66), (-0.8, 0.6)),
    "desert": ((118, 104, 88), (70, 56, 48), (1.0, 0.0)),
}
WORDINGS = (
    "a {colour} {shape} moving {direction} over a {background} background",
    "a {colour} {shape} drifts {direction} across a {background} background",
    "over a {background} background a {colour} {shape} is moving {direction}",
    "the {colour} {shape} moves {direction} in front of a {background} background",
    "a {colour} {shape} moving {direction}",  # names no background; `prompts` does not use it
)
FRAME = 64.0  # frame width in pixels to which all lengths below refer


@dataclass(frozen=True)
class Spec:
    """The content of one video. Positions are in pixels of a 64-pixel frame, speed in such pixels per frame."""

    colour: str
    shape: str
    direction: str
    background: str
    x: float  # centre at frame 0; larger moves the start to the right
    y: float  # centre at frame 0; larger moves the start down
    radius: float  # half the size of the shape; larger draws a bigger shape
    speed: float  # pixels a frame; larger moves faster
    wording: int  # index into WORDINGS


def cells(split: str) -> list[tuple[str, str, str, str]]:
    """All (colour, shape, direction, background) of a split: `train` has 216 of the 288, `held_out` the other 72.

    Each combination of colour, shape and direction is held out with exactly one background.
    Raises ValueError for an unknown split.
    """
    if split not in ("train", "held_out"):
        raise ValueError(f"got split={split!r}; use 'train' or 'held_out'")
    chosen = []
    for c, colour in enumerate(COLOURS):
        for s, shape in enumerate(SHAPES):
            for d, direction in enumerate(DIRECTIONS):
                for b, background in enumerate(BACKGROUNDS):
                    if ((c + s + d + b) % 4 == 0) == (split == "held_out"):
                        chosen.append((colour, shape, direction, background))
    return chosen


def sample(seed: int, split: str = "train") -> Spec:
    """The video with number `seed` of a split. Equal seeds give equal videos."""
    generator = torch.Generator().manual_seed(seed)
    choices = cells(split)
    pick = int(torch.randint(len(choices), (1,), generator=generator))
    wording = int(torch.randint(len(WORDINGS), (1,), generator=generator))
    along, across, radius, speed = torch.rand(4, generator=generator).tolist()
    along, across = along * FRAME, 21.0 + 22.0 * across  # across the motion, the whole shape stays in the frame
    x, y = (along, across) if choices[pick][2] in ("left", "right") else (across, along)
    return Spec(*choices[pick], x, y, 9.5 + 2.5 * radius, 0.6 + 0.3 * speed, wording)


def caption(spec: Spec) -> str:
    """The English sentence that describes a video."""
    return WORDINGS[spec.wording].format(
        colour=spec.colour, shape=spec.shape, direction=spec.direction, background=spec.background
    )


def prompts(split: str, n: int) -> list[str]:
    """The first `n` prompts of a split in a fixed shuffled order: all its cells once, then again in another wording."""
    choices = cells(split)
    order = torch.randperm(len(choices), generator=torch.Generator().manual_seed(2026)).tolist()
    found = []
    for i in range(n):
        colour, shape, direction, background = choices[order[i % len(order)]]
        wording = (i + i // len(order)) % (len(WORDINGS) - 1)
        found.append(caption(Spec(colour, shape, direction, background, 32.0, 32.0, 11.0, 0.75, wording)))
    return found


def vocabulary() -> list[str]:
    """All words that captions use, sorted."""
    fixed = {word for wording in WORDINGS for word in wording.split() if "{" not in word}
    return sorted(fixed.union(COLOURS, SHAPES, DIRECTIONS, BACKGROUNDS))


def coverage(specs: list[Spec], frames: int, size: int = 64, start: int = 0) -> Tensor:
    """The share of each pixel that the shape covers: float32 (B, T, H, W) in [0, 1], for frames from `start` on."""
    unit = size / FRAME
    time = torch.arange(start, start + frames, dtype=torch.float32)
    heading = torch.tensor([DIRECTIONS[s.direction] for s in specs])
    speed = torch.tensor([s.speed for s in specs])
    origin = torch.tensor([(s.x, s.y) for s in specs])
    centre = (origin[:, None] + heading[:, None] * (speed[:, None] * time)[..., None]) * unit  # (B, T, 2)
    grid = torch.arange(size, dtype=torch.float32) + 0.5
    offset = (grid - centre[..., None] + size / 2) % size - size / 2  # (B, T, 2, size), nearest image on the torus
    x, y = offset[:, :, 0, None, :], offset[:, :, 1, :, None]
    radius = torch.tensor([s.radius for s in specs])[:, None, None, None] * unit
    kind = torch.tensor([SHAPES.index(s.shape) for s in specs])[:, None, None, None]
    circle = (x.square() + y.square()).sqrt() - radius
    square = torch.maximum(x.abs(), y.abs()) - 0.9 * radius
    triangle = torch.maximum(y, 0.8660254 * x.abs() - 0.5 * y) - 0.72 * radius  # equilateral, one corner up
    distance = torch.where(kind == 0, circle, torch.where(kind == 1, square, triangle))
    return (0.5 - distance).clamp(0, 1)


def backdrop(specs: list[Spec], size: int = 64) -> Tensor:
    """The gradients of the backgrounds: float32 (B, 1, H, W, 3) in [0, 1]."""
    ends = torch.tensor([BACKGROUNDS[s.background][:2] for s in specs]) / 255  # (B, 2, 3)
    toward = torch.tensor([BACKGROUNDS[s.background][2] for s in specs])
    grid = torch.linspace(-1, 1, size)
    ramp = toward[:, 0, None, None] * grid + toward[:, 1, None, None] * grid[:, None]
    blend = (0.5 + 0.5 * ramp / toward.abs().sum(1)[:, None, None])[..., None]
    return (ends[:, 0, None, None] * (1 - blend) + ends[:, 1, None, None] * blend)[:, None]


def render_batch(specs: list[Spec], frames: int, size: int = 64, start: int = 0) -> tuple[Tensor, Tensor]:
    """Float32 videos (B, T, H, W, 3) in [0, 1], and the coverage (B, T, H, W) of their shapes."""
    mask = coverage(specs, frames, size, start)
    colour = torch.tensor([COLOURS[s.colour] for s in specs])[:, None, None, None] / 255
    return torch.lerp(backdrop(specs, size), colour, mask[..., None]), mask


def render(spec: Spec, frames: int, size: int = 64, start: int = 0) -> Tensor:
    """One video: uint8 (T, H, W, 3).

    `start` is the number of frames to skip, for a later window of the same video.
    Raises ValueError if `frames` or `size` is below 1.
    """
    if frames < 1 or size < 1:
        raise ValueError(f"got frames={frames} and size={size}; both must be at least 1")
    video, _ = render_batch([spec], frames, size, start)
    return (video[0] * 255).round().to(torch.uint8)
