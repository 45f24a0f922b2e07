"""What the machine may have made and not the method: speedups like those of a repeat, the memory of a process."""

from __future__ import annotations

import numpy as np
import pandas as pd

from reports.records import CONTROLS, ROW, Study

WITHIN = "speedup within the spread of the Original run twice"  # a mark
ON_CPU = "Memory on a CPU is that of the whole process, which its earlier videos enlarge: it is never bold."


def mark(study: Study, frame: pd.DataFrame) -> None:
    """Add WITHIN to `marks` of the accelerated rows whose speedup is no larger than the repeat's may be."""
    for model in dict.fromkeys(frame["model"]):
        most = spread(study, frame, model)
        rows = (frame["model"] == model) & ~frame["method"].isin(CONTROLS) & (frame["speedup"] <= most)
        frame.loc[rows, "marks"] = ["; ".join(filter(None, [old, WITHIN])) for old in frame.loc[rows, "marks"]]


def spread(study: Study, frame: pd.DataFrame, model: str) -> float:
    """The largest speedup that the Original run twice may show: the upper end of its interval, or without one the
    largest of its videos; NaN if it was not run."""
    repeats = frame[(frame["model"] == model) & (frame["method"] == "original_repeat") & (frame["videos"] > 0)]
    if repeats.empty:
        return np.nan
    videos = study.videos
    own = videos[(videos["model"] == model) & (videos["method"] == "original_repeat") & (videos["status"] == "ok")]
    ends = repeats["speedup_high"] if repeats["speedup_high"].notna().all() else own["speedup"]
    return float(np.nanmax([*ends, *repeats["speedup"]]))


def trimmed(study: Study, frame: pd.DataFrame, best: pd.Series) -> pd.Series:
    """`best` without what the machine may have made: such speedups, and memory on a CPU."""
    on_cpu = {tuple(row.values()) for row, group in study.rows() if _on_cpu(study, group)}
    found = []
    for (_, line), names in zip(frame.iterrows(), best, strict=True):
        lost = {"speedup"} if WITHIN in line["marks"].split("; ") else set()
        lost |= {"peak_memory_gb"} if tuple(line[ROW]) in on_cpu else set()
        found.append("; ".join(name for name in names.split("; ") if name not in lost))
    return pd.Series(found, best.index, dtype=object)


def lines(study: Study, frame: pd.DataFrame) -> list[str]:
    """The notes on both, where they apply."""
    found = [
        f"{line['name']} on {line['model']}: {WITHIN}, so it may be the machine's."
        for _, line in frame.iterrows()
        if WITHIN in line["marks"].split("; ")
    ]
    return found + [ON_CPU] * any(_on_cpu(study, group) for _, group in study.rows())


def _on_cpu(study: Study, group: pd.DataFrame) -> bool:
    environments = (study.record(video).run.get("environment") or {} for _, video in group.iterrows())
    return any(environment.get("device") == "cpu" for environment in environments)
