"""RESULTS/report/paper.html and tables/table1, table2, table12: the paper's numbers, ours, and verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from reports import formats, published, verdicts
from reports.metric import BY_NAME, Metric
from reports.notes import protocol
from reports.page import TEMPLATES
from reports.report import Report
from reports.text_claims import counts, others
from reports.verdict import TOLERANCE, Outcome, Verdict
from reports.verdicts import Judged
from store import writing

TITLES = {
    "table1": "Table 1: the main comparison",
    "table2": "Table 2: the threshold sweep of SCOPE",
    "table12": "Table 12: fewer steps in the same time",
}
LEGEND = "Each cell has our number and, in brackets, the paper's. A dash means not run, or not printed."
ODD = (
    "Figure 6 counts 70 decisions for MAGI-1 and 594 for SkyReels-V2. MAGI-1 has 208 forwards and 640 chunk-steps at "
    "this length, SkyReels-V2 200 iterations and 400 forwards; 70 is SkyReels-V2's first segment. No setting gives the "
    "printed totals; the tables have our own.",
    "The text ranks SCOPE above the reduced-step MAGI-1, but the 20-step line has higher SSIM and PSNR.",
    "FlowCache-fast executes fewer FLOPs than SCOPE-fast on SkyReels-V2 (42.56 against 46.45 PFLOP) but takes longer.",
    "TeaCache-slow on MAGI-1 has a VBench total above the Original's (76.94 against 76.65).",
    "On SkyReels-V2 SCOPE-slow of Table 1 is faster than Table 2's first pair and also closer to the Original "
    "(350.12 s, LPIPS 0.1676, PSNR 24.76 against 353.11 s, 0.1723, 23.17), though it should be one of the pairs.",
    "The text says up to 4.73×, but Table 2 has a line with 5.54×.",
    "SCOPE's first line on MAGI-1 takes 361.83 s in Table 1 and 362.34 s in Table 2.",
    "Table 2 states three of its nine threshold pairs. The others, and all settings of the compared methods, are "
    "estimated here and marked.",
)


def write(report: Report, folder: Path) -> None:
    """Write the page and the tables into `folder`."""
    numbers = table(report.verdicts)  # of all tables: their columns have one order
    for name, judged in _tables(report):
        printed, under = beside(judged), _under(report, name)
        texts = {
            "csv": numbers[numbers["table"] == name].dropna(axis=1, how="all").to_csv(index=False, float_format="%.6g"),
            "md": "\n\n".join([f"## {TITLES[name]}", formats.pipes(printed), *under]) + "\n",
            "tex": latex(report, name),
        }
        for suffix, text in texts.items():
            with writing(folder / "tables" / f"{name}.{suffix}") as draft:
                draft.write_text(text, encoding="utf-8")
    with writing(folder / "paper.html") as draft:
        draft.write_text(render(report), encoding="utf-8")


def latex(report: Report, name: str) -> str:
    """A published table, ours beside theirs, as LaTeX."""
    judged = next(judged for table, judged in _tables(report) if table == name)
    return formats.tabular(beside(judged), name, " ".join([f"{TITLES[name]}.", *_under(report, name)]))


def _under(report: Report, name: str) -> list[str]:
    """The notes under a published table."""
    return [LEGEND, _printed(name), *protocol(report.study)]


def _tables(report: Report) -> list[tuple[str, list[Judged]]]:
    """The published tables with their lines."""
    names = dict.fromkeys(one.claim.table for one in report.verdicts)
    return [(name, [one for one in report.verdicts if one.claim.table == name]) for name in names]


def table(judged: Sequence[Judged]) -> pd.DataFrame:
    """Published lines for the csv: per column the paper's number, ours and the verdict; and the verdict of the line."""
    lines = []
    for one in judged:
        claim = one.claim
        line: dict[str, Any] = {"table": claim.table, "model": claim.model, "row": claim.name}
        line["reproduced"] = one.reproduced
        for name, cell in one.cells.items():
            line |= {f"paper_{name}": cell.printed, name: cell.ours, f"verdict_{name}": str(cell.verdict)}
        lines.append(line | {"verdict": one.verdict.outcome.value, "why": one.verdict.reason})
    return pd.DataFrame(lines)


def beside(judged: Sequence[Judged]) -> pd.DataFrame:
    """A published table for print: each cell has our number and, in brackets, the paper's."""
    columns = {
        "model": [one.claim.model for one in judged],
        "line": [one.claim.name + ", dry run" * bool(one.planned) for one in judged],
    }
    for metric in _columns(judged):
        columns[f"{metric.title} {formats.ARROWS[metric.better]}"] = [
            f"{cell['ours'] or '–'} ({cell['printed'] or '–'})" for cell in (_cell(one, metric) for one in judged)
        ]
    return pd.DataFrame(columns | {"verdict": [_in_brackets(one.verdict) for one in judged]})


def _in_brackets(verdict: Verdict) -> str:
    return f"{verdict.outcome.value} ({verdict.reason})" if verdict.reason else verdict.outcome.value


def _printed(name: str) -> str:
    """The source of the published numbers of a table, and the setting and convention that they were measured with."""
    source = published.source(name)
    return f"Printed: {source['source']}. Setting: {source['setting']}. Convention: {source['convention']}."


def _columns(judged: Sequence[Judged]) -> list[Metric]:
    return [metric for name, metric in BY_NAME.items() if any(name in one.cells for one in judged)]


def print_summary(report: Report, console: Any = None) -> None:
    """Print how many lines of the paper this folder reproduces."""
    found = [line for line in counts(report.study) if line.ours]
    say = console.print if console else print
    say(verdicts.summary(report.verdicts))
    if found:
        met = sum(line.verdict.outcome is Outcome.MATCHES for line in found)
        say(f"Counted without weights: {met} of {len(found)} as published or as the official schedules imply.")


def render(report: Report) -> str:
    """The page as text."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    tolerances = [
        f"{BY_NAME[name].title} ± " + (f"{100 * amount:.3g} %" if relative else f"{amount:.3g}")
        for name, (amount, relative) in TOLERANCE.items()
    ]
    css = jinja2.utils.markupsafe.Markup((TEMPLATES / "page.css").read_text(encoding="utf-8"))
    return environment.get_template("paper.html").render(
        parts=[_part(name, judged) for name, judged in _tables(report)],
        others=others(report),
        counts=counts(report.study),
        odd=ODD,
        elsewhere=_printed("other"),
        summary=verdicts.summary(report.verdicts),
        tolerances=tolerances,
        protocol=" ".join(protocol(report.study)),
        css=css,
    )


def _part(name: str, judged: Sequence[Judged]) -> dict[str, Any]:
    """A published table for the page."""
    columns = _columns(judged)
    return {
        "title": TITLES[name],
        "columns": columns,
        "lines": [{"judged": one, "cells": [_cell(one, metric) for metric in columns]} for one in judged],
        "printed": _printed(name),
    }


def _cell(one: Judged, metric: Metric) -> dict[str, Any]:
    """The paper's number, ours, and the verdict; empty if the paper prints none."""
    cell = one.cells.get(metric.name)
    if cell is None:
        return {"printed": "", "ours": "", "verdict": "", "style": ""}
    ours = "" if np.isnan(cell.ours) else metric.show(cell.ours)
    verdict = cell.verdict
    return {"printed": metric.show(cell.printed), "ours": ours, "verdict": verdict, "style": verdict.outcome.style}
