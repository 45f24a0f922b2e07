"""What the terminal says of a report: the main table, a sentence of verdict, and the notes for who asks for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from io import StringIO
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from reports import reference_lines
from reports.line import Line, shown
from reports.metric import BY_NAME, METRICS, OPTIONAL, Metric
from reports.notes import blanks, notes
from reports.paired import CLAIMED, Finding
from reports.report import Report

WIDTH = 120  # of a log
ENOUGH = 16  # prompts that most differences of this kind want


def print_main(report: Report, console: Any = None) -> None:
    """Print the main table and one sentence of verdict for each model."""
    console = console or _console()
    for model, lines in report.by_model():
        console.print(_table(model, lines, METRICS, report.study.several), "")
        for name in report.asked:  # in a table of its own: one with all columns is wider than a terminal
            if any(line.known(metric.name) for line in lines for metric in OPTIONAL[name]):
                console.print(_table(f"{model}, {name}", lines, OPTIONAL[name], report.study.several), "")
    for text in verdicts(report):
        console.print(text, highlight=False, markup=False)


def print_notes(report: Report, console: Any = None) -> None:
    """Print the notes on the table, and what is missing."""
    for text in notes(report) + blanks(report):
        (console or _console()).print(text, style="dim", highlight=False, markup=False)


def _console() -> Console:
    console = Console()
    if not console.is_terminal:
        console.width = WIDTH
    return console


def as_text(report: Report) -> str:
    """The same without colour, for whoever is told again."""
    console = Console(file=StringIO(), width=WIDTH)
    print_main(report, console=console)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def verdicts(report: Report) -> list[str]:
    """One sentence for each model: the headline line, and which differences between methods are significant."""
    several = len(report.study.models) > 1
    found = []
    for model, lines in report.by_model():
        said = ", ".join(filter(None, [_headline(lines), _significant(report, model, lines)])).replace(",", ";", 1)
        found.append(f"{model}: {said}." if several else f"{said}.")
    return found


def _headline(lines: list[Line]) -> str:
    """`SCOPE fast is 2.8× faster at 33.8 dB`: SCOPE's fastest line, or the fastest of all."""
    known = [line for line in lines if line.ranked and line.known("speedup")]
    if not known:
        return "no method can be compared with the Original yet"
    best = max(known, key=lambda line: (line.method == "scope", line.value("speedup")))
    speed, psnr = best.value("speedup"), best.value("psnr")
    how = f"{speed:.2g}× faster" if speed >= 1 else f"{1 / speed:.2g}× slower"
    far = "" if math.isnan(psnr) else " with the same frames" if math.isinf(psnr) else f" at {psnr:.1f} dB"
    return f"{best.name} is {how}{far}"


def _significant(report: Report, model: str, lines: list[Line]) -> str:
    """What the paired differences allow to claim."""
    pairs = [pair for pair in report.pairs if pair.model == model and pair.metric.name in CLAIMED]
    if not pairs:
        return ""
    prompts = max(pair.prompts for pair in pairs)
    on = f"with {prompts} prompt{'s' if prompts != 1 else ''}"
    won = [f"{line.name} is significantly the best in {_titles(line)}" for line in lines if _titles(line)]
    if won:
        return f"{on} {'; '.join(won)}"
    if any(pair.finding is Finding.BETTER for pair in pairs):
        return f"{on} some differences between methods are significant, and none is the best of all in anything"
    return f"{on} no difference between methods is significant"


def _titles(line: Line) -> str:
    return ", ".join(BY_NAME[name].title for name in CLAIMED if name in line.best)


def advice(report: Report) -> str:
    """What to do next."""
    prompts = max((line.valid["prompt"].nunique() for line in report.lines if len(line.valid)), default=0)
    more = f"; for significant differences give more prompts, e.g. prompts.limit={ENOUGH}" if prompts < ENOUGH else ""
    return f"open the page in a browser{more}; notes on the table: python -m reports {report.study.root} --verbose"


def _table(title: str, lines: list[Line], metrics: Sequence[Metric], several: bool) -> Table:
    table = Table("", title=escape(title), title_justify="left", box=None, pad_edge=False, header_style="bold")
    if several:
        table.add_column("machine")
    table.add_column("n", justify="right")
    columns = [metric for metric in metrics if any(line.known(metric.name) for line in lines)]
    for metric in columns:
        table.add_column(metric.short, justify="right", no_wrap=True)
    for line in lines:
        cells = [(metric, shown(line, metric)) for metric in columns]
        reached = reference_lines.reached(line)
        name = escape(line.name) + line.signs + (f" [dim]{reached}[/]" if reached else "")
        bold = [f"[bold]{cell}[/]" if metric.name in line.best else cell for metric, cell in cells]
        table.add_row(name, *[escape(line.machine)] * several, str(len(line.valid)), *bold)
    return table
