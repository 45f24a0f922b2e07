"""The one record of what was decided. Timeline, skip rates and FLOPs are pure functions of it."""

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
    """One decision: a row or a part of it, for one guidance branch or for all (branch "")."""

    iteration: int
    segment: int
    unit: int  # the first AR unit covered, counted through the video
    slots: tuple[int, int]  # the slots forwarded if recomputed, [first, last + 1)
    active: tuple[int, int]  # the updating slots among them
    branch: str
    sigma: float  # of the first updating slot
    step: int  # of the first updating slot
    mode: Mode
    score: float | None
    why: str
    sites: tuple[str, ...]  # what was stood in for; none if the mode is RECOMPUTE
    seen: tuple[int, int] = (0, 0)  # the slots that attention covers: those of the row and of its context
    idle: tuple[tuple[int, int], ...] = ()  # slots of the row that no decision covers, computed along
    kept: tuple[int, int] = (0, 0)  # slots of the context, computed first so that their keys and values are kept
    copied: tuple[str, ...] | None = None  # what stood in for a second pass of the first unit; None: as for the unit
    probes: tuple[str, ...] = ()  # signals that this row measured, "name first:last+1" over its slots

    @classmethod
    def of(cls, part: Row, decision: Decision, branch: str, sites: Sequence[object]) -> Entry:
        updating = part.updating or [part.slots.start]
        first = updating[0] - part.slots.start
        return cls(
            part.iteration,
            part.segment,
            part.slots.start // part.unit,
            (part.slots.start, part.slots.stop),
            (updating[0], updating[-1] + 1),
            branch,
            round(part.sigma[first], 6),
            part.step[first],
            decision.mode,
            None if decision.score is None else round(decision.score, 6),
            decision.why,
            tuple(map(str, sites)),
            ((part.context or part.slots).start, part.slots.stop),
        )


def write(ledger: Iterable[Entry], path: Path) -> None:
    """One decision a line (`trace.jsonl`)."""
    with path.open("w", encoding="utf-8") as file:
        for entry in ledger:
            file.write(json.dumps(asdict(entry), separators=(",", ":")) + "\n")


def decisions(ledger: Iterable[Entry]) -> dict[str, int]:
    """How many decisions fell on each mode."""
    tally = Counter(str(entry.mode) for entry in ledger)
    return {str(mode): tally[str(mode)] for mode in Mode}


def forwards(ledger: Iterable[Entry], branches: int) -> int:
    """Transformer forwards that were run to the end; a joint decision runs every guidance branch."""
    done = {(e.iteration, e.branch) for e in ledger if e.mode is Mode.RECOMPUTE}
    return sum(1 if branch else branches for _, branch in done)


Price = Callable[[Sequence[Entry]], tuple[float, float]]


def flops(ledger: Sequence[Entry], price: Price) -> tuple[float, float]:
    """FLOPs executed, (dense, masked): 2 per multiply-add, denoiser only, the signals that were measured included.

    `dense` counts attention over every token that is forwarded, or seen through kept keys and values; `masked` counts
    the same forwards with attention under the block-causal mask.
    """
    dense = masked = 0.0
    for _, entries in groupby(ledger, key=lambda entry: entry.iteration):
        d, m = price(list(entries))
        dense, masked = dense + d, masked + m
    return dense, masked


def plan(rows: Iterable[Row]) -> list[Entry]:
    """The ledger of a run that skips nothing, without running it."""
    entries: list[Entry] = []
    for row in rows:
        entry = Entry.of(row, Decision(Mode.RECOMPUTE), "", ())
        before = entries[-1] if entries and entries[-1].segment == row.segment else None
        known = before.slots[0] if before else row.context.start
        if row.context.stop > known and (before is None or row.settled >= row.context.stop):
            entry = replace(entry, kept=(known, row.context.stop))
        entries.append(entry)
    return entries
