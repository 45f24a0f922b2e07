"""The seam between a forward and a method: run the computation at a site, or let the method stand in for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from engine.method import Decision, Method, Mode, Row, Site

Compute = Callable[[Tensor, Sequence[Row]], Tensor]
"""(x of all slots, the parts to compute) -> results of those parts, concatenated slot-first."""


class Visit:
    """What a backbone calls at every site it passes. Holds one row's decisions."""

    def __init__(self, method: Method, row: Row, depth: int, plan: dict[str, list[tuple[Row, Decision]]]) -> None:
        self.method, self.row, self.plan = method, row, plan
        sites = list(method.sites(depth, row))
        self.kinds = {site.kind for site in sites}
        self._stops = {(site.kind, site.span.start): site.span.stop for site in sites}

    def stop(self, kind: str, start: int) -> int | None:
        """The end of the span that the method watches from block `start` on, None if it does not."""
        return self._stops.get((kind, start))

    def watches(self, site: Site) -> bool:
        return (site.kind, site.span.start) in self._stops

    def __call__(self, site: Site, x: Tensor, compute: Compute) -> Tensor:
        """`x` (slots of the row, ...) -> the result at `site`, same shape.

        Slots that belong to no part (waiting or finished ones under unit grain) pass through as they are.
        """
        plan = self.plan.get(site.branch) or next(iter(self.plan.values()))
        fresh = [part for part, decision in plan if decision.mode is Mode.RECOMPUTE]
        if not self.watches(site):
            return compute(x, fresh or [self.row])
        if len(fresh) == len(plan):
            out = compute(x, fresh)
            if len(plan) == 1 and plan[0][0].slots == self.row.slots:
                self.method.keep(site, plan[0][0], x, out)
                return out
            return self._scatter(site, x, out, fresh)
        if len(plan) == 1:
            part, decision = plan[0]
            return self._merge(x, [(part, self.method.fill(site, part, decision.mode, self._cut(x, part)))])
        out = self._scatter(site, x, compute(x, fresh), fresh) if fresh else x
        stand_ins = [
            (part, self.method.fill(site, part, decision.mode, self._cut(x, part)))
            for part, decision in plan
            if decision.mode is not Mode.RECOMPUTE
        ]
        return self._merge(out, stand_ins)

    def _scatter(self, site: Site, x: Tensor, out: Tensor, fresh: Sequence[Row]) -> Tensor:
        pieces = torch.split(out, [len(part.slots) for part in fresh])
        for part, piece in zip(fresh, pieces, strict=True):
            self.method.keep(site, part, self._cut(x, part), piece)
        return self._merge(x, list(zip(fresh, pieces, strict=True)))

    def _cut(self, x: Tensor, part: Row) -> Tensor:
        start = part.slots.start - self.row.slots.start
        return x[start : start + len(part.slots)]

    def _merge(self, x: Tensor, pieces: Sequence[tuple[Row, Tensor]]) -> Tensor:
        if len(pieces) == 1 and pieces[0][0].slots == self.row.slots:
            return pieces[0][1]
        merged = x.clone()
        for part, piece in pieces:
            self._cut(merged, part).copy_(piece)
        return merged
