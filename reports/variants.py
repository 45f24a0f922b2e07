"""Variants of an operating point: the settings in which videos differ from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from reports.video import settings
from store import Record

CODE = ("method.class", "method.code", "model.class", "model.code")  # entries of produced_by that are not settings


def variants(videos: pd.DataFrame, records: list[Record]) -> pd.Series:
    """For each video, the settings that differ from its operating point, `tau_cache=0.1`; empty if none does.

    Records name these settings. If a line then still has two videos of one prompt and seed (older records, other
    weights), the settings that differ between them are added.
    """
    told = [
        ", ".join(f"{name.partition('.')[2]}={value}" for name, value in sorted(changed.items()))
        for changed in videos["changed"]
    ]
    names = pd.Series(told, index=videos.index, dtype=object)
    for _, group in videos.groupby(["model", "method", "speed", names], sort=False):
        if not group.duplicated(["prompt", "seed"]).any():
            continue
        made_by = {n: dict(_flat(settings(records[r]))) for n, r in group["record"].items()}
        everything = sorted(set().union(*made_by.values()) - {key for c in group["changed"] for key in c})
        differ = [s for s in everything if len({str(flat.get(s)) for flat in made_by.values()}) > 1]
        older = {n for n, r in group["record"].items() if records[r].older_key}
        if older and len(older) < len(group):  # two kinds of code fingerprints cannot be compared
            differ = [s for s in differ if s not in CODE]
        for n, flat in made_by.items():
            apart = [f"{s.removeprefix('method.')}={flat.get(s)}" for s in differ]
            apart = ["older key", *apart] if n in older and len(older) < len(group) else apart
            names[n] = ", ".join([*filter(None, [names[n]]), *apart])
    return names


def _flat(config: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """The settings of model and method as (dotted name, value)."""
    for name, value in config.items():
        if not path and name not in ("model", "method"):
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value
