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

    Decisions that depend on timesteps and counters alone are the same as in a real run, and much faster.
    """

    def __init__(self, model: Any, text: Any) -> None:
        self.model, self.text = model, text
        self.branches, self.depth, self.offers = model.branches, model.depth, model.offers

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def velocity(self, latents: torch.Tensor, row: Row, visit: Visit) -> torch.Tensor:
        window = latents[row.slots.start : row.slots.stop]
        hidden = torch.zeros(len(row.slots), 1, 1)
        inner = [site for site in visit.method.sites(self.depth, row) if site != VELOCITY]

        def of(x: torch.Tensor, parts: Sequence[Row]) -> torch.Tensor:
            first = row.slots.start
            return torch.cat([torch.zeros_like(x[p.slots.start - first : p.slots.stop - first]) for p in parts])

        def forward(x: torch.Tensor, parts: Sequence[Row]) -> torch.Tensor:
            for branch in self.branches:
                for site in inner:
                    visit(site._replace(branch=branch), x if site.kind == "guidance" else hidden, of)
            return of(x, parts)

        return visit(VELOCITY, window, forward)

    def advance(self, latents: torch.Tensor, row: Row, velocity: torch.Tensor) -> torch.Tensor:
        return latents


def rehearse(model: Any, method: Method, text: Any) -> list[Entry]:
    """The ledger that `method` would write if every velocity were zero."""
    ledger: list[Entry] = []
    generate(Rehearsal(model, text), method, text, 0, ledger)
    return ledger
