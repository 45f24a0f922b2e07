"""Reference lines: the distance from the Original without any acceleration, measured in three ways.

- The Original run a second time: differs only by what the machine does not reproduce exactly.
- The Original's mp4 preview: differs by lossy encoding.
- The Original with another seed: shares only the prompt, and is the upper bound.

A line is marked if it cannot be distinguished from one of them: its similarities then carry no further information.
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
    Kind.REPEAT: "no farther from the Original than a second run of it",
    Kind.PREVIEW: "no farther from the Original than its own mp4 preview",
    Kind.SEED: "as far from the Original as a run of it with another seed, which shares only the prompt",
}
METHODS = {Kind.REPEAT: "original_repeat", Kind.SEED: "original_seed"}
NAMES = {Kind.REPEAT: "run twice", Kind.PREVIEW: "its mp4 preview", Kind.SEED: "another seed"}


def mark(study: Study, lines: Sequence[Line], metrics: Sequence[Metric]) -> list[Line]:
    """The lines; an accelerated one is marked with the nearest reference line that it reaches in all metrics."""
    references = {
        model: {kind: _reference(study, lines, model, kind, metrics) for kind in MEANING}
        for model in dict.fromkeys(line.model for line in lines)
    }
    marked = []
    for line in lines:
        own = _known(line, metrics)
        found = [
            Mark(kind)
            for kind, reference in references[line.model].items()
            if line.accelerated and _reaches(own, reference, metrics, beyond=kind is Kind.SEED)
        ]
        marked.append(replace(line, marks=(*line.marks, *found[:1])))  # the nearest includes what the next would say
    return marked


def notes(study: Study, lines: Sequence[Line], metrics: Sequence[Metric]) -> list[str]:
    """The reference lines of each model in numbers, those that are missing, and what the marks in use mean."""
    said = []
    for model in dict.fromkeys(line.model for line in lines if not line.marked(Kind.RANDOM)):
        references = {kind: _reference(study, lines, model, kind, metrics) for kind in MEANING}
        known = [
            f"{NAMES[kind]} {', '.join(_words(reference[m.name], m) for m in metrics if m.name in reference)}"
            for kind, reference in references.items()
            if reference
        ]
        lacking = [f"method={METHODS[kind]}" for kind in METHODS if not references[kind]]
        lacking += ["python -m eval (mp4 preview)"] * (not references[Kind.PREVIEW])
        if known:
            said.append(f"Reference lines of {model} (the Original compared with itself): {'; '.join(known)}.")
        said += [f"Reference lines missing on {model}, and what adds them: {', '.join(lacking)}."] if lacking else []
    used = set(map(reached, lines))
    return said + [f"{kind.value}: {what}." for kind, what in MEANING.items() if kind.value in used]


def reached(line: Line) -> str:
    """The reference line that a line is marked with, as printed; empty if there is none."""
    return next((str(mark) for mark in line.marked(*MEANING)), "")


def _reference(
    study: Study, lines: Sequence[Line], model: str, kind: Kind, metrics: Sequence[Metric]
) -> dict[str, Estimate]:
    """The known estimates of one reference line by metric; empty if it was not measured."""
    if kind is Kind.PREVIEW:
        return _preview(study, model, metrics)
    found = [line for line in lines if (line.model, line.method) == (model, METHODS[kind]) and len(line.valid)]
    return _known(found[0], metrics) if found else {}


def _known(line: Line, metrics: Sequence[Metric]) -> dict[str, Estimate]:
    return {m.name: line.estimates[m.name] for m in metrics if not np.isnan(line.estimates[m.name].value)}


def _preview(study: Study, model: str, metrics: Sequence[Metric]) -> dict[str, Estimate]:
    """Similarity of the valid Originals' mp4 previews to their lossless frames, as measured by the evaluation."""
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


def _reaches(
    line: dict[str, Estimate], reference: dict[str, Estimate], metrics: Sequence[Metric], beyond: bool
) -> bool:
    """Whether the interval of a line reaches that of a reference line in every metric that both have.

    beyond: the reference line is the far one (another seed), which a line reaches from the near side.
    """
    verdicts = []
    for metric in metrics:
        if metric.name in line and metric.name in reference:
            (low, high), (least, most) = _ends(line[metric.name]), _ends(reference[metric.name])
            below = (metric.better == "lower") != beyond
            verdicts.append(low <= most if below else high >= least)
    return bool(verdicts) and all(verdicts)


def _ends(estimate: Estimate) -> tuple[float, float]:
    """The interval, or the value twice if there is none."""
    return (estimate.value,) * 2 if np.isnan(estimate.low) else estimate[1:]


def _words(estimate: Estimate, metric: Metric) -> str:
    value, low, high = ("∞" if np.isinf(number) else metric.show(number) for number in estimate)
    text = f"{metric.title.removesuffix(' (dB)')} {value}"
    return text if np.isnan(estimate.low) or low == high == value else f"{text} [{low}, {high}]"
