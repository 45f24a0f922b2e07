"""The connection between a forward and a method: at each site, run the computation or take the method's result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from engine.ledger import Entry
from engine.method import Method
from engine.row import Decision, Mode, Row, Site
from engine.to_device import sent

Compute = Callable[[Tensor, Sequence[Row]], Tensor]
"""(x of all slots, the parts to compute, in order) -> the results of those parts, concatenated along the slots. A part
with `tokens` has a result of all tokens; those that were not computed are not read."""

Settled = list[tuple[Row, Decision]]


WHOLE = frozenset({"velocity", "guidance"})  # a result supplied at one of these sites skips the whole forward


class Visit:
    """A backbone calls it at every site of a forward. It holds the decisions of one row and their outcomes."""

    def __init__(
        self,
        method: Method,
        row: Row,
        depth: int,
        plan: dict[str, list[tuple[Row, Decision]]],
        probed: Sequence[str] = (),
    ) -> None:
        self.method, self.row, self.plan, self.probed = method, row, plan, probed
        sites = list(method.sites(depth, row)) if row.updating else []  # a clean pass is no method's
        self.kinds = {site.kind for site in sites}
        self._stops = {(site.kind, site.span.start): site.span.stop for site in sites}
        self._done: dict[tuple[str, int], list[tuple[Site, Decision]]] = {}  # by plan key and part
        self.idle = _uncovered(row, [part for part, _ in next(iter(plan.values()))])
        self._kept: dict[str, range] = {}  # by guidance branch
        self._words: dict[Site, Settled] = {}  # the final decision of every part, by site
        self._copied: list[Site] | None = None  # sites skipped in a second pass of the first unit

    @property
    def partial(self) -> bool:
        """Whether a part of a row may be computed without the others, in this row or a later one."""
        return self.method.grain == "unit"

    def stop(self, kind: str, start: int) -> int | None:
        """The end of the method's span that starts at block `start`. None if no span starts there."""
        return self._stops.get((kind, start))

    def watches(self, site: Site) -> bool:
        """Whether `site` is one of the method's sites."""
        return (site.kind, site.span.start) in self._stops

    def places(self, parts: Sequence[Row]) -> list[int] | None:
        """The positions of the slots of `parts` in the row. None if `parts` cover the whole row or are empty."""
        places = [slot - self.row.slots.start for part in parts for slot in part.slots]
        return None if len(places) in (0, len(self.row.slots)) else places

    def __call__(self, site: Site, x: Tensor, compute: Compute) -> Tensor:
        """`x` (slots of the row, ...) -> the result at `site`, same shape.

        With grain "unit", waiting and finished slots belong to no part. They are computed in every forward that runs.
        If the forward is skipped for all parts, their `x` is returned unchanged.
        """
        if not self.watches(site):
            return compute(x, [self.row])
        plan = self._settle(site)
        fresh = [part for part, decision in plan if decision.mode is Mode.RECOMPUTE]
        if len(plan) == 1 and plan[0][0].slots == self.row.slots:
            part, decision = plan[0]
            if not fresh:
                return self.method.fill(site, part, decision.mode, x)
            return self._kept_result(site, part, x, compute(x, fresh))
        idle = self.idle if fresh or site.kind not in WHOLE else []
        run = sorted([*fresh, *idle], key=lambda part: part.slots.start)
        pieces = self._pieces(site, x, compute(x, run), run) if run else []
        pieces += [
            (part, self.method.fill(site, part, decision.mode, self._cut(x, part)))
            for part, decision in plan
            if decision.mode is not Mode.RECOMPUTE
        ]
        return self._merge(x, pieces)

    def again(
        self, site: Site, unit: Row, x: Tensor, computed: Tensor | None, compute: Callable[[], Tensor] | None
    ) -> Tensor:
        """A second pass of the row's first `unit` at `site`, after its first pass: `x` (slots, ...) -> result.

        No new decision is made, because `unit` alone may be at another step than its row. A result in `computed`, or
        from `compute`, is kept under the branch "<name>+alone". If both are None, the method supplies the result in the
        mode of the first pass.
        """
        own, self._copied = site._replace(branch=f"{site.branch}+alone"), self._copied or []
        out = computed if computed is not None else compute() if compute else None
        if out is not None:
            self.method.keep(own, unit, x, out)
            return out
        mode = next(d.mode for part, d in self._words[site] if unit.slots.start in part.slots)
        self._copied.append(site._replace(branch=""))
        return self.method.fill(own, unit, mode, x)

    def kept(self, branch: str, slots: range) -> None:
        """Record that the forward of `branch` first computed the context `slots`, to store their keys and values."""
        self._kept[branch] = slots

    def left_out(self, branch: str, sites: Sequence[Site]) -> None:
        """Record that a library's hooks skipped `sites` in the model's own forward of `branch`.

        Raises RuntimeError if the decision for this row is to recompute.
        """
        key = branch if branch in self.plan else next(iter(self.plan))
        for i, (part, decision) in enumerate(self.plan[key]):
            if sites and decision.mode is Mode.RECOMPUTE:
                raise RuntimeError(f"iteration {part.iteration} is to be recomputed, but hooks skipped {joined(sites)}")
            self._done.setdefault((key, i), []).extend((site._replace(branch=branch), decision) for site in sites)

    def entries(self) -> list[Entry]:
        """The ledger entries of this row: every decision, with the sites where the method supplied the result."""
        found: list[Entry] = []
        for branch, parts in self.plan.items():
            lines = [self._entry(branch, i, part, decision) for i, (part, decision) in enumerate(parts)]
            if any(not WHOLE.intersection(entry.sites) for entry in lines):  # a forward ran
                kept = self._kept.get(branch or next(iter(self._kept), ""), range(0))
                idle = tuple((part.slots.start, part.slots.stop) for part in self.idle)
                copied = None if self._copied is None else tuple(map(str, joined(self._copied)))
                lines[0] = replace(lines[0], idle=idle, kept=(kept.start, kept.stop), copied=copied)
            found += lines
        where = f"{self.row.slots.start}:{self.row.slots.stop}"
        found[0] = replace(found[0], probes=tuple(f"{name} {where}" for name in self.probed))
        return found

    def _settle(self, site: Site) -> Settled:
        """The final decision of every part at `site`: RECOMPUTE if decided for the row, else the method's `revise`."""
        key = site.branch if site.branch in self.plan else next(iter(self.plan))
        settled = []
        for i, (part, decision) in enumerate(self.plan[key]):
            if decision.mode is not Mode.RECOMPUTE:
                decision = self.method.revise(site, part, decision)
                for name in [key] if site.branch else self.plan:  # the site "velocity" belongs to every branch
                    self._done.setdefault((name, i), []).append((site, decision))
            settled.append((_chosen(site, part, decision), decision))
        self._words[site] = settled
        return settled

    def _entry(self, branch: str, number: int, part: Row, decision: Decision) -> Entry:
        done = self._done.get((branch, number), [])
        stood: dict[str, list[Site]] = {site.branch: [] for site, _ in done}
        for site, last in done:
            if last.mode is not Mode.RECOMPUTE:
                stood[site.branch].append(site._replace(branch=""))
        whole = stood.pop("", [])
        if len({tuple(sites) for sites in stood.values()}) > 1:
            raise RuntimeError(
                f"{type(self.method).__name__} skipped different sites per guidance branch ({stood}); want the same "
                "sites in each branch, or a method with branchwise = True"
            )
        for _, last in done:  # the final decision has the score
            decision = last if last.score is not None or last.why else decision
        modes = {d.mode for _, d in done}
        mode = next((m for m in (Mode.PREDICT, Mode.CACHE) if m in modes), Mode.RECOMPUTE)
        sites = joined([*whole, *next(iter(stood.values()), [])])
        entry = Entry.of(part, replace(decision, mode=mode), branch, sites)
        return replace(entry, seen=((self.row.context or self.row.slots).start, self.row.slots.stop))

    def _pieces(self, site: Site, x: Tensor, out: Tensor, run: Sequence[Row]) -> list[tuple[Row, Tensor]]:
        """The result of each part in `run`, after the method has seen it; idle slots are not shown to the method."""
        pieces = list(zip(run, torch.split(out, [len(part.slots) for part in run]), strict=True))
        return [
            (part, piece if _among(part, self.idle) else self._kept_result(site, part, self._cut(x, part), piece))
            for part, piece in pieces
        ]

    def _kept_result(self, site: Site, part: Row, x: Tensor, out: Tensor) -> Tensor:
        """Give a fresh result to the method. The method supplies the tokens that were not computed, if any."""
        self.method.keep(site, part, x, out)
        if not part.tokens:
            return out
        rest = self.method.fill(site, part, Mode.CACHE, x)
        where = sent(list(part.tokens), x.device)
        return rest.index_copy(1, where, out[:, where])

    def _cut(self, x: Tensor, part: Row) -> Tensor:
        start = part.slots.start - self.row.slots.start
        return x[start : start + len(part.slots)]

    def _merge(self, x: Tensor, pieces: Sequence[tuple[Row, Tensor]]) -> Tensor:
        """`x` with the slots of each part replaced by its piece."""
        if sum(len(part.slots) for part, _ in pieces) == len(x):
            ordered = [piece for _, piece in sorted(pieces, key=lambda pair: pair[0].slots.start)]
            return ordered[0] if len(ordered) == 1 else torch.cat(ordered)
        merged = x.clone()
        for part, piece in pieces:
            self._cut(merged, part).copy_(piece)
        return merged


def _among(part: Row, parts: Sequence[Row]) -> bool:
    return any(part is other for other in parts)


def _chosen(site: Site, part: Row, decision: Decision) -> Row:
    """The part with the tokens that are computed at `site`. Raises RuntimeError where only whole slots can be."""
    if decision.mode is not Mode.RECOMPUTE or not decision.tokens:
        return part
    if site.kind != "blocks":
        raise RuntimeError(f"a decision with tokens is for sites of blocks, got the site {site}; give the whole slots")
    return replace(part, tokens=decision.tokens)


def _uncovered(row: Row, parts: Sequence[Row]) -> list[Row]:
    """The slots of `row` that no part covers, as rows."""
    starts = [row.slots.start, *(part.slots.stop for part in parts)]
    stops = [*(part.slots.start for part in parts), row.slots.stop]
    return [row.only(range(a, b)) for a, b in zip(starts, stops, strict=True) if a < b]


def joined(sites: Sequence[Site]) -> list[Site]:
    """`sites` with adjacent spans of the same kind merged."""
    spans: list[Site] = []
    for site in sorted(sites, key=lambda s: (s.kind, s.span.start)):
        last = spans[-1] if spans else None
        if last and last.kind == site.kind and len(site.span) and last.span.stop == site.span.start:
            spans[-1] = last._replace(span=range(last.span.start, site.span.stop))
        else:
            spans.append(site)
    return spans
