"""The ledger of a method without a forward: exact for methods that look at timesteps and counters alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from engine.ledger import Entry
from engine.loop import generate
from engine.method import Method
from engine.row import VELOCITY, Row
from engine.visit import Visit


class Rehearsal:
    """A backbone without forwards: its schedule and the signals of timesteps are real, its velocities are zero.

    Decisions that depend on timesteps and counters alone are the same as in a real run, and much faster. `branches`:
    the guidance branches whose sites are visited. On the `place` "meta" velocities and hidden states have no values.
    Hidden states are (slots, *hidden) of `dtype`. `twice`: the first AR unit passes the sites of blocks twice.
    """

    def __init__(
        self,
        model: Any,
        text: Any,
        branches: Sequence[str] = (),
        place: str = "",
        hidden: tuple[int, int] = (1, 1),
        dtype: torch.dtype = torch.float32,
        twice: bool = False,
    ) -> None:
        self.model, self.text, self.place, self.twice = model, text, place, twice
        self.shape, self.dtype = hidden, dtype
        self.branches: tuple[str, ...] = tuple(branches or model.branches)
        self.depth, self.offers = model.depth, model.offers
        self._known: dict[str, set[int]] = {}  # by guidance branch: slots of the segment with keys and values
        self._final: dict[str, set[int]] = {}  # and those among them that have settled

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def open(self, latents: torch.Tensor, row: Row) -> torch.Tensor:
        self._known.clear()
        self._final.clear()
        opened: torch.Tensor = self.model.open(latents, row)
        return opened

    def velocity(self, latents: torch.Tensor, row: Row, visit: Visit) -> torch.Tensor:
        window = latents[row.slots.start : row.slots.stop].to(self.place or latents.device)
        hidden = torch.zeros(len(row.slots), *self.shape, device=self.place or "cpu", dtype=self.dtype)
        inner = [site for site in visit.method.sites(self.depth, row) if site != VELOCITY]

        def of(x: torch.Tensor, parts: Sequence[Row]) -> torch.Tensor:
            first = row.slots.start
            return torch.cat([torch.zeros_like(x[p.slots.start - first : p.slots.stop - first]) for p in parts])

        def forward(x: torch.Tensor, parts: Sequence[Row]) -> torch.Tensor:
            for branch in self.branches:

                def run(x: torch.Tensor, parts: Sequence[Row], branch: str = branch) -> torch.Tensor:
                    self._keep(row, visit, branch, parts)
                    return of(x, parts)

                if not any(site.kind == "guidance" for site in inner):
                    run(x, parts)
                for site in inner:
                    if site.kind == "guidance":
                        visit(site._replace(branch=branch), x, run)
                    else:
                        visit(site._replace(branch=branch), hidden, of)
                        if self.twice:
                            first = hidden[: row.unit]
                            visit.again(site._replace(branch=branch), row.units()[0], first, first, None)
            return of(x, parts)

        return visit(VELOCITY, window, forward)

    def _keep(self, row: Row, visit: Visit, branch: str, parts: Sequence[Row]) -> None:
        """Note what a forward of `branch` would compute of the row's context first, and what it would leave behind."""
        known, final = self._known.setdefault(branch, set()), self._final.setdefault(branch, set())
        lacking = [slot for slot in row.context if slot not in known or (slot < row.settled and slot not in final)]
        if lacking:
            slots = range(lacking[0], lacking[-1] + 1)
            visit.kept(branch, slots)
            known.update(slots)
            final.update(slot for slot in slots if slot < row.settled)
        if row.context or visit.partial:
            known.update(slot for part in parts for slot in part.slots)

    def advance(self, latents: torch.Tensor, row: Row, velocity: torch.Tensor) -> torch.Tensor:
        return latents


def rehearse(model: Any, method: Method, text: Any) -> list[Entry]:
    """The ledger that `method` would write if every velocity were zero."""
    ledger: list[Entry] = []
    generate(Rehearsal(model, text), method, text, 0, ledger)
    return ledger
