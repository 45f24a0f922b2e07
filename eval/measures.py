"""Measures of a single video that need no neural network. They differ from VBench's measures with similar names.

Luma is 0.299 R + 0.587 G + 0.114 B in levels 0–255. The mean luma of each of 16×16 areas of the frame is used, so that
the measures do not depend on the resolution and noise of single pixels has little effect.
"""

from collections.abc import Iterable

import numpy as np

CELLS = 16
VERSION = "1"


def measures(batches: Iterable[np.ndarray]) -> dict[str, float | None]:
    """The measures of a video given as uint8 batches (T, H, W, 3). A measure is None if there are too few frames.

    brightness_flicker: mean |second difference| of the frame's mean luma, in levels; 0 is steady. Fades and even
        brightening give 0, a flickering lamp gives large values.
    frame_change: mean absolute difference of the pixels of consecutive frames, in levels.
    smoothness_by_differences: 1 - mean |c[t+1] - 2 c[t] + c[t-1]| / (|c[t+1] - c[t]| + |c[t] - c[t-1]|), both summed
        over areas c: 1 if every area changes evenly, 0 if each change is reversed in the next frame. None for a still
        video.
    motion_by_cells: mean over time of the 5 % largest changes of an area between frames, in levels. It approximates the
        degree of motion, but depends on contrast, while optical flow measures distance.
    """
    cells, changes, previous = [], [], None
    for batch in batches:
        luma = luma_of(batch)
        cells.append(_cells(luma))
        stack = luma if previous is None else np.concatenate([previous, luma])
        changes.extend(np.abs(np.diff(stack, axis=0)).mean((1, 2)).tolist())
        previous = luma[-1:]
    if not cells:
        raise ValueError("a video of no frames has no measures")
    grid = np.concatenate(cells)
    step = np.abs(np.diff(grid, axis=0))
    bend = np.abs(np.diff(grid, 2, axis=0))
    bend_of_mean = np.abs(np.diff(grid.mean(1), 2))
    largest = np.sort(step, axis=1)[:, -max(1, round(0.05 * grid.shape[1])) :]
    span = float((step[1:] + step[:-1]).sum())
    return {
        "brightness_flicker": float(bend_of_mean.mean()) if len(bend_of_mean) else None,
        "frame_change": float(np.mean(changes)) if changes else None,
        "smoothness_by_differences": 1 - float(bend.sum()) / span if span > 0 else None,
        "motion_by_cells": float(largest.mean()) if len(step) else None,
    }


def luma_of(batch: np.ndarray) -> np.ndarray:
    """The luma of uint8 frames (T, H, W, 3): float32 (T, H, W) in levels 0–255."""
    return batch.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)


def _cells(luma: np.ndarray) -> np.ndarray:
    """The mean luma of up to 16×16 areas of each frame: float64 (T, areas)."""
    rows, columns = (np.linspace(0, size, min(CELLS, size) + 1).astype(int) for size in luma.shape[1:])
    sums = np.add.reduceat(np.add.reduceat(luma.astype(np.float64), rows[:-1], axis=1), columns[:-1], axis=2)
    return (sums / np.outer(np.diff(rows), np.diff(columns))).reshape(len(luma), -1)
