"""RESULTS/report/index.html: the table, the figures, and for each prompt the synchronised videos of all methods.

The page is one file that opens from a disk: style and script are inline, videos and figures are relative links, and
nothing is loaded from the network. jinja2 escapes the records; `tojson` escapes the data of the players.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import pandas as pd
import yaml

from reports import players, previews, reference_lines, style
from reports.alt import describe
from reports.curves import MODES
from reports.line import Line, shown, status
from reports.metric import EVERY, OPTIONAL, Metric
from reports.notes import blanks, notes
from reports.records import MOST_LINES
from reports.report import Report
from reports.terminal_table import verdicts
from reports.video import settings

TEMPLATES = Path(__file__).parent / "templates"
DOWNLOADS = (("csv", "main.csv"), ("LaTeX", "main.tex"), ("markdown", "main.md"))  # what, in tables/
SWITCHES = {  # of optional columns
    "streaming": "show when chunks are ready",
    "drift": "show the drift of each video",
}
SCRIPTS = ("table.js", "strips.js", "prompt.js", "find.js", "link.js")  # one script, in this order


class Drawn(NamedTuple):
    """A figure, drawn or not: figures/<kind>_<model>.svg, or figures/<kind>.svg if it covers all models."""

    kind: str
    model: str
    caption: str
    done: bool  # False: the records hold nothing to draw
    experiment: str = ""  # whose records a figure of the paper needs
    like: str = ""  # the kind of a drawn figure that shows the same


def render(report: Report, drawn: list[Drawn], videos: str = "..") -> str:
    """The page as text.

    videos: the path from the page to the folder that holds the videos as the store does.
    """
    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    prompts, left_out = players.prompts(report.study, videos)
    return environment.get_template("index.html").render(
        models=[_model(report, model, lines, drawn) for model, lines in report.by_model()],
        groups=SWITCHES,
        marks={kind.value: meaning for kind, meaning in reference_lines.MEANING.items()},
        artefacts=[figure for figure in drawn if not figure.model],
        prompts=prompts,
        left_out=left_out,
        streamed=any(player["ready"] for prompt in prompts for player in prompt["players"]),
        small=any(player["video"].startswith(previews.FOLDER) for prompt in prompts for player in prompt["players"]),
        notes=notes(report),
        blanks=blanks(report),
        verdicts=verdicts(report),
        names=list(dict.fromkeys(line.name for line in report.lines)),
        downloads=DOWNLOADS,
        cells=_cells(report),
        modes=style.MODES,
        css=jinja2.utils.markupsafe.Markup(_text("page.css")),
        script=jinja2.utils.markupsafe.Markup("\n".join(map(_text, SCRIPTS))),
        data={
            "prompts": [prompt["players"] for prompt in prompts],
            "modes": dict(zip(players.CODES, style.MODES.values(), strict=True)),
        },
    )


def _text(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _model(report: Report, model: str, lines: list[Line], drawn: list[Drawn]) -> dict[str, Any]:
    """The table and the figures of one model."""
    columns = [metric for metric in EVERY if any(line.known(metric.name) for line in lines)]
    figures = [figure for figure in drawn if figure.model == model]
    return {
        "name": model,
        "columns": columns,
        "groups": [name for name in OPTIONAL if any(metric.group == name for metric in columns)],
        "asked": report.asked,
        "lines": [_line(line, columns) for line in lines],
        "variants": sum(bool(line.variant) for line in lines) if len(lines) > MOST_LINES else 0,
        "figures": [(figure, describe(figure.kind, figure.caption, lines)) for figure in figures if figure.done],
        "undrawn": [figure.kind.replace("_", " ") for figure in figures if not figure.done],
    }


def _line(line: Line, columns: list[Metric]) -> dict[str, Any]:
    """A line of the table."""
    return {
        "name": line.name.removesuffix(f" ({line.variant})") + line.signs,
        "full": line.name,
        "variant": line.variant,
        "colours": players.colours(line.method),
        "cells": [_cell(line, metric) for metric in columns],
        "videos": len(line.valid),
        "status": status(line),
        "original": line.method == "original",
        "mark": reference_lines.reached(line),
        "comparable": line.comparable,
        "missing": "; ".join(line.reasons(OPTIONAL)),
    }


def _cell(line: Line, metric: Metric) -> dict[str, Any]:
    """A number as printed and to sort by, its interval, and what the paper printed."""
    value, low, _ = line.estimates[metric.name]
    paper = line.published.get(metric.name)
    return {
        "text": shown(line, metric),
        "group": metric.group,
        "sort": _sortable(value, metric.better),
        "best": metric.name in line.best,
        "interval": shown(line, metric, interval=True).partition(" ")[2] if not pd.isna(low) else "",
        "paper": "" if paper is None else metric.show(paper),
    }


def _sortable(value: float, better: str) -> float:
    if pd.isna(value):
        return -1e300 if better == "higher" else 1e300
    return math.copysign(1e299, value) if math.isinf(value) else float(value)


def _cells(report: Report) -> list[dict[str, str]]:
    """Settings, environment and command of the first video of each line, as text."""
    found = []
    for line in report.lines:
        record = report.study.record(line.records.iloc[0])
        environment = record.run.get("environment") or {}
        made_by = {name: value for name, value in settings(record).items() if name not in ("prompt", "seed")}
        found.append(
            {
                "name": f"{line.name} on {line.model}",
                "command": str(record.run.get("command") or environment.get("command") or ""),
                "settings": yaml.safe_dump(made_by, allow_unicode=True) if made_by else "",
                "counts": _decided(record.run),
                "environment": json.dumps(environment, indent=1, ensure_ascii=False) if environment else "",
            }
        )
    return found


def _decided(run: dict[str, Any]) -> str:
    decided = run.get("decisions") or {}
    parts = [f"{run[name]} {name}" for name in ("iterations", "forwards") if run.get(name) is not None]
    return ", ".join(parts + [f"{decided[mode]} × {mode}" for mode in MODES[::-1] if mode in decided])
