"""`python -m store RESULTS`: what is done, running, failed, damaged and missing, a row per cell."""

from __future__ import annotations

from collections import Counter, defaultdict

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from store.shelf import Store

COLUMNS = ("ok", "invalid", "running", "failed", "damaged", "missing")


def print_status(store: Store, verify: bool = False) -> None:
    """A row per cell; missing is a video that its model has elsewhere and nobody is making."""
    out = Console(highlight=False, soft_wrap=True)  # a line stays a line, however long its path
    counts: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    seen: dict[tuple[str, ...], set[tuple]] = defaultdict(set)
    reasons: Counter[tuple[str, str]] = Counter()
    older = 0
    for record in store.records(verify):
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
    out.print(table if counts else f"no records in {store.root}")
    if holders:
        out.print(f"{len(holders)} being made, the first by {holders[0]}")
    for (name, reason), count in reasons.most_common(10):
        out.print(f"[red]failed[/] {name} × {count}: {escape(reason)}")
    for folder, why in list(store.damaged.items())[:10]:
        out.print(f"[yellow]damaged[/] {escape(str(folder))}: {escape(why)}")
    if older:
        out.print(f"{older} records have keys of an older kind: they are kept, and a sweep makes their videos again")
    if reasons:
        out.print("retry_failed=true makes what failed again; what is damaged or missing is made by the same command")
