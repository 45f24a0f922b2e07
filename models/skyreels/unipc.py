"""UniPC for many frames at once, each at its own step of the same grid.

The stock pipelines keep one scheduler object per latent frame and step them one by one. For a flow-matching model every
UniPC step (order 2, B(h) = bh2, predicting x0, corrector on, lower order first and last; Zhao et al. 2023, Alg. 1 and
2) is linear in five tensors, with coefficients that depend on the step's place in the grid alone:

    m_k  = x_k - sigma_k v_k                                           clean estimate
    x_k' = C_l l_{k-1} + C_0 m_{k-1} + C_1 m_{k-2} + C_t m_k           corrector (k > 0), l = the last corrected sample
    x_{k+1} = P_x x_k' + P_0 m_k + P_1 m_{k-1}                         predictor

so a table of seven numbers per step replaces the objects.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

CORRECT_LAST, CORRECT_M0, CORRECT_M1, CORRECT_NOW, PREDICT_X, PREDICT_M0, PREDICT_M1 = range(7)


def coefficients(sigmas: Sequence[float]) -> np.ndarray:
    """The table (steps, 7) in float64 for a grid of steps + 1 levels that ends at 0."""
    grid = np.asarray(sigmas, dtype=np.float64)
    steps = len(grid) - 1
    with np.errstate(divide="ignore"):
        lam = np.log(1 - grid) - np.log(grid)
    table = np.zeros((steps, 7))
    for k in range(steps):
        if k:
            table[k, :4] = _corrector(grid, lam, k)
        else:
            table[k, :4] = 0.0, 0.0, 0.0, 0.0
        table[k, 4:] = _predictor(grid, lam, k, _order(k, steps))
    return table


def _order(k: int, steps: int) -> int:
    """Order of the step from grid point k: first order on the first and on the last."""
    return max(1, min(2, steps - k, k + 1))


def _predictor(grid: np.ndarray, lam: np.ndarray, k: int, order: int) -> tuple[float, float, float]:
    h = lam[k + 1] - lam[k]
    alpha = 1 - grid[k + 1]
    phi = np.expm1(-h)  # also B(h)
    x, m0, m1 = grid[k + 1] / grid[k], -alpha * phi, 0.0
    if order == 2:
        slope = -alpha * phi * 0.5 / ((lam[k - 1] - lam[k]) / h)
        m0, m1 = m0 - slope, slope
    return x, m0, m1


def _corrector(grid: np.ndarray, lam: np.ndarray, k: int) -> tuple[float, float, float, float]:
    """From grid point k - 1 to k, with the clean estimate at k known; order that of the step that led here."""
    h = lam[k] - lam[k - 1]
    alpha = 1 - grid[k]
    phi = np.expm1(-h)
    last, m0, m1 = grid[k] / grid[k - 1], -alpha * phi, 0.0
    if _order(k - 1, len(grid) - 1) == 1:
        now = -alpha * phi * 0.5
        return last, m0 - now, m1, now
    ratio = (lam[k - 2] - lam[k - 1]) / h
    g1 = phi / -h - 1
    b = np.array([g1 / phi, (g1 / -h - 0.5) * 2 / phi])
    rho = np.linalg.solve(np.array([[1.0, 1.0], [ratio, 1.0]]), b)
    old, now = -alpha * phi * rho[0] / ratio, -alpha * phi * rho[1]
    return last, m0 - old - now, old, now


class UniPC:
    """The sampler state of every slot of one segment.

    The stock pipelines, official and diffusers alike, hand each scheduler a view of the latents, which the scheduler
    remembers as its last sample and the pipeline then overwrites with the result. So the first corrector starts from
    x_1 where it should from x_0. `in_place` does as they do, and only so are their videos ours; without it this is
    UniPC as published.
    """

    def __init__(self, sigmas: Sequence[float], device: torch.device, in_place: bool = False) -> None:
        self.table = torch.tensor(coefficients(sigmas), dtype=torch.float32, device=device)
        self.sigma = torch.tensor(list(sigmas), dtype=torch.float32, device=device)
        self.device, self.in_place = device, in_place

    def reset(self, latents: Tensor) -> None:
        """Forget all; `latents` (slots, C, H, W) gives the shape."""
        self.last, self.m0, self.m1 = (torch.zeros_like(latents) for _ in range(3))

    def step(self, x: Tensor, velocity: Tensor, slots: slice, index: Tensor) -> Tensor:
        """One step of the slots in `slots` (contiguous in the segment), each at its own grid point.

        `x`, `velocity`: (n, C, H, W) float32; `index`: (n,) long, 0 for a slot's first step. Returns the next x.
        """
        c = [k.view(-1, 1, 1, 1) for k in self.table[index].unbind(1)]
        m0, m1, last = self.m0[slots], self.m1[slots], self.last[slots]
        m = x - self.sigma[index].view(-1, 1, 1, 1) * velocity.float()
        corrected = c[CORRECT_LAST] * last + c[CORRECT_M0] * m0 + c[CORRECT_M1] * m1 + c[CORRECT_NOW] * m
        x = torch.where((index == 0).view(-1, 1, 1, 1), x, corrected)
        following = c[PREDICT_X] * x + c[PREDICT_M0] * m + c[PREDICT_M1] * m0
        if self.in_place:
            x = torch.where((index == 0).view(-1, 1, 1, 1), following, x)
        self.m1[slots], self.m0[slots], self.last[slots] = m0.clone(), m, x
        return following
