"""Comparison of recorded tensors with ours: the error and its tolerance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

FLOAT32_TOLERANCE = 1e-5
_BFLOAT16_SHARE = 0.1  # of the mean magnitude, for a folder recorded in bfloat16


class Case(NamedTuple):
    """The result of one comparison."""

    name: str
    error: float  # largest absolute difference
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the error is within the tolerance."""
        return self.error <= self.tolerance  # False for NaN


def compare(name: str, pairs: Sequence[tuple[Tensor, Tensor]], dtype: torch.dtype = torch.float32) -> Case:
    """The comparison of all `pairs` (ours, recorded). `dtype` is that of the recorded model's hidden states.

    Raises:
        ValueError: two shapes differ.
    """
    scale = max(theirs.float().abs().mean().item() for _, theirs in pairs)
    return Case(name, _distance(pairs), FLOAT32_TOLERANCE if dtype == torch.float32 else _BFLOAT16_SHARE * scale)


def _distance(pairs: Sequence[tuple[Tensor, Tensor]]) -> float:
    worst = 0.0
    for ours, theirs in pairs:
        if ours.shape != theirs.shape:
            raise ValueError(f"the recorded shape is {tuple(theirs.shape)}, ours is {tuple(ours.shape)}; want the same")
        error = (ours.float() - theirs.float()).abs().max().item()
        if math.isnan(error):
            return error
        worst = max(worst, error)
    return worst
