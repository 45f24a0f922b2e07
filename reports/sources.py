"""Several results folders and bundles as the records of one study. Marks of their lines: reports/across.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from store import Record, Store
from store.bundle import SUFFIX, is_bundle
from store.bundled import read

UNKNOWN = "not recorded"


@dataclass(frozen=True)
class Source:
    """One results folder or bundle."""

    name: str
    records: list[Record]
    damaged: dict[str, str]  # folders or lines that cannot be read, and why
    files: Mapping[str, Any] = field(default_factory=dict)  # of a bundle: measurements over whole cells
    store: Store | None = None

    def remember(self) -> None:
        """Save what was read of a results folder in its index."""
        if self.store:
            self.store.remember(least=64)


def opened(place: Path) -> Source:
    """Read a results folder or a bundle. Raises StoreError if it is neither, or of a newer version."""
    if is_bundle(place):
        bundle = read(place)
        return Source(place.name, bundle.records, bundle.damaged, bundle.files)
    store = Store(place, create=False)
    records = list(store.records())
    damaged = {str(path.relative_to(store.root)): why for path, why in sorted(store.damaged.items())}
    return Source(place.name, records, damaged, store=store)


def folder(places: Sequence[Path]) -> Path:
    """The folder of a report: the first results folder, else a folder beside the first bundle with its name."""
    folders = [place for place in places if not is_bundle(place)]
    first = places[0]
    return folders[0] if folders else first.with_name(first.name.removesuffix(SUFFIX) + "_report")


def joined(sources: Sequence[Source]) -> tuple[list[Record], dict[str, str]]:
    """All records, each once; and what is left out, and why.

    Records of one key and machine must be equal. Of two that differ, the first is kept, in the order of the sources.
    """
    if len(sources) == 1:
        return sources[0].records, sources[0].damaged
    kept: dict[tuple[str, ...], tuple[Source, Record]] = {}
    damaged: dict[str, str] = {}
    apart: dict[tuple[str, str], list[str]] = {}
    for source in sources:
        damaged |= {f"{source.name}: {place}": why for place, why in source.damaged.items()}
        for record in source.records:
            cell = "/".join(record.path.parts[-3:])
            first, other = kept.setdefault((cell, machine(record)), (source, record))
            if other is record:
                continue
            if other.run != record.run or (None not in (other.scores, record.scores) and other.scores != record.scores):
                apart.setdefault((source.name, first.name), []).append(cell)
            elif other.scores is None:
                kept[cell, machine(record)] = (first, record)
    for (name, first_name), cells in apart.items():
        more = f" and {len(cells) - 1} more" * (len(cells) > 1)
        damaged[f"{name}: {cells[0]}{more}"] = (
            f"{first_name} holds a different record with this key of the same machine"
        )
    return [record for _, record in kept.values()], damaged


def machine(record: Record) -> str:
    """The GPU of a record, or the CPU if none was used."""
    environment = record.run.get("environment") or {}
    return str(environment.get("gpu") or environment.get("cpu") or UNKNOWN)


def separated(videos: pd.DataFrame) -> pd.Series:
    """The variants, with the machine where several machines made the same videos of a line; not for the first one."""
    names = videos["variant"].copy()
    for _, group in videos.groupby(["model", "method", "speed", "variant"], sort=False):
        machines = list(dict.fromkeys(group["device"]))
        if len(machines) == 1 or not group.duplicated(["prompt", "seed"]).any():
            continue
        for n, device in group["device"].items():
            if device != machines[0]:
                names[n] = ", ".join(filter(None, [names[n], f"machine={device or UNKNOWN}"]))
    return names
