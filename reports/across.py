"""What cannot be compared between lines of several stores and bundles: other machines, other versions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from reports import provenance
from reports.line import Line
from reports.marks import Kind, Mark
from reports.paired import Pair
from reports.records import Study
from reports.sources import machine

TIMED = frozenset({"time_s", "speedup", "peak_memory_gb"})  # metrics that depend on the machine
ACROSS = ("torch", "diffusers", "threads", "model code", "weights", "kind of key")  # facts compared between lines


def mark(study: Study, lines: Sequence[Line]) -> list[Line]:
    """The lines; those made on another machine or with other versions than other lines of the model are marked."""
    if not study.several:
        return list(lines)
    every = [_facts(study, line) for line in lines]
    found = []
    for line, own in zip(lines, every, strict=True):
        model = [facts for other, facts in zip(lines, every, strict=True) if other.model == line.model]
        added = []
        for name, values in own.items():
            others = set().union(*(facts.get(name, set()) for facts in model)) - values
            if others:
                added.append(Mark(Kind.ACROSS, (name, _listed(values), _listed(others))))
        found.append(replace(line, marks=(*line.marks, *added)))
    return found


def mixed(study: Study, model: str) -> bool:
    """Whether several sources were read and the videos of a model come from several machines."""
    return study.several and study.videos[study.videos["model"] == model]["device"].nunique() > 1


def comparable(study: Study, pairs: Iterable[Pair]) -> list[Pair]:
    """The pairs without those of `TIMED` metrics of lines from different machines."""
    return [
        pair
        for pair in pairs
        if not (mixed(study, pair.model) and pair.metric.name in TIMED and pair.first.machine != pair.other.machine)
    ]


def trimmed(study: Study, lines: Sequence[Line], best: Sequence[frozenset[str]]) -> list[frozenset[str]]:
    """`best` of each line, without `TIMED` metrics where a model has videos from several machines."""
    return [names - TIMED if mixed(study, line.model) else names for line, names in zip(lines, best, strict=True)]


def notes(study: Study) -> list[str]:
    """The note on machines, if the videos of a model come from several."""
    models = [model for model in study.models if mixed(study, model)]
    if not models:
        return []
    return [
        f"Several machines on {', '.join(models)}: seconds, memory and speedups of different machines are not "
        "comparable, so none is bold. A speedup is over the Original of the same machine if there is one."
    ]


def _facts(study: Study, line: Line) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for _, video in line.valid.iterrows():
        record = study.record(video)
        told = {"machine": machine(record)}
        told |= {name: value for name, value in provenance.facts(record).items() if name in ACROSS}
        for name, value in told.items():
            found.setdefault(name, set()).add(value)
    return found


def _listed(values: set[str]) -> str:
    return ", ".join(sorted(value.replace(";", ",") for value in values))
