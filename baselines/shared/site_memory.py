"""What a method remembers of several sites: one history per site and guidance branch, each keyed by latent slot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from engine.forecast import Formula
from engine.history import History
from engine.row import Row, Site


class Memory:
    """The last `depth` values of every slot at every site; `dtype` None keeps the dtype of what is pushed."""

    def __init__(self, depth: int = 1, dtype: torch.dtype | None = None) -> None:
        self.depth, self.dtype = depth, dtype
        self.at: dict[Site, History] = {}

    def push(self, site: Site, part: Row, value: Tensor) -> None:
        """Remember `value` (slots of `part`, ...), labelled with the iteration."""
        history = self.at.setdefault(site, History(self.depth, self.dtype))
        history.push(list(part.slots), [float(part.iteration)] * len(part.slots), value, part.settled)

    def last(self, site: Site, part: Row) -> Tensor:
        """The newest value of every slot of `part`, (slots, ...), to be read only (`History.last`)."""
        return self.at[site].last(list(part.slots))

    def predict(self, site: Site, part: Row, formula: Formula, orders: Sequence[int]) -> Tensor:
        """`formula` at the present iteration, every slot at its own order, in the dtype that was pushed."""
        history, now = self.at[site], [float(part.iteration)] * len(part.slots)
        return history.predict(list(part.slots), formula, now, orders).to(history.dtype)

    def knows(self, part: Row, kind: str = "", branch: str = "") -> bool:
        """Whether every slot of `part` has a value at every site seen so far (of one kind, in one branch)."""
        mine = [
            history
            for site, history in self.at.items()
            # a branch named "x+..." is a copy that some slots take beside their own pass
            if "+" not in site.branch and kind in ("", site.kind) and branch in ("", site.branch)
        ]
        return bool(mine) and all(history.count(slot) for history in mine for slot in part.slots)

    def branches(self) -> set[str]:
        """The guidance branches that something is remembered of."""
        return {site.branch for site in self.at if "+" not in site.branch}

    def tensors(self) -> Iterable[Tensor]:
        for history in self.at.values():
            yield from history.tensors()
