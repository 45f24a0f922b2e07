"""The dashboard of a report as data, before it is sent anywhere: `python -m reports wandb PROJECT`.

One `Board` per model, for all its lines, and one per model and prompt, with the videos of all methods side by side. The
group of both is the model, so that runs can be grouped by model, and by `config.prompt`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from reports import curves, style
from reports.line import Line
from reports.metric import METRICS
from reports.players import MOST_VIDEOS
from reports.records import Study, label, originals, prompt_hash
from reports.report import Report
from store import fingerprint

PIXELS = 6  # of a slot and an iteration in a timeline
NUMBERS = ("time_s", "speedup", "flops_speedup", "psnr", "ssim", "lpips")  # of a video
COUNTED = ("videos", "invalid", "failed", "diverged")


@dataclass(frozen=True)
class Clip:
    """A video of a table: a file."""

    path: Path


@dataclass
class Board:
    """One run: a table, what to draw of it, and the main numbers."""

    id: str  # the same for the same results, so that a later upload replaces the run
    name: str
    model: str  # the group of the run
    kind: str  # "overview" or "prompt", the job type
    config: dict[str, Any]
    table: pd.DataFrame  # cells: text, numbers or None, Clip, or a picture (H, W, 3) uint8
    summary: dict[str, float] = field(default_factory=dict)
    pictures: dict[str, Any] = field(default_factory=dict)  # by panel: matplotlib figures, Clips, pictures


def boards(report: Report, most: int) -> Iterator[Board]:
    """The boards of a report: an overview of each model, then its first `most` prompts."""
    for model, lines in report.by_model():
        yield overview(report, model, lines)
        yield from by_prompt(report.study, model, most)


def overview(report: Report, model: str, lines: list[Line]) -> Board:
    """The main table of a model, its timelines, and each number as `<metric>/<line>` in the summary."""
    study = report.study
    videos = study.videos[study.videos["model"] == model]
    found = [_cells(line) for line in lines]
    named = dict(zip(keys([cells["line"] for cells in found]), found, strict=True))
    summary = {
        f"{name}/{key}": cells[name] for key, cells in named.items() for name in NUMBERS if cells[name] is not None
    }
    config = {"model": model, "results": study.root.name, "prompts": int(videos["prompt"].nunique())}
    config |= {"prompt_set": prompt_hash(videos), "machines": sorted({line.machine for line in lines})}
    return Board(
        fingerprint({"board": study.root.name, "model": model}),
        f"{model} overview",
        model,
        "overview",
        config,
        pd.DataFrame(found),
        summary,
        {f"main/{name}": drawn for name, draw in _FIGURES.items() if (drawn := draw(study, model)) is not None},
    )


_FIGURES = {"timeline": curves.timeline, "drift": curves.drift}


def by_prompt(study: Study, model: str, most: int) -> Iterator[Board]:
    """A board for each of the first `most` Originals of a model: a line per video, with its numbers and decisions."""
    videos = study.videos[study.videos["model"] == model]
    for number, (key, group) in enumerate(videos.groupby(originals(videos), sort=False)):
        if number == most or number * len(group) > MOST_VIDEOS:
            return
        first = group.iloc[0]
        config = {"model": model, "results": study.root.name, "prompt": first["prompt"], "seed": int(first["seed"])}
        found = [_video(study, video) for _, video in group.iterrows()]
        named = dict(zip(keys([cells["line"] for cells in found]), found, strict=True))
        yield Board(
            fingerprint({"board": study.root.name, "model": model, "original": key}),
            " ".join(f"{model} {first['prompt_id']}: {first['prompt']}".split())[
                :100
            ],  # no line break, which is refused
            model,
            "prompt",
            config,
            pd.DataFrame(found),
            pictures={
                f"{part}s/{key}": cells[part]
                for part in ("video", "timeline")
                for key, cells in named.items()
                if cells[part] is not None
            },
        )


def _cells(line: Line) -> dict[str, Any]:
    """A line of the overview, with the ends of its intervals."""
    found: dict[str, Any] = {"line": line.name, "method": line.method, "speed": line.speed, "variant": line.variant}
    found |= {name: line.counts()[name] for name in COUNTED}
    for metric in METRICS:
        value, low, high = line.estimates[metric.name]
        found |= {metric.name: _number(value), f"{metric.name}_low": _number(low), f"{metric.name}_high": _number(high)}
    return found | {"machine": line.machine, "marks": "; ".join(str(mark) for mark in line.marks)}


def _video(study: Study, video: pd.Series) -> dict[str, Any]:
    """A line of a prompt's table."""
    record = study.record(video)
    path = record.path / "video.mp4"
    return {
        "line": label(video),
        "video": Clip(path) if path.exists() and path.stat().st_size else None,
        "timeline": picture(record.trace()),
        **{name: _number(video[name]) for name in NUMBERS},
        "status": "diverged" if video["diverged"] else str(video["status"]),
        "reason": str(video["reason"]),
        "key": str(video["key"]),
    }


def keys(names: Sequence[str]) -> list[str]:
    """Names of panels for lines, each once: W&B takes only letters, digits and underscores without trouble.

    >>> keys(["SCOPE fast", "SCOPE-fast"])
    ['SCOPE_fast', 'SCOPE_fast_2']
    """
    found: list[str] = []
    for name in names:
        plain = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "line"
        number = sum(re.fullmatch(rf"{plain}(_\d+)?", other) is not None for other in found)
        found.append(f"{plain}_{number + 1}" if number else plain)
    return found


def picture(trace: list[dict]) -> np.ndarray | None:
    """The decisions as RGB uint8 (H, W, 3): slots upwards, iterations rightwards; None without decisions."""
    grid = curves.decisions(trace)
    if not grid.size:
        return None
    colours = [tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5)) for colour in style.MODES.values()]
    palette = np.array([*colours, (255, 255, 255)], np.uint8)  # the last colour is for -1, no decision
    return np.kron(palette[grid[::-1]], np.ones((PIXELS, PIXELS, 1), np.uint8))


def _number(value: Any) -> float | None:
    """A number that every table takes; None for NaN and for infinity (the PSNR of identical videos)."""
    return float(value) if isinstance(value, int | float | np.number) and math.isfinite(value) else None
