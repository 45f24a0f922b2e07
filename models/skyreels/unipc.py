"""The UniPC sampler for many frames at once, each at its own step of the same grid.

The official and diffusers' pipelines have one scheduler object per latent frame and step them one by one. A UniPC step
(Zhao et al. 2023, Alg. 1 and 2; order 2, B(h) = bh2, x0 prediction, with corrector, first order at the first and last
step) of a flow-matching model is linear in five tensors. Its coefficients depend only on the step's index in the grid:

    m_k  = x_k - sigma_k v_k                                                   clean estimate
    x_k' = a l_{k-1} - b m_{k-1} - c (p (m_{k-2} - m_{k-1}) / r + q (m_k - m_{k-1}))       corrector (k > 0)
    x_{k+1} = a' x_k' - b' m_k - c' p' (m_{k-1} - m_k) / r'                    predictor

where l is the last corrected sample. So a table of ten numbers per step replaces the scheduler objects. Coefficients
and samples are computed in the same order of operations as in diffusers' scheduler: on a CPU the results are identical.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def coefficients(sigmas: Sequence[float]) -> Tensor:
    """The table of coefficients (steps, 10), float32, for a grid of steps + 1 noise levels that ends at 0.

    The columns are a, b, c, r, p, q of the corrector, then a', b', c', r' of the predictor. p' is 1/2; in a first-order
    step c' is 0 and r' is 1.
    """
    grid = torch.tensor(list(sigmas), dtype=torch.float32)
    steps = len(grid) - 1
    none = [torch.tensor(x) for x in (0.0, 0.0, 0.0, 1.0, 0.0, 0.0)]
    return torch.stack(
        [
            torch.stack([*(_corrector(grid, k, steps) if k else none), *_predictor(grid, k, _order(k, steps))])
            for k in range(steps)
        ]
    )


def _order(k: int, steps: int) -> int:
    """The order of the step from grid point k: 1 for the first and the last step, else 2."""
    return max(1, min(2, steps - k, k + 1))


def _move(grid: Tensor, before: int, after: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For a step between two grid points: the log-SNR difference h, and the first-order factors a, b and c = b."""
    h = _log_snr(grid[after]) - _log_snr(grid[before])
    alpha = 1 - grid[after]
    return h, grid[after] / grid[before], alpha * torch.expm1(-h), alpha * torch.expm1(-h)


def _log_snr(sigma: Tensor) -> Tensor:
    return torch.log(1 - sigma) - torch.log(sigma)


def _gap(grid: Tensor, older: int, before: int, h: Tensor) -> Tensor:
    """The log-SNR difference of the step before, divided by h of this step (negative)."""
    return (_log_snr(grid[older]) - _log_snr(grid[before])) / h


def _predictor(grid: Tensor, k: int, order: int) -> list[Tensor]:
    h, a, b, c = _move(grid, k, k + 1)
    if order == 1:
        return [a, b, torch.zeros(()), torch.ones(())]
    return [a, b, c, _gap(grid, k - 1, k, h)]


def _corrector(grid: Tensor, k: int, steps: int) -> list[Tensor]:
    """The coefficients from grid point k - 1 to k, given the clean estimate at k, for the order of that step."""
    h, a, b, c = _move(grid, k - 1, k)
    if _order(k - 1, steps) == 1:
        return [a, b, c, torch.ones(()), torch.zeros(()), torch.tensor(0.5)]
    r, one, hh = _gap(grid, k - 2, k - 1, h), torch.ones(()), -h
    phi = torch.expm1(hh)
    first = phi / hh - 1
    second = first / hh - 1 / 2
    powers = torch.stack([torch.stack([one, one]), torch.stack([r, one])])
    p, q = torch.linalg.solve(powers, torch.stack([first * 1 / phi, second * 2 / phi]))
    return [a, b, c, r, p, q]


class UniPC:
    """The sampler state of every slot of one segment.

    The official pipeline and diffusers' give each scheduler a view of the latents. The scheduler keeps it as its last
    sample, and the pipeline then overwrites it with the result. So their first corrector starts from x_1 instead of
    x_0. `in_place=True` does the same and is needed for the same videos. `in_place=False` is UniPC as published.
    """

    def __init__(self, sigmas: Sequence[float], device: torch.device, in_place: bool = False) -> None:
        self.table = coefficients(sigmas).to(device)
        self.sigma = torch.tensor(list(sigmas), dtype=torch.float32, device=device)
        self.device, self.in_place = device, in_place

    def reset(self, latents: Tensor) -> None:
        """Clear all state. `latents` (slots, C, H, W) gives shape and device."""
        self.last, self.m0, self.m1 = (torch.zeros_like(latents) for _ in range(3))

    def forget(self) -> None:
        """Release the memory of the state; `reset` allocates it again."""
        for name in ("last", "m0", "m1"):
            vars(self).pop(name, None)

    def step(self, x: Tensor, velocity: Tensor, slots: slice, index: Tensor) -> Tensor:
        """One step of the slots in `slots`, a contiguous part of the segment, each at its own grid point.

        `x` and `velocity` are (n, C, H, W) float32. `index` (n,) long is the number of steps that a slot has had.
        Returns x after the step.
        """
        a, b, c, r, p, q, a2, b2, c2, r2 = (k.view(-1, 1, 1, 1) for k in self.table[index].unbind(1))
        m0, m1, last = self.m0[slots], self.m1[slots], self.last[slots]
        m = x - self.sigma[index].view(-1, 1, 1, 1) * velocity.float()
        corrected = (a * last - b * m0) - c * (p * ((m1 - m0) / r) + q * (m - m0))
        x = torch.where((index == 0).view(-1, 1, 1, 1), x, corrected)
        following = (a2 * x - b2 * m) - c2 * (0.5 * ((m0 - m) / r2))
        if self.in_place:
            x = torch.where((index == 0).view(-1, 1, 1, 1), following, x)
        self.m1[slots], self.m0[slots], self.last[slots] = m0.clone(), m, x
        return following
