"""Drift of a video without a reference: how much its first and its last frames differ in sharpness, colour and motion.

    drift = |M(first 15 %) - M(last 15 %)|        M: mean of a measure over frames; n = ceil(0.15 T) frames at each end

sharpness: standard deviation of the Laplacian of a frame's luma, in levels. colour: mean R, G, B of a frame; the
difference is the Euclidean distance. saturation: mean of a pixel's largest channel minus its smallest. motion: mean
absolute difference of all samples to the frame before. All are in levels of 0-255.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from eval.signals import Signals

PERCENT = 15  # of the frames at each end; raising it: steadier, but slow changes count less
PARTS = 10  # of a video whose chunks are not known, or are fewer than FEWEST
FEWEST = 3  # chunks that make a curve
NAMES = ("sharpness", "colour", "saturation", "motion")


class Colours:
    """The mean colour and saturation of every frame: call `update` with uint8 batches (T, H, W, 3) in order."""

    def __init__(self) -> None:
        self.colour: list[np.ndarray] = []
        self.saturation: list[np.ndarray] = []

    def update(self, batch: np.ndarray) -> None:
        """Add the next frames."""
        self.colour.append(batch.mean((1, 2), dtype=np.float64))
        self.saturation.append((batch.max(3) - batch.min(3)).mean((1, 2), dtype=np.float64))


def alone(seen: Signals, colours: Colours, chunks: Sequence[int] | None = None) -> dict[str, Any]:
    """{"drift": {measure: value}, "starts": first frame of every part, "parts": {measure: mean of every part}}.

    Args:
        seen: the signals of the video.
        colours: of the same video.
        chunks: the numbers of frames that the video has after each of its chunks. The parts are the chunks if there are
            at least 3, else 10 equal parts.

    A drift is None where the two ends are not apart: fewer than 2 frames, for motion fewer than 3. The curve of colour
    is the distance to the first part. A part without a change to a frame before has None for motion.
    """
    curves = {
        "sharpness": np.sqrt(seen.detail)[:, None],
        "colour": np.concatenate(colours.colour),
        "saturation": np.concatenate(colours.saturation)[:, None],
        "motion": seen.change[:, None],
    }
    starts = _starts(seen.frames, chunks)
    parts = {name: _parts(curve, [*starts, seen.frames]) for name, curve in curves.items() if name != "motion"}
    late = np.concatenate([np.full((1, 1), np.nan), curves["motion"]])  # the change of a frame to the one before
    parts["motion"] = _parts(late, [*starts, seen.frames])
    drifts = {name: drift(curve) for name, curve in curves.items()}
    return {"drift": drifts, "starts": starts, "parts": {name: parts[name] for name in NAMES}}


def drift(curve: np.ndarray) -> float | None:
    """The distance between the means of the first and the last 15 % of `curve` (n, values); None if n < 2."""
    count = -(-PERCENT * len(curve) // 100)
    if len(curve) < 2:
        return None
    return _rounded(np.linalg.norm(curve[:count].mean(0) - curve[-count:].mean(0)))


def ends(values: Sequence[float]) -> float | None:
    """`drift` of a measure that has one value for each clip of a video."""
    return drift(np.array(values, float).reshape(-1, 1))


def _starts(frames: int, chunks: Sequence[int] | None) -> list[int]:
    if chunks and len(chunks) >= FEWEST and chunks[-1] == frames:
        return [0, *chunks[:-1]]
    parts = min(PARTS, frames)
    return [n * frames // parts for n in range(parts)]


def _parts(curve: np.ndarray, borders: Sequence[int]) -> list[float | None]:
    """The mean of every part; of vectors, the distance of its mean to that of the first part."""
    means = [_mean(curve[a:b]) for a, b in pairwise(borders)]
    if curve.shape[1] == 1:
        return [None if mean is None else _rounded(mean[0]) for mean in means]
    return [_rounded(np.linalg.norm(mean - means[0])) for mean in means if mean is not None]


def _mean(part: np.ndarray) -> np.ndarray | None:
    known = part[~np.isnan(part).any(1)]
    return known.mean(0) if len(known) else None


def _rounded(value: Any) -> float:
    return round(float(value), 4)
