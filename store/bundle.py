"""Bundles: the records of a store in one file, without videos or with small previews, to hand to others.

    python -m store export RESULTS bundle.jsonl.gz [--previews]

A bundle is a gzip file of JSON lines. The first line holds the version of the format and the number of records. Each
further line is a record (run.json, scores, per-frame metrics, decisions), a preview of the record before it, or a
schedule: the iterations, slots and noise levels that decisions belong to, once for all records that share them. Every
line has a checksum over its content. The form of the lines is bundle.schema.json, which store/bundled.py checks on
reading.

JSON lines and not parquet: the pinned packages have no parquet library, and records are nested and differ in their
fields. gzip reduces equal settings of neighbouring records to a few bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import marshal
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

from store import checks, clips
from store.files import writing
from store.index import gc_paused
from store.record import CURVES, Record, StoreError
from store.store import Store

VERSION = 2  # of the format; raised by any change that an older program would misread
WITHOUT_PREVIEWS = 1  # version of a bundle that older programs can read
SUFFIX = ".jsonl.gz"
TOGETHER = 100  # lines that are packed at once
LEVEL = 4  # of gzip; raising it to 6: 7 % smaller files, more than twice the time
DECIMALS = {"psnr": 2}  # of per-frame values in a bundle: 0.01 dB
OTHER_DECIMALS = 4
SHARED = ("iteration", "segment", "unit", "slots", "active", "branch", "sigma", "step")  # of a decision, as scheduled
FIRST, BETWEEN = b'{"iteration":', b',"mode":"'  # how a line of a trace begins; what stands before its mode
MODES = {"cache": "c", "predict": "p", "recompute": "r"}
CELL_FILES = ("vbench",)  # folders of RESULTS with measurements over a whole cell
Line = tuple[str, Mapping[str, Any]]


def export(store: Store, path: Path, previews: bool = False) -> tuple[int, dict[str, str]]:
    """Write all records of `store` to `path`; returns their number, and which are left out and why.

    previews: also a small copy of each video (store/clips.py). The same records give the same bytes.

    Raises StoreError if `path` has another suffix or cannot be written, or a video cannot be read.
    """
    if not path.name.endswith(SUFFIX):
        raise StoreError(f"{path} cannot be a bundle; want a name that ends in {SUFFIX}, e.g. bundle{SUFFIX}")
    with gc_paused():
        lines, left = collect(store, previews)
        write(lines, path)
    return sum(kind == "record" for kind, _ in lines), left


def collect(store: Store, previews: bool = False) -> tuple[list[Line], dict[str, str]]:
    """The lines of a store as (kind, content), the first one included; and which records are left out, and why."""
    lines: list[Line] = []
    left: dict[str, str] = {}
    schedules = Schedules()
    for record in store.records():
        scores = checks.scores(record.path)
        folder, run = record.path, record.run
        found = chain(
            checks.faults(folder, run, "/".join(folder.parts[-3:-1]), ()), checks.faults_beside(folder, run, scores)
        )
        wrong = next(found, "")
        if wrong:
            left["/".join(folder.parts[-3:])] = wrong
            continue
        ledger, fresh = _ledger(record, schedules)
        lines += [("schedule", fresh)] if fresh else []
        content = _content(record, scores[0], ledger)
        lines.append(("record", content))
        clip = clips.of(record) if previews else ""
        lines += [("preview", clips.content(content, clip))] if clip else []
    left |= {str(path.relative_to(store.root)): why for path, why in sorted(store.damaged.items())}
    kinds = Counter(kind for kind, _ in lines)
    head: dict[str, Any] = {"records": kinds["record"], "files": dict(_cell_files(store.root))}
    head |= {"schema": VERSION, "previews": kinds["preview"]} if previews else {"schema": WITHOUT_PREVIEWS}
    return [("bundle", head), *lines], left


def write(lines: list[Line], path: Path) -> None:
    """Write lines to `path`, completely or not at all. Raises StoreError if the folder is not writable."""
    try:
        with (
            writing(path) as draft,
            draft.open("wb") as raw,
            gzip.GzipFile("", "wb", LEVEL, raw, mtime=0) as file,
            ThreadPoolExecutor(1) as packer,  # gzip works while the next lines are made
        ):
            last: Future[int] | None = None
            for start in range(0, len(lines), TOGETHER):
                text = "".join([_line(kind, content) for kind, content in lines[start : start + TOGETHER]])
                if last:
                    last.result()
                last = packer.submit(file.write, text.encode())
            if last:
                last.result()
    except OSError as error:
        raise StoreError(f"cannot write {path} ({error}); choose another file") from error


def _line(kind: str, content: Mapping[str, Any]) -> str:
    text = canonical(content)
    return f'{{"kind":"{kind}","sha256":"{sha256(text)}","content":{text}}}\n'


def is_bundle(place: Path) -> bool:
    """Whether a path names a bundle and no results folder."""
    return place.is_file() or place.name.endswith(SUFFIX)


def canonical(content: Mapping[str, Any]) -> str:
    """The JSON text that checksums are made of: names in order, no spaces, ASCII."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def sha256(text: str) -> str:
    """The checksum (hex) of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


class Schedules:
    """The schedules of a bundle so far, and the checksum of each."""

    def __init__(self) -> None:
        self._names: dict[bytes, str] = {}
        self._texts: dict[bytes, str] = {}  # by the text of the lines before their modes

    def known(self, places: list[tuple[bytes, bytes]]) -> str:
        """The checksum of the schedule that lines with the same text before their modes have had, or ""."""
        return self._texts.get(b"\n".join([place for _, place in places]), "") if places else ""

    def name(self, schedule: dict[str, list[Any]], places: list[tuple[bytes, bytes]]) -> tuple[str, bool]:
        """The checksum of a schedule, and whether it is new. `places`: the lines that it was read from, or none.

        Almost every record has a known schedule. `marshal` finds it in a quarter of the time of the checksum; in
        version 2 equal values of equal types have equal bytes.
        """
        packed = marshal.dumps(schedule, 2)
        name = self._names.get(packed) or sha256(canonical(schedule))
        fresh = name not in self._names.values()
        self._names[packed] = name
        if places:
            self._texts[b"\n".join([place for _, place in places])] = name
        return name, fresh


def _content(record: Record, quality: Mapping[str, Any] | None, ledger: Mapping[str, str] | None) -> dict[str, Any]:
    model, cell, key = record.path.parts[-3:]
    curves = (quality or {}).get(CURVES) or {}
    without = (CURVES, *checks.ADDED)
    found = {
        "model": model,
        "cell": cell,
        "key": key,
        "run": record.run,
        "scores": None if quality is None else {name: of for name, of in quality.items() if name not in without},
        "curves": {name: _curve(name, values) for name, values in curves.items() if values},
        "ledger": ledger,
    }
    return found if record.run.get("produced_by") else {**found, "config": record.config}


def _curve(name: str, values: list[float | None]) -> dict[str, Any]:
    """Per-frame values as whole numbers of 10^-decimals, each as the difference from the last known one.

    Differences are small, and so compress better.
    """
    decimals = DECIMALS.get(name, OTHER_DECIMALS)
    scale = 10**decimals
    whole = [None if value is None else round(value * scale) for value in values]
    known = [0, *(value for value in whole if value is not None)]
    steps = iter([after - before for before, after in pairwise(known)])
    return {"decimals": decimals, "steps": [None if value is None else next(steps) for value in whole]}


def _ledger(record: Record, schedules: Schedules) -> tuple[dict[str, str] | None, dict[str, list[Any]] | None]:
    """The decisions of a record as one letter each; and their schedule, if it is new."""
    path = record.path / "trace.jsonl"
    lines = path.read_bytes().splitlines() if path.exists() else []
    if not lines:
        return None, None
    places = _places(lines)
    known = schedules.known(places)
    if known:
        modes = "".join([MODES[line[len(place) + len(BETWEEN) :].split(b'"', 1)[0].decode()] for line, place in places])
        return {"schedule": known, "modes": modes}, None
    entries = json.loads(b"[%b]" % b",".join(lines))
    schedule = {name: [entry.get(name) for entry in entries] for name in SHARED}
    name, fresh = schedules.name(schedule, places)
    modes = "".join([MODES[entry["mode"]] for entry in entries])
    return {"schedule": name, "modes": modes}, schedule if fresh else None


def _places(lines: list[bytes]) -> list[tuple[bytes, bytes]]:
    """Every line of a trace, and its text before the mode, which holds the names of `SHARED` and no other.

    Empty if the lines are not as `engine.ledger.write` makes them. No text inside a JSON string equals `BETWEEN`.
    """
    places = [(line, line.split(BETWEEN, 1)[0]) for line in lines]
    whole = all(line.startswith(FIRST) and len(place) < len(line) and line.endswith(b"}") for line, place in places)
    return places if whole else []


def _cell_files(root: Path) -> Iterator[tuple[str, Any]]:
    for folder in CELL_FILES:
        for path in sorted((root / folder).glob("*/*.json")):
            yield path.relative_to(root).as_posix(), json.loads(path.read_bytes())
