"""The ledger: a record of every decision of a run. Timeline, skip rates and FLOPs are computed from it alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path

from engine.row import Decision, Mode, Row


@dataclass(frozen=True)
class Entry:
    """One decision about a row or a part of it, for one guidance branch or for all branches (branch "")."""

    iteration: int
    segment: int
    unit: int  # the first AR unit covered, counted through the video
    slots: tuple[int, int]  # the slots that a recompute forwards, [first, last + 1)
    active: tuple[int, int]  # the slots among them that the row updates, [first, last + 1); empty in a clean pass
    branch: str
    sigma: float  # of the first updating slot
    step: int  # of the first updating slot
    mode: Mode
    score: float | None
    why: str
    sites: tuple[str, ...]  # where the method supplied the result; empty if the mode is RECOMPUTE
    seen: tuple[int, int] = (0, 0)  # the slots that attention covers: those of the row and of its context
    idle: tuple[tuple[int, int], ...] = ()  # slots of the row that no decision covers; computed with the others
    kept: tuple[int, int] = (0, 0)  # context slots that were computed first, to store their keys and values
    copied: tuple[str, ...] | None = None  # sites skipped in a second pass of the first unit; None: the same as `sites`
    probes: tuple[str, ...] = ()  # signals that this row measured, "name first:last+1" over its slots
    tokens: int = 0  # token positions per slot that the blocks computed; 0: all of them, or none in another mode

    @classmethod
    def of(cls, part: Row, decision: Decision, branch: str, sites: Sequence[object]) -> Entry:
        """The entry of `decision` about `part`; `sites` are the sites where the method supplied the result."""
        updating = part.updating
        active = (updating[0], updating[-1] + 1) if updating else (part.slots.start, part.slots.start)
        first = active[0] - part.slots.start
        return cls(
            part.iteration,
            part.segment,
            part.number(part.slots.start),
            (part.slots.start, part.slots.stop),
            active,
            branch,
            round(part.sigma[first], 6),
            part.step[first],
            decision.mode,
            None if decision.score is None else round(decision.score, 6),
            decision.why,
            tuple(map(str, sites)),
            ((part.context or part.slots).start, part.slots.stop),
            tokens=len(decision.tokens) if decision.mode is Mode.RECOMPUTE else 0,
        )


def write(ledger: Iterable[Entry], path: Path) -> None:
    """Write one decision per line, as JSON (`trace.jsonl`)."""
    with path.open("w", encoding="utf-8") as file:
        for entry in ledger:
            file.write(json.dumps(asdict(entry), separators=(",", ":")) + "\n")


def decisions(ledger: Iterable[Entry]) -> dict[str, int]:
    """The number of decisions per mode."""
    tally = Counter(str(entry.mode) for entry in ledger)
    return {str(mode): tally[str(mode)] for mode in Mode}


def forwards(ledger: Iterable[Entry], branches: int) -> int:
    """The number of complete transformer forwards. A decision for all `branches` counts one forward per branch.

    A forward of some tokens only is not complete.
    """
    done = {(e.iteration, e.branch) for e in ledger if e.mode is Mode.RECOMPUTE and not e.tokens}
    return sum(1 if branch else branches for _, branch in done)


Price = Callable[[Sequence[Entry]], tuple[float, float]]


def flops(ledger: Sequence[Entry], price: Price) -> tuple[float, float]:
    """Executed FLOPs of the denoiser, (dense, masked), 2 per multiply-add. Measured signals are included.

    `dense` counts attention over all tokens that are forwarded or whose keys and values are stored.
    `masked` counts the same forwards with attention under the block-causal mask.
    """
    dense = masked = 0.0
    for _, entries in groupby(ledger, key=lambda entry: entry.iteration):
        d, m = price(list(entries))
        dense, masked = dense + d, masked + m
    return dense, masked


def plan(rows: Iterable[Row]) -> list[Entry]:
    """The ledger of a run that recomputes every row, made without running it."""
    entries: list[Entry] = []
    for row in rows:
        entry = Entry.of(row, Decision(Mode.RECOMPUTE), "", ())
        if row.renew:
            entry = replace(entry, kept=(0, row.slots.start))
        before = entries[-1] if entries and entries[-1].segment == row.segment else None
        known = before.slots[0] if before else row.context.start
        if row.context.stop > known and (before is None or row.settled >= row.context.stop):
            entry = replace(entry, kept=(known, row.context.stop))
        entries.append(entry)
    return entries
