"""The noise floors: how far a video is from its Original when no method has touched it.

Three of them bound what a similarity can mean. The Original run twice differs by what the machine does not repeat. The
mp4 preview differs by what an encoder for people loses. The Original from another noise shares only its prompt: the far
end. A row that does not leave the near ends, or reaches the far one, is marked, since its numbers say no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from reports.line import Line
from reports.marks import Kind, Mark
from reports.metric import Metric
from reports.records import Study
from reports.statistics import Estimate, mean
from reports.video import number

MEANING = {  # the nearest first
    Kind.FLOOR: "no farther from the Original than the Original run twice",
    Kind.PREVIEW: "no farther from the Original than the Original's own mp4 preview is",
    Kind.SEED: "as far from the Original as the Original of another seed, which shares only the prompt",
}
METHODS = {Kind.FLOOR: "original_repeat", Kind.SEED: "original_seed"}
NAMES = {Kind.FLOOR: "run twice", Kind.PREVIEW: "as its mp4 preview", Kind.SEED: "from another seed"}


def mark(study: Study, lines: Sequence[Line], metrics: Sequence[Metric]) -> list[Line]:
    """The lines, the accelerated ones marked with the nearest floor that their intervals reach in every metric."""
    floors = {
        model: {kind: _floor(study, lines, model, kind, metrics) for kind in MEANING}
        for model in dict.fromkeys(line.model for line in lines)
    }
    marked = []
    for line in lines:
        own = _known(line, metrics)
        found = [
            Mark(kind)
            for kind, floor in floors[line.model].items()
            if line.accelerated and _reaches(own, floor, metrics, beyond=kind is Kind.SEED)
        ]
        marked.append(replace(line, marks=(*line.marks, *found[:1])))  # the nearest floor says what the next would
    return marked


def notes(study: Study, lines: Sequence[Line], metrics: Sequence[Metric]) -> list[str]:
    """The floors of each model in numbers, what was not measured, and what the marks in use mean."""
    said = []
    for model in dict.fromkeys(line.model for line in lines if not line.marked(Kind.RANDOM)):
        floors = {kind: _floor(study, lines, model, kind, metrics) for kind in MEANING}
        known = [
            f"{NAMES[kind]} {', '.join(_words(floor[m.name], m) for m in metrics if m.name in floor)}"
            for kind, floor in floors.items()
            if floor
        ]
        lacking = [f"method={METHODS[kind]}" for kind in METHODS if not floors[kind]]
        lacking += ["python -m eval for the mp4's"] * (not floors[Kind.PREVIEW])
        said += [f"Floors of {model}, the Original against itself: {'; '.join(known)}."] if known else []
        said += [f"Floors not measured on {model}: {', '.join(lacking)}."] if lacking else []
    used = set(map(reached, lines))
    return said + [f"{kind.value}: {what}." for kind, what in MEANING.items() if kind.value in used]


def reached(line: Line) -> str:
    """The floor that a line is marked with, as printed; empty if there is none."""
    return next((str(mark) for mark in line.marked(*MEANING)), "")


def _floor(
    study: Study, lines: Sequence[Line], model: str, kind: Kind, metrics: Sequence[Metric]
) -> dict[str, Estimate]:
    """The known estimates of one floor by metric; empty where it was not measured."""
    if kind is Kind.PREVIEW:
        return _preview(study, model, metrics)
    found = [line for line in lines if (line.model, line.method) == (model, METHODS[kind]) and len(line.valid)]
    return _known(found[0], metrics) if found else {}


def _known(line: Line, metrics: Sequence[Metric]) -> dict[str, Estimate]:
    return {m.name: line.estimates[m.name] for m in metrics if not np.isnan(line.estimates[m.name].value)}


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
