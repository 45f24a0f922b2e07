"""The table that `dry_run=true` prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from sweep.cost import GB, Line, disk_needed, gpu_hours
from sweep.display import duration
from sweep.events import out


def print_lines(lines: Sequence[Line], cells: int) -> None:
    """Print the output of dry_run=true: the lines of the sweep and their sum."""
    columns = (
        "model",
        "method",
        "videos",
        "done",
        "to do",
        "forwards",
        "PFLOP",
        "at most",
        "time",
        "disk, GB",
        "PFLOP from",
        "time from",
    )
    title = (
        f"estimated cost: {cells} cells; PFLOP of a video, at most and forwards if no step is skipped, "
        "time on one device and disk of the remaining videos; the last line is the sum"
    )
    table = Table(*columns, title=title, box=None, title_justify="left")
    for line in lines:
        counts = (line.videos, line.videos - line.todo, line.todo, line.forwards)
        pflop = (f"{line.pflop:.4g}", f"{line.bound:.4g}")
        sums = (duration(line.todo * line.seconds), _short(line.todo * line.disk / GB))
        table.add_row(line.model, line.method, *map(str, counts), *pflop, *sums, line.counted, line.basis)
    videos, todo = sum(line.videos for line in lines), sum(line.todo for line in lines)
    passes, work = sum(line.todo * line.forwards for line in lines), sum(line.todo * line.pflop for line in lines)
    most = sum(line.todo * line.bound for line in lines)
    totals = (f"{work:.4g}", f"{most:.4g}", duration(3600 * gpu_hours(lines)), _short(disk_needed(lines) / GB))
    table.add_row("all", "", *map(str, (videos, videos - todo, todo, passes)), *totals, "", "", style="bold")
    out.print(table)


def _short(value: float) -> str:
    return f"{value:.2g}" if value < 10 else f"{value:,.0f}"
