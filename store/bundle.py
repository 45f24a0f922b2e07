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
import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from store import checks, clips
from store.files import writing
from store.index import gc_paused
from store.packed import Schedules, canonical, line, record_text
from store.record import Record, StoreError
from store.store import Store

VERSION = 2  # of the format; raised by any change that an older program would misread
WITHOUT_PREVIEWS = 1  # version of a bundle that older programs can read
SUFFIX = ".jsonl.gz"
TOGETHER = 100  # lines that are packed at once
LEVEL = 4  # of gzip; raising it to 6: 7 % smaller files, more than twice the time
CELL_FILES = ("vbench",)  # folders of RESULTS with measurements over a whole cell
Line = tuple[str, str]
"""The kind of a line, and the canonical text of its content."""


def export(store: Store, path: Path, previews: bool = False) -> tuple[int, dict[str, str]]:
    """Write all records of `store` to `path`; returns their number, and which are left out and why.

    previews: also a small copy of each video (store/clips.py). The same records give the same bytes.

    Raises StoreError if `path` has another suffix or cannot be written, or a video cannot be read.
    """
    if not path.name.endswith(SUFFIX):
        raise StoreError(f"{path} cannot be a bundle; want a name that ends in {SUFFIX}, e.g. bundle{SUFFIX}")
    lines, left = collect(store, previews)
    write(lines, path)
    return sum(kind == "record" for kind, _ in lines), left


@gc_paused()
def collect(store: Store, previews: bool = False) -> tuple[list[Line], dict[str, str]]:
    """The lines of a store, the first one included; and which records are left out, and why."""
    lines: list[Line] = []
    left: dict[str, str] = {}
    schedules = Schedules()
    for record in store.records():
        found, wrong = _lines(record, schedules, previews)
        lines += found
        if wrong:
            left["/".join(record.path.parts[-3:])] = wrong
    left |= {str(path.relative_to(store.root)): why for path, why in sorted(store.damaged.items())}
    kinds = Counter(kind for kind, _ in lines)
    head: dict[str, Any] = {"records": kinds["record"], "files": dict(_cell_files(store.root))}
    head |= {"schema": VERSION, "previews": kinds["preview"]} if previews else {"schema": WITHOUT_PREVIEWS}
    return [("bundle", canonical(head)), *lines], left


def _lines(record: Record, schedules: Schedules, previews: bool) -> tuple[list[Line], str]:
    """The lines of a record, its schedule included if that is new; and why it is left out, or ""."""
    folder, text = record.path, canonical(record.run)
    cell = "/".join(folder.parts[-3:-1])
    scores = checks.scores(folder)
    sealed = checks.holds_as_written(text, str(record.run.get(checks.SEAL)))
    wrong = next(checks.faults(folder, record.run, cell, (), sealed), "")
    wrong = wrong or next(checks.faults_beside(folder, record.run, scores), "")
    if wrong:
        return [], wrong
    path = folder / "trace.jsonl"
    ledger, fresh = schedules.decisions(path.read_bytes() if path.exists() else b"")
    lines = [("schedule", canonical(fresh))] if fresh else []
    lines.append(("record", record_text(record, text, scores.content, ledger)))
    clip = clips.of(record) if previews else ""
    return lines + ([("preview", canonical(clips.content(record.path, clip)))] if clip else []), ""


@gc_paused()
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
                packed = "".join([line(kind, text) for kind, text in lines[start : start + TOGETHER]])
                if last:
                    last.result()
                last = packer.submit(file.write, packed.encode())
            if last:
                last.result()
    except OSError as error:
        raise StoreError(f"cannot write {path} ({error}); choose another file") from error


def is_bundle(place: Path) -> bool:
    """Whether a path names a bundle and no results folder."""
    return place.is_file() or place.name.endswith(SUFFIX)


def _cell_files(root: Path) -> Iterator[tuple[str, Any]]:
    for folder in CELL_FILES:
        for path in sorted((root / folder).glob("*/*.json")):
            yield path.relative_to(root).as_posix(), json.loads(path.read_bytes())
