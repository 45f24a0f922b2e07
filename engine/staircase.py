"""SkyReels-V2's denoising schedule as integers: the staircase in closed form, and the segments of a long video.

A segment of L slots is denoised in blocks of c slots. Block b lags `ar_step` rows behind block b - 1. Diffusers and the
official code build the same matrix row by row; this is its closed form:

    idx(r, b)    = clamp(r - lag b, 0, S + 1)     row r = 1, 2, ...; new block b = 0, 1, ...; S steps
    update(r, b) = 1 <= r - lag b <= S
    rows         = S + lag (blocks - 1)           lag = min(ar_step, S)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.row import Row


@dataclass(frozen=True)
class Segment:
    """Slots [first, first + length) of the video. The first `prefix` of them are already clean."""

    first: int
    length: int
    prefix: int


def segments(total: int, base: int, overlap: int, block: int) -> list[Segment]:
    """Cut a video of `total` latents into windows of `base` latents that share `overlap` latents (0: one window).

    Raises ValueError if a window is not a multiple of `block` latents: its last latents would stay noise.
    """
    if total <= base or overlap == 0:
        found = [Segment(0, total, 0)]
    else:
        step = base - overlap
        count = 1 + (total - base - 1) // step + 1
        found = [Segment(0, base, 0)]
        found += [Segment(i * step, min(total - i * step, base), overlap) for i in range(1, count)]
    for segment in found:
        if segment.length % block or segment.prefix % block:
            raise ValueError(
                f"a segment has {segment.length} latents, {segment.prefix} of them overlap; want multiples of the "
                f"block length {block}"
            )
    return found


def staircase(cut: Sequence[Segment], steps: int, ar_step: int, block: int, sigma: Sequence[float]) -> list[Row]:
    """Every row of a video. `sigma` holds the steps + 1 noise levels of the grid, from noise to clean."""
    rows: list[Row] = []
    for number, segment in enumerate(cut):
        ready = segment.prefix // block
        new = segment.length // block - ready
        lag = min(ar_step, steps)
        count = steps + lag * (new - 1)
        for r in range(1, count + 1):
            done = [steps] * ready + [min(max(r - 1 - lag * b, 0), steps) for b in range(new)]
            active = [False] * ready + [1 <= r - lag * b <= steps for b in range(new)]
            after = [k + on for k, on in zip(done, active, strict=True)]
            rows.append(
                Row(
                    iteration=len(rows),
                    segment=number,
                    slots=range(segment.first, segment.first + segment.length),
                    steps=steps,
                    step=_each(done, block),
                    sigma=_each([sigma[k] for k in done], block),
                    sigma_next=_each([sigma[k] for k in after], block),
                    active=_each(active, block),
                    unit=block,
                    last=r == count,
                    given=segment.first + segment.prefix,
                )
            )
    return rows


def _each(values: Sequence, block: int) -> tuple:
    return tuple(value for value in values for _ in range(block))
