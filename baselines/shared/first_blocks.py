"""A method whose first blocks always run, so that their output decides about the other blocks."""

from __future__ import annotations

from collections.abc import Sequence

from engine.method import Capabilities, Method
from engine.row import Row, Site


class FirstBlocks(Method):
    """Every guidance branch decides for itself, at the input of the span of blocks that may be skipped.

    A subclass is a dataclass with the field `decide_per`. It says in `always` how many blocks always run.
    """

    decide_per: str

    @property
    def always(self) -> dict[str, int]:
        """The fields that say how many blocks always run, {name: value}: the first blocks, then the last if any."""
        raise NotImplementedError(f"{type(self).__name__}.always")

    @property
    def grain(self) -> str:
        return self.decide_per

    @property
    def branchwise(self) -> bool:
        return True

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"blocks", "partial"} if self.decide_per == "unit" else {"blocks"})

    def check(self, model: Capabilities) -> None:
        super().check(model)
        if sum(self.always.values()) >= model.depth:
            given = " and ".join(f"{name}={value}" for name, value in self.always.items())
            leaves, these = ("leaves", "it") if len(self.always) == 1 else ("leave", "them")
            raise ValueError(f"{given} {leaves} none of {model.name}'s {model.depth} blocks to skip; lower {these}")

    def sites(self, depth: int, row: Row) -> Sequence[Site]:
        first, last = [*self.always.values(), 0][:2]
        return Site("blocks", range(first)), Site("blocks", range(first, depth - last))
