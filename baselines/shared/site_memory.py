"""The memory of a method with several sites: one history per site and guidance branch, by latent slot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from engine.forecast import Formula
from engine.history import History
from engine.row import Row, Site

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Memory:
    """The last `depth` values of every slot at every site. `dtype` None keeps the dtype of the first values."""

    def __init__(self, depth: int = 1, dtype: torch.dtype | None = None) -> None:
        self.depth, self.dtype = depth, dtype
        self.at: dict[Site, History] = {}

    def push(self, site: Site, part: Row, value: Tensor) -> None:
        """Store `value` (slots of `part`, ...) with the iteration as its level."""
        history = self.at.setdefault(site, History(self.depth, self.dtype))
        history.push(list(part.slots), [float(part.iteration)] * len(part.slots), value, part.settled)

    def last(self, site: Site, part: Row) -> Tensor:
        """The newest value of every slot of `part`, (slots, ...). Do not write to it, see `History.last`."""
        return self.at[site].last(list(part.slots))

    def predict(self, site: Site, part: Row, formula: Formula, orders: Sequence[int]) -> Tensor:
        """Extrapolate to the present iteration with `formula`, each slot with its order, in the stored dtype."""
        history, now = self.at[site], [float(part.iteration)] * len(part.slots)
        return history.predict(list(part.slots), formula, now, orders).to(history.dtype)

    def knows(self, part: Row, kind: str = "", branch: str = "") -> bool:
        """Whether every slot of `part` has a value at every stored site, of one `kind` and one `branch` if given."""
        mine = [
            history
            for site, history in self.at.items()
            # a branch named "x+..." is a second pass of some slots
            if "+" not in site.branch and kind in ("", site.kind) and branch in ("", site.branch)
        ]
        return bool(mine) and all(history.count(slot) for history in mine for slot in part.slots)

    def branches(self) -> set[str]:
        """The guidance branches with stored values."""
        return {site.branch for site in self.at if "+" not in site.branch}

    def tensors(self) -> Iterable[Tensor]:
        """The stored tensors, for the account of a method's memory."""
        for history in self.at.values():
            yield from history.tensors()
