"""The noise floors: how far a video is from its Original when no method has touched it.

Three of them bound what a similarity can mean. The Original run twice differs by what the machine does not repeat. The
mp4 preview differs by what an encoder for people loses. The Original from another noise shares only its prompt: the far
end. A row that does not leave the near ends, or reaches the far one, is marked, since its numbers say no more.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from reports.metric import Metric
from reports.records import CONTROLS, Study, number
from reports.statistics import Estimate, mean

REPEAT, PREVIEW, SEED = "= floor", "= mp4", "= other seed"  # the marks
MARKS = {
    REPEAT: "no farther from the Original than the Original run twice",
    PREVIEW: "no farther from the Original than the Original's own mp4 preview is",
    SEED: "as far from the Original as the Original of another seed, which shares only the prompt",
}
ROWS = {REPEAT: "original_repeat", SEED: "original_seed"}
NAMES = {REPEAT: "run twice", PREVIEW: "as its mp4 preview", SEED: "from another seed"}


def mark(study: Study, frame: pd.DataFrame, metrics: Sequence[Metric]) -> None:
    """Add to `marks` of the accelerated rows which floor no metric tells them from: their intervals reach its."""
    for model in dict.fromkeys(frame["model"]):
        floors = {kind: _floor(study, frame, model, kind, metrics) for kind in MARKS}
        for n in frame.index[(frame["model"] == model) & ~frame["method"].isin(CONTROLS)]:
            row = _of_row(frame.loc[n], metrics)
            found = [kind for kind, floor in floors.items() if _reaches(row, floor, metrics, beyond=kind == SEED)]
            if found:  # the nearest floor says what the next would
                frame.loc[n, "marks"] = "; ".join(filter(None, [frame.loc[n, "marks"], found[0]]))


def lines(study: Study, frame: pd.DataFrame, metrics: Sequence[Metric]) -> list[str]:
    """The floors of each model in numbers, what was not measured, and what the marks in use mean."""
    said = []
    for model in dict.fromkeys(frame["model"][~frame["marks"].str.contains("random weights")]):
        rows = {kind: _floor(study, frame, model, kind, metrics) for kind in MARKS}
        known = [
            f"{NAMES[kind]} {', '.join(_words(floor[m.name], m) for m in metrics if m.name in floor)}"
            for kind, floor in rows.items()
            if floor
        ]
        lacking = [f"method={ROWS[kind]}" for kind in ROWS if not rows[kind]]
        lacking += ["python -m eval for the mp4's"] * (not rows[PREVIEW])
        said += [f"Floors of {model}, the Original against itself: {'; '.join(known)}."] if known else []
        said += [f"Floors not measured on {model}: {', '.join(lacking)}."] if lacking else []
    used = set(map(shown, frame["marks"]))
    return said + [f"{kind}: {what}." for kind, what in MARKS.items() if kind in used]


def shown(marks: str) -> str:
    """The floor among a row's marks, empty if there is none."""
    return next((kind for kind in MARKS if kind in marks.split("; ")), "")


def _floor(study: Study, frame: pd.DataFrame, model: str, kind: str, metrics: Sequence[Metric]) -> dict[str, Estimate]:
    """The known estimates of one floor by metric; empty where it was not measured."""
    if kind == PREVIEW:
        return _preview(study, model, metrics)
    rows = frame[(frame["model"] == model) & (frame["method"] == ROWS[kind]) & (frame["videos"] > 0)]
    return _of_row(rows.iloc[0], metrics) if len(rows) else {}


def _of_row(line: pd.Series, metrics: Sequence[Metric]) -> dict[str, Estimate]:
    found = {m.name: Estimate(*(float(line[c]) for c in (m.name, f"{m.name}_low", f"{m.name}_high"))) for m in metrics}
    return {name: estimate for name, estimate in found.items() if not np.isnan(estimate.value)}


def _preview(study: Study, model: str, metrics: Sequence[Metric]) -> dict[str, Estimate]:
    """What the mp4 previews of the valid Originals lose, as the evaluation has measured it."""
    videos = study.videos
    chosen = videos[(videos["model"] == model) & (videos["method"] == "original") & (videos["status"] == "ok")]
    chosen = chosen[chosen["weights"] != "random"]
    losses = [(study.record(video).quality or {}).get("preview") or {} for _, video in chosen.iterrows()]
    found = {}
    for metric in metrics:
        values = np.array([number(loss.get(metric.name)) for loss in losses], float)
        if (~np.isnan(values)).any():
            found[metric.name] = mean(values, chosen["prompt"].to_numpy(), shape=metric.shape)
    return found


def _reaches(row: dict[str, Estimate], floor: dict[str, Estimate], metrics: Sequence[Metric], beyond: bool) -> bool:
    """Whether in every metric that both have, the row's interval is not clear of the floor's.

    beyond: the floor is the far end, which a row reaches from the near side.
    """
    verdicts = []
    for metric in metrics:
        if metric.name in row and metric.name in floor:
            (low, high), (floor_low, floor_high) = _ends(row[metric.name]), _ends(floor[metric.name])
            below = (metric.better == "lower") != beyond
            verdicts.append(low <= floor_high if below else high >= floor_low)
    return bool(verdicts) and all(verdicts)


def _ends(estimate: Estimate) -> tuple[float, float]:
    """The interval, or the value twice where there is none."""
    return (estimate.value,) * 2 if np.isnan(estimate.low) else estimate[1:]


def _words(estimate: Estimate, metric: Metric) -> str:
    value, low, high = ("∞" if np.isinf(number) else metric.show(number) for number in estimate)
    text = f"{metric.title.removesuffix(' (dB)')} {value}"
    return text if np.isnan(estimate.low) or low == high == value else f"{text} [{low}, {high}]"
