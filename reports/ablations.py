"""Ablations of SCOPE: all lines of its fast point in which exactly one setting differs from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from reports.formats import pipes, tabular
from reports.line import ENDS, Line, shown
from reports.metric import BY_NAME
from reports.notes import protocol
from reports.report import Report
from reports.video import settings
from store import writing

TITLES = {
    "selective": "selective computation",
    "predictor": "predictor",
    "decay": "decay of the score after a prediction",
    "max_skip": "maximum number of consecutive skipped steps",
    "warmup": "first steps that are always computed",
    "interval_ratio": "share of the valid interval that is forwarded, by stage",
}
COLUMNS = ("time_s", "speedup", "flops_speedup", "lpips", "ssim", "psnr")
CAPTION = "Ablations of SCOPE: one setting at a time differs from the fast point. * marks the fast point's own value."


@dataclass(frozen=True)
class Part:
    """A line of the main table, seen as one value of one setting."""

    setting: str
    value: str
    own: bool  # whether this is the fast point's own value
    line: Line


def parts(report: Report) -> Iterator[Part]:
    """Every varied setting of every model with its values, the fast point's own value first."""
    for _, lines in report.by_model():
        fast = [line for line in lines if (line.method, line.speed) == ("scope", "fast")]
        own = [line for line in fast if not line.variant]
        single = [line for line in fast if len(line.changed) == 1 and next(iter(line.changed)).startswith("method.")]
        for setting in sorted({next(iter(line.changed)) for line in single}):
            name = setting.partition(".")[2]
            for line in [*own, *(line for line in single if setting in line.changed)]:
                made_by = settings(report.study.record(line.records.iloc[0])).get("method") or {}
                yield Part(TITLES.get(name, name), str(made_by.get(name)), not line.variant, line)


def write(report: Report, folder: Path) -> list[Part]:
    """Write `ablations`.csv, .md and .tex into `folder`, unless there are no ablations; return them."""
    found = list(parts(report))
    if found:
        printed, under = _printed(found), [CAPTION, *protocol(report.study)]
        texts = {
            "csv": _frame(found).to_csv(index=False, float_format="%.6g"),
            "md": "\n\n".join([pipes(printed), *under]) + "\n",
            "tex": tabular(printed, "ablations", " ".join(under), left=3),
        }
        for suffix, text in texts.items():
            with writing(folder / f"ablations.{suffix}") as draft:
                draft.write_text(text, encoding="utf-8")
    return found


def _frame(found: list[Part]) -> pd.DataFrame:
    """The table for the csv."""
    lines = []
    for part in found:
        line = part.line
        numbers = {
            f"{name}{end}": value
            for name in COLUMNS
            for end, value in zip(("", *(f"_{end}" for end in ENDS)), line.estimates[name], strict=True)
        }
        head = {"model": line.model, "setting": part.setting, "value": part.value, "videos": len(line.valid)}
        lines.append({**head, "own": part.own, **numbers, "missing": "; ".join(line.reasons())})
    return pd.DataFrame(lines)


def _printed(found: list[Part]) -> pd.DataFrame:
    columns = {
        "model": [part.line.model for part in found],
        "setting": [part.setting for part in found],
        "value": [part.value + "*" * part.own for part in found],
        "videos": [len(part.line.valid) for part in found],
    }
    for metric in (BY_NAME[name] for name in COLUMNS):
        if any(part.line.known(metric.name) for part in found):
            columns[metric.title] = [shown(part.line, metric, interval=True) for part in found]
    return pd.DataFrame(columns)
