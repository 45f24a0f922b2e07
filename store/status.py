"""`python -m store RESULTS`: what is done, running, failed, damaged and missing, one line per cell."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from store.claims import Holder
from store.record import Record
from store.store import Store
from terminal import console

COLUMNS = ("ok", "invalid", "running", "failed", "damaged", "missing")


Recount = Callable[[Record], tuple[str, str]]
"""(what is wrong with the FLOPs of a record, why they could not be counted); both are "" if the FLOPs are right."""


def print_status(store: Store, verify: bool = False, recount: Recount | None = None) -> None:
    """Print one line per cell. A video is missing if another cell of the model has it and no process is generating it.

    With `verify`, `recount` is called for every record.
    """
    out = console()
    counts: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    seen: dict[tuple[str, ...], set[tuple]] = defaultdict(set)
    reasons: Counter[tuple[str, str]] = Counter()
    older = 0
    uncounted: Counter[str] = Counter()
    for record in store.records(verify):
        wrong, why = recount(record) if verify and recount else ("", "")
        if wrong:
            store.reject(record, wrong)
            continue
        uncounted.update([why] if why else [])
        cell = record.path.parts[-3:-1]
        counts[cell][record.status] += 1
        seen[cell].add((record.run.get("prompt_id"), record.run.get("seed")))
        older += record.older_key
        if record.status == "failed":
            reasons["/".join(cell), str(record.run.get("reason"))] += 1
    for folder in store.damaged:
        counts[folder.parts[-3:-1]]["damaged"] += 1
    holders = list(store.claims.holders())
    for holder in holders:
        counts[tuple(holder.cell.split("/"))]["running"] += 1
    everything: dict[str, set[tuple]] = defaultdict(set)
    for cell, videos in seen.items():
        everything[cell[0]] |= videos
    table = Table("model", "method", *COLUMNS)
    for cell in sorted(counts):
        lacking = len(everything[cell[0]] - seen[cell]) - counts[cell]["running"] - counts[cell]["damaged"]
        counts[cell]["missing"] = max(0, lacking)
        table.add_row(*cell, *(str(counts[cell][name] or "") for name in COLUMNS))
    out.print(table if counts else f"no records in {escape(str(store.root))}")
    _print_notes(out, store, holders, reasons, uncounted, older)


def _print_notes(
    out: Console,
    store: Store,
    holders: Sequence[Holder],
    reasons: Counter[tuple[str, str]],
    uncounted: Counter[str],
    older: int,
) -> None:
    """Print what the table does not show: who is at work, failures, damage, and what could not be checked."""
    if holders:
        out.print(f"{len(holders)} videos are being generated, the first by {escape(str(holders[0]))}")
    for (name, reason), count in reasons.most_common(10):
        out.print(f"[red]failed[/] {name} × {count}: {escape(reason)}")
    for folder, why in list(store.damaged.items())[:10]:
        out.print(f"[yellow]damaged[/] {escape(str(folder))}: {escape(why)}")
    if store.unsealed:
        out.print(
            f"{store.unsealed} records are of a version without seals: changes of their run.json cannot be detected"
        )
    for why, count in uncounted.most_common(5):
        out.print(f"FLOPs of {count} records were not counted again: {escape(why)}")
    if older:
        out.print(f"{older} records have older keys: they are kept, and a sweep generates their videos again")
    if reasons:
        out.print(
            "retry_failed=true generates failed videos again; the same command generates damaged and missing ones"
        )
