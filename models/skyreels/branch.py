"""A branch of a SkyReels-V2 block: its modulation, its site, and the sum of its output into the stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from engine.row import Row, Site
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
    """The stream `h` after the branch `kind` of block `number`: h + gate * output, where a None gate is 1.

    The gate acts after the site, so that a stand-in for the output meets today's gate. A computed output joins as in
    the stock forward, to the bit; a stand-in joins in a single pass over memory, which rounds once less. The output may
    be a method's memory and stays as it is; so does `h`, unless it is our `own`: made in this block for this branch.
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
    """Shift, scale and gate of self-attention, then of the feed-forward: (slots, 6, 1, width) float32."""
    return (block.scale_shift_table + cond.float()).unsqueeze(2)


def modulated(norm: Any, h: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """What a branch makes of the stream first: it belongs to the branch, so that a stand-in leaves it out too."""
    return norm(h.float()).mul_(1 + scale).add_(shift).type_as(h)


def places(visit: Visit | None, parts: Sequence[Row]) -> list[int] | None:
    """Where the slots of `parts` lie in the row; None if they are all of it."""
    return visit.places(parts) if visit else None


def only(x: Tensor, pick: Sequence[int] | None) -> Tensor:
    """The slots of `x` at `pick`; None is all of them."""
    return x if pick is None else x[pick]
