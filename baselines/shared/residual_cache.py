"""What stands in for a computation that is skipped, from the last one that was not.

residual    of the block stack: x_out = x_in + R,   R = x_out - x_in         for each guidance branch
velocity    v = v_last                              after guidance
increment   v dt = v_last dt_last                   the latent moves as far as last time, however long the step is
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from baselines.shared.site_memory import Memory
from engine.history import column, steps_of
from engine.row import VELOCITY, Row, Site

QUANTITIES = ("residual", "velocity", "increment")


class Reused:
    """The last `quantity` of every slot."""

    def __init__(self, quantity: str) -> None:
        self.quantity, self.memory = quantity, Memory(1)

    def site(self, depth: int) -> Site:
        return Site("blocks", range(depth)) if self.quantity == "residual" else VELOCITY

    def keep(self, site: Site, part: Row, x: Tensor, out: Tensor) -> None:
        if self.quantity == "residual":
            out = out - x
        elif self.quantity == "increment":
            out = out * _lengths(part, out)
        self.memory.push(site, part, out)

    def fill(self, site: Site, part: Row, x: Tensor) -> Tensor:
        kept = self.memory.last(site, part)
        if self.quantity == "residual":
            return x + kept
        return kept / _lengths(part, kept) if self.quantity == "increment" else kept

    def knows(self, part: Row) -> bool:
        """Whether every slot of `part` was computed before."""
        return self.memory.knows(part)

    def tensors(self) -> Iterable[Tensor]:
        return self.memory.tensors()


def _lengths(part: Row, like: Tensor) -> Tensor:
    """How far this row moves each slot, in noise level; 1 for one that it does not move, whose velocity is not read."""
    moves = steps_of(part)
    return column([moves.get(slot) or 1.0 for slot in part.slots], like)
