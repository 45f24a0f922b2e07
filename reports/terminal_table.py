"""The main table in the terminal: compact, followed by its notes and the reasons for empty cells."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from reports import reference_rows
from reports.line import Line, shown
from reports.metric import METRICS
from reports.notes import blanks, notes
from reports.report import Report


def print_main(report: Report) -> None:
    """Print the main table to the terminal, followed by its notes and the reasons for empty cells."""
    console = Console()
    if not console.is_terminal:
        console.width = 120
    for model, lines in report.by_model():
        console.print(_table(model, lines), "")
    for text in notes(report) + blanks(report):
        console.print(text, style="dim", highlight=False, markup=False)


def _table(model: str, lines: list[Line]) -> Table:
    table = Table("", title=escape(model), title_justify="left", box=None, pad_edge=False, header_style="bold")
    table.add_column("n", justify="right")
    columns = [metric for metric in METRICS if any(line.known(metric.name) for line in lines)]
    for metric in columns:
        table.add_column(metric.short, justify="right", no_wrap=True)
    for line in lines:
        cells = [(metric, shown(line, metric)) for metric in columns]
        reached = reference_rows.reached(line)
        name = escape(line.name) + line.signs + (f" [dim]{reached}[/]" if reached else "")
        bold = [f"[bold]{cell}[/]" if metric.name in line.best else cell for metric, cell in cells]
        table.add_row(name, str(len(line.valid)), *bold)
    return table
