"""The main table on the terminal: compact, with its notes and what is missing under it."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from reports import floor, tables
from reports.metric import METRICS
from reports.records import load


def print_main(results: Path | str) -> None:
    """Print the main table to the terminal, compact, with what is missing under it."""
    study, console = load(Path(results)), Console()
    frame, tops = tables.main(study), {}
    if not console.is_terminal:
        console.width = 120
    for model, part in frame.groupby("model", sort=False):
        table = Table("", title=escape(model), title_justify="left", box=None, pad_edge=False, header_style="bold")
        table.add_column("n", justify="right")
        columns = [metric for metric in METRICS if part[metric.name].notna().any()]
        for metric in columns:
            table.add_column(metric.short, justify="right", no_wrap=True)
            tops[metric.name] = tables.best(frame, metric)
        for n, line in part.iterrows():
            cells = {m.name: tables.shown(line, m) for m in columns}
            cells |= {name: f"[bold]{cell}[/]" for name, cell in cells.items() if n in tops[name]}
            reached = floor.shown(line["marks"])
            name = escape(line["name"]) + tables.dagger(line) + (f" [dim]{reached}[/]" if reached else "")
            table.add_row(name, str(line["videos"]), *cells.values())
        console.print(table, "")
    for text in tables.notes(study, frame) + tables.blanks(frame):
        console.print(text, style="dim", highlight=False, markup=False)
