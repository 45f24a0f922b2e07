"""Measures of how a video differs from its Original, computed frame by frame from both.

PSNR and SSIM measure the size of the difference. These measure its kind: tint, brightness, flicker, detail, motion,
order in time, orientation. Each frame is reduced to a grid of up to 16×16 mean colours, so that texture and noise have
little effect.
"""

from itertools import permutations

import numpy as np

from eval.measures import luma_of

CELLS = 16
PARTS = 6  # gradients are summed in 6×6 parts and compared in halves and thirds of the picture
NEAR, FAR = 3, 6  # frames: allowed delay of a method; smallest distance of another moment
FLOOR = 4.0  # squared levels below which a difference is rounding
PICTURE_RATIO, TIME_RATIO = 0.3, 0.1  # error of the better explanation relative to the actual error
STILL = 0.15  # share of the Original's change in a step; with a smaller change the video stands still


class Beside:
    """Collects data batch by batch: call `update` with the same frames of both, uint8 (T, H, W, 3), in order."""

    def __init__(self) -> None:
        self._grids: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        self._steep = np.zeros((2, 2, PARTS, PARTS))  # of the Original and the video, along x and y

    def update(self, original: np.ndarray, video: np.ndarray) -> None:
        """Add the next frames."""
        for which, frames in enumerate((original, video)):
            self._grids[which].append(_areas(frames.astype(np.float32), CELLS))
            luma = luma_of(frames)
            for axis in (2, 1):  # along x, along y
                steps = np.abs(np.diff(luma, axis=axis))
                if min(steps.shape[1:]) >= PARTS:
                    self._steep[which, 2 - axis] += _areas(steps[..., None], PARTS)[..., 0].sum(0)

    def measures(self) -> dict[str, float]:
        """The measures by name. Levels are 0–255, shares are in [0, 1].

        tint, brightness: mean over time of the offset of the colour and of the luma, in levels.
        flicker: the offsets of the mean channels and of the mean luma, minus their average over about a second; the RMS
            over time of the largest one, in levels.
        turned: share of frames that are closer to the Original's frame if that is inverted, mirrored, without colours
        or
            has its channels exchanged.
        displaced, displaced_run: share and longest run of frames that show another moment of the Original. stands: the
        longest run of steps in which the video stands still while the Original moves. detail: gradients along x or y
        relative to those of the Original, in the blurriest half or third. motion: correlation of the changes over time;
        1 if nothing moves. explained: share of the Original's variation within frames that the video reproduces; 0 for
        one colour per frame.
        """
        original, video = (np.concatenate(grids) for grids in self._grids)
        count = len(video)
        flat = [grid.reshape(count, -1).astype(np.float64) for grid in (original, video)]
        error = ((flat[1] - flat[0]) ** 2).mean(1)
        offsets = (video - original).mean((1, 2))
        luma = offsets @ np.array([0.299, 0.587, 0.114], np.float32)
        elsewhere = _elsewhere(*flat)
        within = original - original.mean((1, 2), keepdims=True)
        return {
            "tint": float(np.abs(offsets - offsets.mean(1, keepdims=True)).max(1).mean()),
            "brightness": float(np.abs(luma).mean()),
            "flicker": _flicker(np.column_stack([offsets, luma])),
            "turned": float(_turned(original, video, error).mean()),
            "displaced": float(elsewhere.mean()),
            "displaced_run": float(longest(elsewhere)),
            "stands": float(longest(_stands(*flat))),
            "detail": self._detail(count),
            "motion": _motion(*flat),
            "explained": 1 - float(error.mean()) / max(float((within**2).mean()), 100.0),  # 10 levels: no division by 0
        }

    def _detail(self, count: int) -> float:
        strips = [
            part.mean((2, 3))
            for width in (PARTS // 2, PARTS // 3)
            for start in range(0, PARTS, width)
            for part in (self._steep[:, :, start : start + width], self._steep[:, :, :, start : start + width])
        ]
        # plus 0.05 levels on both sides: if the Original is smooth too, no detail is missing
        original, video = (np.stack(strips) / count + 0.05).transpose(1, 0, 2)
        return float((video / original).min())


def longest(flags: np.ndarray) -> int:
    """The length of the longest run of True."""
    padded = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return int((padded[1::2] - padded[::2]).max(initial=0))


def _areas(frames: np.ndarray, parts: int) -> np.ndarray:
    """Means of up to parts×parts areas of each frame (T, H, W, C)."""
    rows, columns = (np.linspace(0, size, min(parts, size) + 1).astype(int) for size in frames.shape[1:3])
    sums = np.add.reduceat(np.add.reduceat(frames, rows[:-1], axis=1), columns[:-1], axis=2)
    return sums / np.outer(np.diff(rows), np.diff(columns))[..., None]


def _flicker(offsets: np.ndarray) -> float:
    """The RMS over time of the largest column of (T, C) minus its moving average over 25 frames."""
    width = min(25, len(offsets) - 1 + len(offsets) % 2)
    around = np.pad(offsets, ((width // 2, width // 2), (0, 0)), mode="reflect")
    slow = np.stack([np.convolve(column, np.full(width, 1 / width), "valid") for column in around.T], 1)
    return float(np.sqrt(((offsets - slow) ** 2).mean(0)).max())


def _turned(original: np.ndarray, video: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Which frames are closer to a changed frame of the Original (e.g. mirrored) than to the frame: (T,) of bool."""
    others = [255 - original, original[:, ::-1], original[:, :, ::-1], original[:, ::-1, ::-1]]
    others.append(np.broadcast_to(luma_of(original)[..., None], original.shape))
    others += [original[..., list(order)] for order in permutations(range(3)) if order != (0, 1, 2)]
    best = np.min([((video - other) ** 2).mean((1, 2, 3)) for other in others], axis=0)
    return (best < PICTURE_RATIO * error) & (error > 25)


def _elsewhere(original: np.ndarray, video: np.ndarray) -> np.ndarray:
    """Which frames show a moment of the Original at least FAR frames away, and no near moment: (T,) of bool."""
    distance = (video**2).sum(1)[:, None] + (original**2).sum(1)[None] - 2 * video @ original.T
    distance = np.maximum(distance / video.shape[1], 0)
    lag = np.abs(np.subtract.outer(np.arange(len(video)), np.arange(len(video))))
    near = np.where(lag <= NEAR, distance, np.inf).min(1)
    far = np.where(lag >= FAR, distance, np.inf).min(1)
    return (near > FLOOR) & (far < TIME_RATIO * near)


def _stands(original: np.ndarray, video: np.ndarray) -> np.ndarray:
    """In which steps the Original changes and the video does not: (T - 1,) of bool."""
    moves, own = (np.abs(np.diff(grid, axis=0)).mean(1) for grid in (original, video))
    usual = float(np.median(moves)) if len(moves) else 0.0
    return (own < STILL * np.minimum(moves, usual)) & (moves > 0.02)


def _motion(original: np.ndarray, video: np.ndarray) -> float:
    a, b = original - original.mean(0), video - video.mean(0)
    if (a**2).mean() < FLOOR:
        return 1.0
    return float((a * b).sum() / np.sqrt((a**2).sum() * max(float((b**2).sum()), 1e-9)))
