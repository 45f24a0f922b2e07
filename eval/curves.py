"""What a mean over a video hides: error by chunk, jumps where segments meet, drift along the video's time.

A curve is one value per frame, as `quality.json` keeps under `per_frame`: PSNR in dB (None for a frame without any
error), SSIM or LPIPS. All functions return values in the curve's own unit.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from eval.metrics import PSNR_CAP

Curve = Sequence[float | None]


def by_chunk(curve: Curve, borders: Sequence[int]) -> list[float]:
    """The mean of each chunk. `borders` are the first frames of the chunks after the first, rising, within (0, T)."""
    _checked(curve, borders)
    return [float(part.mean()) for part in np.split(_values(curve), list(borders))]


def border_jumps(curve: Curve, borders: Sequence[int]) -> list[float]:
    """How far the curve steps at each border beyond its usual step: |c[b] - c[b-1]| minus the median step elsewhere.

    About 0 where the seam cannot be told from its surroundings; negative where the curve is calmer than elsewhere.
    """
    _checked(curve, borders)
    steps = np.abs(np.diff(_values(curve)))
    inside = np.delete(steps, [border - 1 for border in borders])
    usual = float(np.median(inside)) if inside.size else 0.0
    return [float(steps[border - 1]) - usual for border in borders]


def drift(curve: Curve) -> dict[str, float]:
    """{"slope": the least-squares change over the whole video, "last_minus_first": the last quarter's mean minus the
    first's}. Signs are the metric's: a negative PSNR drift and a positive LPIPS drift both mean getting worse."""
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
        raise ValueError(f"borders {list(borders)} must rise within 1 … {len(curve) - 1}")
