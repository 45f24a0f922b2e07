"""The signals of the validity gate: a few numbers per frame, computed in one pass over the video."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from eval.measures import luma_of

BLACK_LEVEL = 16.0  # luma (0-255) from which a pixel is not black


@dataclass(frozen=True)
class Signals:
    """The signals: arrays with one value per frame (T,), or per pair of consecutive frames (T - 1,)."""

    height: int
    width: int
    luma: np.ndarray  # mean luma, (T,)
    bright: np.ndarray  # share of pixels not black, (T,)
    spread: np.ndarray  # spatial standard deviation of the channel with the largest one, (T,)
    clipped: np.ndarray  # share of samples at most 1 or at least 254, (T,)
    correlation: np.ndarray  # of horizontal and vertical neighbours, 1 for flat frames, (T,)
    detail: np.ndarray  # variance of the Laplacian, (T,)
    change: np.ndarray  # mean absolute difference over pixels and channels, (T - 1,)
    area: np.ndarray  # share of pixels whose luma changes by more than 10 levels, (T - 1,)
    blockiness: float  # see _blockiness

    @property
    def frames(self) -> int:
        """The number of frames, T."""
        return len(self.luma)


class Watch:
    """Collects the signals batch by batch: call `update` with uint8 (T, H, W, 3) in order, then `signals`."""

    def __init__(self) -> None:
        self._rows: list[tuple[float, ...]] = []
        self._steps: list[tuple[float, float]] = []
        self._gradients: list[np.ndarray] = []
        self._last: tuple[np.ndarray, np.ndarray] | None = None
        self._size = (0, 0)

    def update(self, batch: np.ndarray) -> None:
        """Add the next frames."""
        self._size = batch.shape[1:3]
        columns, rows = np.zeros(self._size[1] - 1), np.zeros(self._size[0] - 1)
        for frame, luma in zip(batch, luma_of(batch), strict=True):
            self._rows.append(_frame_signals(frame, luma))
            columns += np.abs(np.diff(luma, axis=1)).mean(0)
            rows += np.abs(np.diff(luma, axis=0)).mean(1)
            if self._last is not None:
                pixels = np.abs(frame.astype(np.int16) - self._last[0])
                self._steps.append((float(pixels.mean()), float((np.abs(luma - self._last[1]) > 10).mean())))
            self._last = frame.astype(np.int16), luma
        self._gradients.append(np.concatenate([columns, rows]))

    def signals(self) -> Signals:
        """The signals of all frames so far. Raises ValueError before the first frame."""
        if not self._rows:
            raise ValueError("a video of no frames cannot be judged")
        gradient = np.sum(self._gradients, axis=0) / len(self._rows)
        split = self._size[1] - 1
        blockiness = _blockiness(gradient[:split], gradient[split:])
        steps = np.array(self._steps).reshape(-1, 2)
        luma, bright, spread, clipped, correlation, detail = np.array(self._rows).T
        return Signals(
            *self._size, luma, bright, spread, clipped, correlation, detail, steps[:, 0], steps[:, 1], blockiness
        )


def signals(batches: Iterable[np.ndarray]) -> Signals:
    """The signals of a whole video, from its uint8 batches (T, H, W, 3)."""
    watch = Watch()
    for batch in batches:
        watch.update(batch)
    return watch.signals()


def _frame_signals(frame: np.ndarray, luma: np.ndarray) -> tuple[float, ...]:
    """The per-frame fields of Signals, in their order."""
    variance = float(luma.var())
    roughness = float(np.square(np.diff(luma, axis=1)).mean() + np.square(np.diff(luma, axis=0)).mean()) / 2
    inner = luma[1:-1, 1:-1]
    laplacian = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * inner
    return (
        float(luma.mean()),
        float((luma >= BLACK_LEVEL).mean()),
        float(frame.std((0, 1)).max()),
        float(((frame <= 1) | (frame >= 254)).mean()),
        1 - roughness / (2 * variance) if variance > 4 else 1.0,  # for a stationary field, E[d²] = 2 var (1 - r)
        float(laplacian.var()) if inner.size else 0.0,
    )


def _blockiness(columns: np.ndarray, rows: np.ndarray) -> float:
    """The gradient at every 8th or 16th pixel border relative to that elsewhere; about 1 without visible blocks.

    `columns` (W - 1,) and `rows` (H - 1,) are the mean absolute luma steps between neighbours. The lower quartile of
    the borders is used, because edges of an object may lie on some borders but not on most. The result is the geometric
    mean of both directions, because blocks are visible in both.
    """
    return max(float(np.sqrt(_steeper(columns, period) * _steeper(rows, period))) for period in (8, 16))


def _steeper(gradient: np.ndarray, period: int) -> float:
    on_grid = np.arange(1, len(gradient) + 1) % period == 0
    if on_grid.sum() < 3:
        return 1.0
    # plus one level in both, because a soft gradient rounded to bytes has regular steps of one level
    return float((np.quantile(gradient[on_grid], 0.25, method="lower") + 1) / (np.median(gradient[~on_grid]) + 1))
