"""A recorded number, ours, and how far apart they may be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

FLOAT32_TOLERANCE = 1e-5
_BFLOAT16_SHARE = 0.1  # of the mean magnitude, for a folder recorded in bfloat16


class Case(NamedTuple):
    name: str
    error: float  # largest absolute difference
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance  # False for NaN


def compare(name: str, pairs: Sequence[tuple[Tensor, Tensor]], dtype: torch.dtype = torch.float32) -> Case:
    """The case of all `pairs` (ours, recorded), recorded by a model whose stream has `dtype`.

    Raises:
        ValueError: two shapes differ.
    """
    scale = max(theirs.float().abs().mean().item() for _, theirs in pairs)
    return Case(name, _distance(pairs), FLOAT32_TOLERANCE if dtype == torch.float32 else _BFLOAT16_SHARE * scale)


def _distance(pairs: Sequence[tuple[Tensor, Tensor]]) -> float:
    worst = 0.0
    for ours, theirs in pairs:
        if ours.shape != theirs.shape:
            raise ValueError(f"recorded shape {tuple(theirs.shape)} where ours is {tuple(ours.shape)}")
        error = (ours.float() - theirs.float()).abs().max().item()
        if math.isnan(error):
            return error
        worst = max(worst, error)
    return worst
