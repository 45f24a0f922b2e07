"""Lines whose records differ in code, libraries, threads or weights, from each other or from their Originals.

Each of these can change a number, so such lines are marked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from reports.line import Line
from reports.marks import Kind, Mark
from reports.records import Study, used
from store import Record

LISTED = 4  # most values that a mark names
OWN = ("method code",)  # differs between an Original and a method by design


def facts(record: Record) -> dict[str, str]:
    """What can change a number, by its printed name. Facts that the record does not hold are left out."""
    run = record.run
    environment, made = _mapping(run.get("environment")), _mapping(run.get("produced_by"))
    packages = _mapping(environment.get("packages"))
    commit = environment.get("commit")
    found = {
        "torch": packages.get("torch"),
        "diffusers": packages.get("diffusers"),
        "threads": environment.get("threads"),
        "commit": f"{commit} with changes" if commit and environment.get("dirty") else commit,
        "method code": _mapping(made.get("method")).get("code"),
        "model code": _mapping(made.get("model")).get("code"),
        "weights": made.get("weights"),
        "kind of key": "older" if record.older_key else "present",
    }
    return {name: str(value) for name, value in found.items() if value not in (None, "")}


def marks(study: Study, line: Line) -> list[Mark]:
    """Marks for what differs between the valid records of a line, and between them and their Originals."""
    valid = line.valid
    mine = _values(facts(study.record(video)) for _, video in valid.iterrows())
    apart = [f"{name} ({_listed(values)})" for name, values in mine.items() if len(values) > 1]
    found = [Mark(Kind.APART, (", ".join(apart),))] if apart else []
    originals = study.videos[
        study.videos["key"].isin(set(valid["reference"]) - {""}) & (study.videos["model"] == line.model)
    ]
    originals = used(originals, valid)
    theirs = _values(facts(study.record(video)) for _, video in originals.iterrows())
    for name, values in theirs.items():
        if name not in OWN and name in mine and values != mine[name]:
            found.append(Mark(Kind.BESIDE, (name, _listed(mine[name]), _listed(values))))
    return found


def notes(study: Study, lines: Sequence[Line]) -> list[str]:
    """One note per mark, with the lines that have it; and how many records have older keys."""
    older = sum(record.older_key for record in study.records)
    named: dict[tuple[str, Mark], list[str]] = {}
    for line in lines:
        for mark in line.marked(Kind.APART, Kind.BESIDE, Kind.ACROSS):
            named.setdefault((line.model, mark), []).append(line.name)
    found = [
        f"{', '.join(names)} on {model}: {mark}, which can change a number." for (model, mark), names in named.items()
    ]
    if older:
        found.append(
            f"{older} of {len(study.records)} records have older keys, which do not cover the code of the model: the "
            "present code may produce other frames."
        )
    return found


def _values(every: Iterable[Mapping[str, str]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for one in every:
        for name, value in one.items():
            found.setdefault(name, set()).add(value)
    return found


def _listed(values: set[str]) -> str:
    some = sorted(value.replace(";", ",") for value in values)  # the csv has its marks between semicolons
    return ", ".join(some[:LISTED]) + (f" and {len(some) - LISTED} more" if len(some) > LISTED else "")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
