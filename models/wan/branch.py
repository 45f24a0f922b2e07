"""A branch of a SkyReels-V2 block: its modulation, its site, and the addition of its output to the hidden state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from engine.row import Row, Site
from engine.to_device import picked
from engine.visit import Visit


def through(
    kind: str,
    number: int,
    h: Tensor,
    gate: Tensor | None,
    compute: Callable[[Tensor, Sequence[Row]], Tensor],
    visit: Visit | None,
    branch: str,
    own: bool,
) -> Tensor:
    """The hidden state `h` after the branch `kind` of block `number`: h + gate * output. A gate of None is 1.

    The gate is applied after the site, so a result that a method supplies is multiplied by the present gate. A computed
    output is added as in diffusers' forward, bit for bit. A supplied one is added in one operation, which rounds once
    less. The output is never written to: it may be a method's memory. `h` is written to only if `own` is true, that is,
    if `h` was made in this block for this guidance branch.
    """
    fresh = visit is None

    def run(x: Tensor, parts: Sequence[Row]) -> Tensor:
        nonlocal fresh
        fresh = True
        return compute(x, parts)

    out = visit(Site(kind, range(number, number + 1), branch), h, run) if visit else compute(h, ())
    if gate is None:
        return h.add_(out) if own else h + out
    if fresh:
        return (out.float() * gate).add_(h.float()).type_as(h)
    return h.addcmul_(out, gate) if own else torch.addcmul(h, out, gate).type_as(h)


def modulation(block: Any, cond: Tensor) -> Tensor:
    """Shift, scale and gate of self-attention, then those of the feed-forward: (slots, 6, 1, width) float32."""
    return (block.scale_shift_table + cond.float()).unsqueeze(2)


def modulated(norm: Any, h: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """The normalised and modulated input of a branch. It is part of the branch: a supplied result skips it too."""
    return norm(h.float()).mul_(1 + scale).add_(shift).type_as(h)


def places(visit: Visit | None, parts: Sequence[Row]) -> list[int] | None:
    """The positions of the slots of `parts` in the row; None if `parts` cover the whole row."""
    return visit.places(parts) if visit else None


def only(x: Tensor, pick: Sequence[int] | None) -> Tensor:
    """The slots of `x` at the positions `pick`; None is all of them."""
    return x if pick is None else picked(x, pick)
