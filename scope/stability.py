"""Bounds on a predicted velocity. Tensors are (slots, C, H, W) float32; every slot is bounded alone, on the device.

`blend` is RACER's rule (arXiv 2608.01740). It trusts a prediction p less if it differs from the line p_lin through the
last two velocities, and after more steps without a forward:

    risk  = RMS(p - p_lin) / RMS(p)
    kappa = exp(-0.3 max(h - 1, 0)) sigmoid(4 (limit - risk))          h: steps since the last computed one, 1 or more
    p    <- kappa p + (1 - kappa) v0                                   v0: the last computed velocity

RACER's p is the forecast by Chebyshev polynomials; here it is any prediction. That of `taylor1` and `foca` is the line
itself, so its risk is 0 and only the steps without a forward count. RACER's limit is 0.15 to 0.40.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from engine.history import column

if TYPE_CHECKING:
    from torch import Tensor

FADE, STEEPNESS = 0.3, 4.0  # RACER's constants
TINY = 1e-12


def correction(predicted: Tensor, last: Tensor) -> Tensor:
    """The relative L1 of the difference between a prediction and the last velocity, (slots,)."""
    return (predicted - last).abs().flatten(1).mean(1) / (last.abs().flatten(1).mean(1) + TINY)


def clipped(predicted: Tensor, last: Tensor, ratio: Tensor, limit: float) -> Tensor:
    """The prediction with a correction of at most `limit`; `ratio` is its present `correction`."""
    return last + (predicted - last) * _wide((limit / ratio.clamp(min=TINY)).clamp(max=1), last)


def in_range(predicted: Tensor, last: Tensor, amplitude: float) -> Tensor:
    """The prediction limited to each channel's last range, widened on both sides by `amplitude` times the range."""
    low, high = last.amin((-2, -1), keepdim=True), last.amax((-2, -1), keepdim=True)
    room = (high - low) * amplitude
    return predicted.clamp(low - room, high + room)


def finite_or_last(predicted: Tensor, last: Tensor, ratio: Tensor) -> Tensor:
    """The prediction, or the last velocity in slots whose `correction` is not a finite number."""
    return torch.where(_wide(torch.isfinite(ratio), last), predicted, last)


def risk(predicted: Tensor, line: Tensor) -> Tensor:
    """RACER's risk of every slot, (slots,): 0 if the prediction equals the line."""
    return _rms(predicted - line) / _rms(predicted).clamp(min=TINY)


def blend(predicted: Tensor, line: Tensor, last: Tensor, limit: float, waited: Sequence[int]) -> tuple[Tensor, Tensor]:
    """RACER's blend, and whether the risk of a slot exceeds `limit` (0-dim bool). `waited`: h of every slot."""
    found = risk(predicted, line)
    fade = torch.exp(-FADE * (column(waited, found) - 1).clamp(min=0)).flatten()
    kappa = _wide(torch.nan_to_num(fade * torch.sigmoid(STEEPNESS * (limit - found))), last)
    return kappa * predicted + (1 - kappa) * last, (found > limit).any()


def _rms(x: Tensor) -> Tensor:
    return x.flatten(1).square().mean(1).sqrt()


def _wide(factor: Tensor, like: Tensor) -> Tensor:
    """(slots,) in a shape that broadcasts over `like`."""
    return factor.view(-1, *[1] * (like.dim() - 1))
