"""RESULTS/report/index.html: the table, the figures, and for each prompt the synchronised videos of all methods.

The page is one file that opens from a disk: style and script are inline, videos and figures are relative links, and
nothing is loaded from the network. jinja2 escapes the records; `tojson` escapes the data of the players.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import jinja2
import pandas as pd
import yaml

from reports import reference_rows, style
from reports.curves import MODES, decisions
from reports.line import Line, shown, status
from reports.metric import METRICS, Metric
from reports.notes import blanks, notes
from reports.records import MOST_ROWS, Study, label, originals
from reports.report import Report
from reports.video import settings

TEMPLATES = Path(__file__).parent / "templates"
MOST_VIDEOS = 400  # raising it: more prompts on the page, which then opens more slowly
CODES = "cpr"  # cache, predict, recompute in the data of the page


class Drawn(NamedTuple):
    """A figure, drawn or not: figures/<kind>_<model>.svg, or figures/<kind>.svg if it covers all models."""

    kind: str
    model: str
    caption: str
    done: bool  # False: the records hold nothing to draw
    experiment: str = ""  # whose records a figure of the paper needs


def render(report: Report, drawn: list[Drawn]) -> str:
    """The page as text."""
    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    prompts, left_out = _prompts(report.study)
    return environment.get_template("index.html").render(
        models=[_model(model, lines, drawn) for model, lines in report.by_model()],
        marks={kind.value: meaning for kind, meaning in reference_rows.MEANING.items()},
        artefacts=[figure for figure in drawn if not figure.model],
        prompts=prompts,
        left_out=left_out,
        notes=notes(report),
        blanks=blanks(report),
        metrics=METRICS,
        cells=_cells(report),
        modes=style.MODES,
        css=jinja2.utils.markupsafe.Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
        script=jinja2.utils.markupsafe.Markup((TEMPLATES / "page.js").read_text(encoding="utf-8")),
        data={
            "prompts": [prompt["players"] for prompt in prompts],
            "modes": dict(zip(CODES, style.MODES.values(), strict=True)),
        },
    )


def _model(model: str, lines: list[Line], drawn: list[Drawn]) -> dict[str, Any]:
    """The table and the figures of one model."""
    columns = [metric for metric in METRICS if any(line.known(metric.name) for line in lines)]
    figures = [figure for figure in drawn if figure.model == model]
    return {
        "name": model,
        "columns": columns,
        "rows": [_row(line, columns) for line in lines],
        "variants": sum(bool(line.variant) for line in lines) if len(lines) > MOST_ROWS else 0,
        "figures": [figure for figure in figures if figure.done],
        "undrawn": [figure.kind.replace("_", " ") for figure in figures if not figure.done],
    }


def _row(line: Line, columns: list[Metric]) -> dict[str, Any]:
    """A line of the table."""
    return {
        "name": line.name.removesuffix(f" ({line.variant})") + line.signs,
        "variant": line.variant,
        "colour": style.colour(line.method),
        "cells": [_cell(line, metric) for metric in columns],
        "videos": len(line.valid),
        "status": status(line),
        "mark": reference_rows.reached(line),
        "comparable": line.comparable,
        "missing": "; ".join(line.reasons()),
    }


def _cell(line: Line, metric: Metric) -> dict[str, Any]:
    """A number as printed and to sort by, its interval, and what the paper printed."""
    value, low, _ = line.estimates[metric.name]
    paper = line.published.get(metric.name)
    return {
        "text": shown(line, metric),
        "sort": _sortable(value, metric.better),
        "best": metric.name in line.best,
        "interval": shown(line, metric, interval=True).partition(" ")[2] if not pd.isna(low) else "",
        "paper": "" if paper is None else metric.show(paper),
    }


def _sortable(value: float, better: str) -> float:
    if pd.isna(value):
        return -1e300 if better == "higher" else 1e300
    return math.copysign(1e299, value) if math.isinf(value) else float(value)


def _prompts(study: Study) -> tuple[list[dict[str, Any]], int]:
    """For each Original its players, the Original first; and how many videos are not on the page."""
    prompts: list[dict[str, Any]] = []
    count = 0
    for (model, key), group in study.videos.groupby(["model", originals(study.videos)], sort=False):
        seed = group["seed"].where(group["key"] == key).dropna().astype(object)
        seed = int(seed.iloc[0]) if len(seed) else group["seed"].iloc[0]  # of the Original: another seed's beside it
        if prompts and count + len(group) > MOST_VIDEOS:
            break
        count += len(group)
        players = [_player(study, video) for _, video in group.iterrows()]
        variants = sum(player["variant"] for player in players) if len(players) > MOST_ROWS else 0
        prompts.append(
            {"model": model, "prompt": group["prompt"].iloc[0], "seed": seed, "players": players, "variants": variants}
        )
    return prompts, len(study.videos) - count


def _player(study: Study, video: pd.Series) -> dict[str, Any]:
    """The data of one player: path of the video, decisions and errors over time."""
    record = study.record(video)
    random = video["weights"] == "random"
    per_frame = {} if random else (record.quality or {}).get("per_frame") or {}
    name, errors = "LPIPS", per_frame.get("lpips") or []
    if not errors and per_frame.get("ssim"):
        name, errors = "1 − SSIM", [1 - value for value in per_frame["ssim"]]
    grid = decisions(record.trace())
    steps = ["".join(CODES[mode] for mode in slot if mode >= 0) for slot in grid]
    exists = (record.path / "video.mp4").exists()
    path = "/".join(quote(part) for part in record.path.relative_to(study.root).parts)
    validity = (record.quality or {}).get("validity") or {}
    numbers = [f"{video['speedup']:.2f}×"] if not math.isnan(video["speedup"]) else []
    numbers += [f"{video['psnr']:.1f} dB"] if math.isfinite(video["psnr"]) and not random else []
    return {
        "name": label(video),
        "original": video["method"] == "original",
        "variant": bool(video["variant"]),
        "colour": style.colour(video["method"]),
        "video": f"../{path}/video.mp4" if exists else "",
        "numbers": ", ".join(numbers),
        "slots": steps,
        "status": "" if video["status"] == "ok" else f"{video['status']}: {video['reason'] or 'no reason recorded'}",
        "warning": "; ".join(
            [*(f"diverged: {text}" for text in validity.get("diverged") or ()), *(validity.get("warnings") or ())]
        ),
        "errors": [round(float(value), 4) for value in errors],
        "measure": name,
    }


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
