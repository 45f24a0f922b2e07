"""Changes of a metric over the time of a video: mean per chunk, jumps at segment borders, drift.

A curve has one value per frame, as in `per_frame` of `quality.json`: PSNR in dB (None for a frame without error), SSIM
or LPIPS. All functions return values in the unit of the curve.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from eval.metrics import PSNR_CAP

Curve = Sequence[float | None]


def by_chunk(curve: Curve, borders: Sequence[int]) -> list[float]:
    """The mean of each chunk. `borders` are the first frames of all chunks but the first, increasing, in (0, T)."""
    _checked(curve, borders)
    return [float(part.mean()) for part in np.split(_values(curve), list(borders))]


def border_jumps(curve: Curve, borders: Sequence[int]) -> list[float]:
    """The step at each border minus the usual step: |c[b] - c[b-1]| minus the median step elsewhere.

    It is about 0 if the border does not stand out, and negative if the curve changes less there than elsewhere.
    """
    _checked(curve, borders)
    steps = np.abs(np.diff(_values(curve)))
    inside = np.delete(steps, [border - 1 for border in borders])
    usual = float(np.median(inside)) if inside.size else 0.0
    return [float(steps[border - 1]) - usual for border in borders]


def drift(curve: Curve) -> dict[str, float]:
    """{"slope": least-squares change over the whole video, "last_minus_first": mean of the last quarter minus that of
    the first}. The sign is that of the metric: a negative drift of PSNR and a positive drift of LPIPS are both
    worse."""
    values = _values(curve)
    quarter = max(1, len(values) // 4)
    slope = float(np.polyfit(np.linspace(0, 1, len(values)), values, 1)[0]) if len(values) > 1 else 0.0
    return {"slope": slope, "last_minus_first": float(values[-quarter:].mean() - values[:quarter].mean())}


def _values(curve: Curve) -> np.ndarray:
    if len(curve) == 0:
        raise ValueError("the curve has no frames")
    return np.array([PSNR_CAP if value is None else value for value in curve])


def _checked(curve: Curve, borders: Sequence[int]) -> None:
    inside = all(0 < border < len(curve) for border in borders)
    if not inside or any(a >= b for a, b in pairwise(borders)):
        raise ValueError(f"borders {list(borders)} must increase and be in 1 … {len(curve) - 1}")
