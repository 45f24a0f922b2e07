"""Bundles: the records of a store in one file, without videos, to hand to others.

    python -m store export RESULTS bundle.jsonl.gz

A bundle is a gzip file of JSON lines. The first row holds the version of the format and the number of records. Each
further row is a record (run.json, scores, per-frame metrics, decisions) or a schedule: the iterations, slots and noise
levels that decisions belong to, once for all records that share them. Every row has a checksum over its content. The
form of the rows is bundle.schema.json, which store/bundled.py checks on reading.

JSON lines and not parquet: the pinned packages have no parquet library, and records are nested and differ in their
fields. gzip reduces equal settings of neighbouring records to a few bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from store.checks import faults as contradictions
from store.checks import faults_beside
from store.files import writing
from store.index import gc_paused
from store.record import CURVES, Record, StoreError
from store.store import Store

VERSION = 1  # of the format; raised by any change that an older program would misread
SUFFIX = ".jsonl.gz"
DECIMALS = {"psnr": 2}  # of per-frame values in a bundle: 0.01 dB
OTHER_DECIMALS = 4
SHARED = ("iteration", "segment", "unit", "slots", "active", "branch", "sigma", "step")  # of a decision, as scheduled
MODES = {"cache": "c", "predict": "p", "recompute": "r"}
CELL_FILES = ("vbench",)  # folders of RESULTS with measurements over a whole cell
Row = tuple[str, Mapping[str, Any]]


def export(store: Store, path: Path) -> tuple[int, dict[str, str]]:
    """Write all records of `store` to `path`; returns their number, and which are left out and why.

    The same records give the same bytes. Raises StoreError if `path` has another suffix or cannot be written.
    """
    if not path.name.endswith(SUFFIX):
        raise StoreError(f"{path} cannot be a bundle; want a name that ends in {SUFFIX}, e.g. bundle{SUFFIX}")
    with gc_paused():
        rows, left = collect(store)
        write(rows, path)
    return sum(kind == "record" for kind, _ in rows), left


def collect(store: Store) -> tuple[list[Row], dict[str, str]]:
    """The rows of a store as (kind, content), the first one included; and which records are left out, and why."""
    rows: list[Row] = []
    left: dict[str, str] = {}
    known: set[str] = set()
    for record in store.records():
        place = "/".join(record.path.parts[-3:])
        wrong = next(_faults(record), "")
        if wrong:
            left[place] = wrong
            continue
        ledger, schedule = _ledger(record)
        if ledger and ledger["schedule"] not in known:
            known.add(ledger["schedule"])
            rows.append(("schedule", schedule))
        rows.append(("record", _content(record, ledger)))
    left |= {str(path.relative_to(store.root)): why for path, why in sorted(store.damaged.items())}
    count = sum(kind == "record" for kind, _ in rows)
    head = {"schema": VERSION, "records": count, "files": dict(_cell_files(store.root))}
    return [("bundle", head), *rows], left


def write(rows: list[Row], path: Path) -> None:
    """Write rows to `path`, completely or not at all. Raises StoreError if the folder is not writable."""
    try:
        with writing(path) as draft, draft.open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as file:
            for kind, content in rows:
                text = canonical(content)
                file.write(f'{{"kind":"{kind}","sha256":"{sha256(text)}","content":{text}}}\n'.encode())
    except OSError as error:
        raise StoreError(f"cannot write {path} ({error}); choose another file") from error


def is_bundle(place: Path) -> bool:
    """Whether a path names a bundle and no results folder."""
    return place.is_file() or place.name.endswith(SUFFIX)


def canonical(content: Mapping[str, Any]) -> str:
    """The JSON text that checksums are made of: names in order, no spaces, ASCII."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def sha256(text: str) -> str:
    """The checksum (hex) of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def _faults(record: Record) -> Iterator[str]:
    """Why a record must not be exported: its files contradict each other."""
    cell = "/".join(record.path.parts[-3:-1])
    yield from contradictions(record.path, record.run, cell, ())
    yield from faults_beside(record.path, record.run)


def _content(record: Record, ledger: Mapping[str, str] | None) -> dict[str, Any]:
    model, cell, key = record.path.parts[-3:]
    quality = record.quality
    curves = (quality or {}).get(CURVES) or {}
    scores = None if quality is None else {name: value for name, value in quality.items() if name != CURVES}
    found = {
        "model": model,
        "cell": cell,
        "key": key,
        "run": record.run,
        "scores": scores,
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
    steps, last = [], 0
    for value in whole:
        steps.append(None if value is None else value - last)
        last = last if value is None else value
    return {"decimals": decimals, "steps": steps}


def _ledger(record: Record) -> tuple[dict[str, str] | None, dict[str, list[Any]]]:
    """The decisions of a record as one letter each, and their schedule."""
    path = record.path / "trace.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    if not lines:
        return None, {}
    entries = json.loads(f"[{','.join(lines)}]")
    schedule = {name: [entry.get(name) for entry in entries] for name in SHARED}
    modes = "".join(MODES[entry["mode"]] for entry in entries)
    return {"schedule": sha256(canonical(schedule)), "modes": modes}, schedule


def _cell_files(root: Path) -> Iterator[tuple[str, Any]]:
    for folder in CELL_FILES:
        for path in sorted((root / folder).glob("*/*.json")):
            yield path.relative_to(root).as_posix(), json.loads(path.read_bytes())
