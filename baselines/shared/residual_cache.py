"""The reused quantity that replaces a skipped computation, from the last computed step.

residual    of the block stack: x_out = x_in + R,   R = x_out - x_in         for each guidance branch
velocity    v = v_last                              after guidance
increment   v dt = v_last dt_last                   the latent changes as much as last time, for any step length
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from baselines.shared.site_memory import Memory
from engine.history import column, steps_of
from engine.row import VELOCITY, Row, Site

if TYPE_CHECKING:
    from torch import Tensor

QUANTITIES = ("residual", "velocity", "increment")


class Reused:
    """The last value of `quantity`, one of QUANTITIES, of every slot."""

    def __init__(self, quantity: str) -> None:
        self.quantity, self.memory = quantity, Memory(1)

    def site(self, depth: int) -> Site:
        """The site of the quantity in a model of `depth` blocks."""
        return Site("blocks", range(depth)) if self.quantity == "residual" else VELOCITY

    def keep(self, site: Site, part: Row, x: Tensor, out: Tensor) -> None:
        """See Method.keep."""
        if self.quantity == "residual":
            out = out - x
        elif self.quantity == "increment":
            out = out * _lengths(part, out)
        self.memory.push(site, part, out)

    def fill(self, site: Site, part: Row, x: Tensor) -> Tensor:
        """The result at `site`, see Method.fill."""
        kept = self.memory.last(site, part)
        if self.quantity == "residual":
            return x + kept
        return kept / _lengths(part, kept) if self.quantity == "increment" else kept

    def knows(self, part: Row) -> bool:
        """Whether every slot of `part` was computed before."""
        return self.memory.knows(part)

    def tensors(self) -> Iterable[Tensor]:
        """The stored tensors, for the account of a method's memory."""
        return self.memory.tensors()


def _lengths(part: Row, like: Tensor) -> Tensor:
    """The change of noise level of each slot in this row; 1 for idle slots, whose velocity is not used."""
    moves = steps_of(part)
    return column([moves.get(slot) or 1.0 for slot in part.slots], like)
