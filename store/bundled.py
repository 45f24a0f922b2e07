"""Reads bundles (store/bundle.py) and checks each line: its form, its checksum, and that its parts fit together."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from store import clips
from store.bundle import VERSION
from store.checks import SEAL, holds_as_written
from store.checks import faults as contradictions
from store.index import gc_paused
from store.json_schema import Test, compiled, faults
from store.packed import MODES, SHARED, canonical, sha256
from store.record import CURVES, SCHEMA, Record, StoreError


@dataclass(frozen=True)
class Bundled(Record):
    """A record of a bundle. Its path names its place in the bundle; no file of it exists."""

    content: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    schedule: Mapping[str, list[Any]] | None = field(default=None, compare=False, repr=False)
    clip: str = field(default="", compare=False, repr=False)  # base64 of its preview

    @property
    def preview(self) -> bytes | None:
        """The bytes of a small mp4 of the video, or None if the bundle has none."""
        return clips.decoded(self.clip) if self.clip else None

    @property
    def quality(self) -> dict[str, Any] | None:
        """The scores with their curves. Per-frame values have `DECIMALS`; means are exact."""
        curves = {name: _values(curve) for name, curve in self.content["curves"].items()}
        scores = self.scores
        return scores if scores is None or not curves else {**scores, CURVES: curves}

    @property
    def scores(self) -> dict[str, Any] | None:
        """The scores without their curves; None if the video has not been scored."""
        scores: dict[str, Any] | None = self.content["scores"]
        return scores

    @property
    def config(self) -> dict[str, Any]:
        """The resolved settings; only of records whose run.json does not have them."""
        return dict(self.content.get("config", {}))

    def trace(self) -> list[dict[str, Any]]:
        """The decisions with their place in the schedule, but without scores, reasons and sites."""
        if self.schedule is None:
            return []
        names = {letter: mode for mode, letter in MODES.items()}
        columns = [self.schedule[name] for name in SHARED]
        return [
            {**dict(zip(SHARED, places, strict=True)), "mode": names[letter]}
            for letter, *places in zip(self.content["ledger"]["modes"], *columns, strict=True)
        ]

    def write_json(self, name: str, content: Any) -> None:
        """Raises StoreError: a bundle is not changed."""
        raise StoreError(f"{self.path} is in a bundle, which is not changed; score the results folder instead")


def _values(curve: Mapping[str, Any]) -> list[float | None]:
    """The per-frame values of a curve."""
    total, scale, found = 0, 10 ** curve["decimals"], list[float | None]()
    for step in curve["steps"]:
        total += step or 0
        found.append(None if step is None else total / scale)
    return found


@dataclass(frozen=True)
class Bundle:
    """What a bundle holds."""

    path: Path
    records: list[Record]
    files: Mapping[str, Any]  # content of cell files by path, `vbench/<model>/<cell>.json`
    damaged: dict[str, str]  # lines that are left out, and why


def read(path: Path) -> Bundle:
    """Read a bundle and check every line.

    A line that does not fit is left out and named in `damaged`. Raises StoreError if the file is missing, incomplete,
    no bundle, or of a newer version.
    """
    with gc_paused():
        lines = _lines(path)
        head = _head(path, next(lines, ""))
        reading = _Reading(path)
        for number, line in enumerate(lines, 2):
            kind, content, wrong = _parsed(line)
            reading.count += kind != "schedule"
            wrong = wrong or reading.add(kind, content, line)
            if wrong:
                reading.damaged[f"{path.name} line {number}{_place(content)}"] = wrong
    previews = head.get("previews", 0)
    if reading.count != head["records"] + previews:
        told = f"{head['records']} records" + (f" and {previews} previews" if previews else "")
        reading.damaged[path.name] = (
            f"its first line says {told}, but it has {reading.count}; lines were removed or added"
        )
    return Bundle(path, list(reading.records.values()), head["files"], reading.damaged)


@dataclass
class _Reading:
    """What of a bundle has been read."""

    path: Path
    records: dict[str, Record] = field(default_factory=dict)
    schedules: dict[str, Mapping[str, list[Any]]] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    count: int = 0  # of records and previews, also of those that do not fit

    def add(self, kind: str, content: Mapping[str, Any], line: str) -> str:
        """Take the content of a line. Returns why it does not fit, or ""."""
        if kind == "schedule":
            self.schedules[sha256(canonical(content))] = content
            return ""
        if kind == "preview":
            return self._preview(content)
        if kind != "record":
            return "it is another header"
        record, wrong = _record(self.path, content, self.schedules, line)
        place = "/".join(record.path.parts[-3:])
        if wrong or place in self.records:
            return wrong or "its key is in the bundle twice"
        self.records[place] = record
        return ""

    def _preview(self, content: Mapping[str, Any]) -> str:
        place = "/".join(content[name] for name in ("model", "cell", "key"))
        record = self.records.get(place)
        if not isinstance(record, Bundled):
            return "the record of its preview is missing"
        if record.clip:
            return "its preview is in the bundle twice"
        try:
            clips.decoded(content["mp4"])
        except ValueError as error:
            return str(error)
        self.records[place] = replace(record, clip=content["mp4"])
        return ""


@cache
def schema() -> dict[str, Any]:
    """The JSON schema of a line; `$defs` has that of each kind of content."""
    text = Path(__file__).with_name("bundle.schema.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


@cache
def fits(kind: str) -> Test:
    """Says whether content of a kind fits the schema; for `line`, whether a line does."""
    return compiled({**schema(), "$defs": {}} if kind == "line" else schema()["$defs"][kind])


def _lines(path: Path) -> Iterator[str]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            yield from file
    except FileNotFoundError:
        raise StoreError(f"no bundle {path}; give a results folder or a file of python -m store export") from None
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise StoreError(f"{path} is no complete bundle ({error}); export it or copy it again") from error


def _head(path: Path, line: str) -> Mapping[str, Any]:
    """The content of the first line. Raises StoreError."""
    if not line:
        raise StoreError(f"{path} is no bundle: it holds no line; export it again")
    version = _version(line)
    if version > VERSION:
        raise StoreError(f"{path} has bundle schema {version}, newer than {VERSION}; update the program")
    kind, head, wrong = _parsed(line)
    if kind != "bundle" or wrong:
        raise StoreError(f"{path} is no bundle: {wrong or 'its first line is no header'}; export it again")
    return head


def _version(line: str) -> int:
    """The version in a first line, also in one of a form that is not known here; 0 if it has none."""
    try:
        return int(json.loads(line)["content"]["schema"])
    except (ValueError, TypeError, KeyError):
        return 0


def _parsed(line: str) -> tuple[str, Mapping[str, Any], str]:
    """(kind, content, what is wrong with the line or "")."""
    try:
        found = json.loads(line)
    except ValueError:
        return "", {}, "the line is not JSON"
    if not fits("line")(found):
        return "", {}, next(faults(found, schema()))
    kind, content, sealed = found["kind"], found["content"], found["sha256"]
    text = line.partition(',"content":')[2].rstrip()[:-1]  # as written; another program may have changed spaces
    if sealed != sha256(text) and sealed != sha256(canonical(content)):
        return kind, content, "its checksum differs: the line was changed"
    return kind, content, "" if fits(kind)(content) else next(faults(content, schema()["$defs"][kind]))


def _record(path: Path, content: Mapping[str, Any], schedules: Mapping[str, Any], line: str) -> tuple[Record, str]:
    """The record of a line, and what is wrong with it."""
    run, cell = content["run"], f"{content['model']}/{content['cell']}"
    ledger = content["ledger"]
    schedule = schedules.get(ledger["schedule"]) if ledger else None
    record = Bundled(path / cell / content["key"], run, content=content, schedule=schedule)
    wrong = next(contradictions(record.path, run, cell, (), _sealed(line, run)), "")
    if run.get("schema", 0) > SCHEMA:
        wrong = f"its record has schema {run['schema']}, newer than {SCHEMA}; update the program"
    elif ledger and schedule is None:
        wrong = "the schedule of its decisions is missing"
    elif schedule and {*map(len, schedule.values())} != {len(ledger["modes"])}:
        wrong = "its decisions do not fit their schedule"
    return record, wrong


def _sealed(line: str, run: Mapping[str, Any]) -> bool:
    """Whether the seal of run.json holds by the text of its line, which saves writing it again with `canonical`.

    False if the text is different, or could be that of another mapping named `run`.
    """
    _, found, rest = line.partition(',"run":')
    text, end, _ = rest.rpartition(',"scores":')
    return bool(found and end and ',"run":' not in rest) and holds_as_written(text, str(run.get(SEAL)))


def _place(content: Mapping[str, Any]) -> str:
    names = [content.get(name) for name in ("model", "cell", "key")]
    return f" ({'/'.join(map(str, names))})" if all(names) else ""
