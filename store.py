"""The store: one folder per generated video, named by a hash of what produced it.

    RESULTS/<model>/<method>[-<speed>]/<key>/
        config.yaml, trace.jsonl    the resolved settings; the ledger, one decision a line
        frames.mp4, video.mp4       lossless frames, all that metrics read; a copy for people
        run.json, quality.json      written last, the mark of completion; added by the evaluation
    RESULTS/.staging/<key>.<host>.<pid>.<n>/   being written, renamed into place when whole
    RESULTS/.cache/<kind>/                     prompt embeddings and the like, safe to delete

A rename onto a folder that is not empty fails, on a network share too: the first writer wins without a lock.
"""

import errno
import hashlib
import itertools
import json
import logging
import os
import re
import shutil
import socket
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

SCHEMA = 1
RESERVED = frozenset({"report", "vbench", "plan", "multirun"})  # folders of RESULTS that hold no records
SEALED = ("config.yaml", "frames.mp4", "trace.jsonl", "video.mp4")  # run.json holds their checksums
log = logging.getLogger(__name__)
_host = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())
_count = itertools.count()
_active: set[Path] = set()  # the staging folders that this process is writing now


class StoreError(RuntimeError):
    """What is wrong with the store, and what to do."""


def fingerprint(produced: Mapping[str, Any]) -> str:
    """12 hex digits of a sha256 over what produced a video: JSON values in any order, no NaN, floats by repr.

    >>> fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": (2,), "a": 1}) != fingerprint({"a": 1, "b": 2})
    True
    """
    return hashlib.sha256(json.dumps(produced, sort_keys=True, allow_nan=False).encode()).hexdigest()[:12]


def checksum(path: str | Path) -> dict[str, Any]:
    """{"sha256": hex, "bytes": size} of a file."""
    with open(path, "rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "bytes": os.stat(path).st_size}


@contextmanager
def writing(path: Path, staging: Path | None = None) -> Iterator[Path]:
    """A name to write to, in `staging` or beside `path`; it becomes `path` when the block ends well."""
    draft = (staging or path.parent) / f".{path.stem}.{_owner()}{path.suffix}"
    draft.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield draft
        _fsync(draft)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


@dataclass(frozen=True)
class Record:
    """One finished video: its folder and its run.json. The other files are read when asked for."""

    path: Path
    run: dict[str, Any]

    @property
    def status(self) -> str:
        """`ok`, `invalid` or `failed`; run["reason"] says why."""
        return self.run.get("status", "ok")

    @property
    def quality(self) -> dict[str, Any] | None:
        """quality.json, or None if the video has not been scored."""
        path = self.path / "quality.json"
        return json.loads(path.read_bytes()) if path.exists() else None

    @property
    def config(self) -> dict[str, Any]:
        """The resolved settings; empty if the record has none."""
        path = self.path / "config.yaml"
        return (yaml.safe_load(path.read_text()) or {}) if path.exists() else {}

    def trace(self) -> list[dict[str, Any]]:
        """The ledger, one mapping per decision in order; empty if the run ended before the first."""
        path = self.path / "trace.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def write_json(self, name: str, content: Any) -> None:
        """Add or replace a JSON file, whole or not at all; ValueError for a file that run.json seals."""
        if name in SEALED or name == "run.json":
            raise ValueError(f"{name} is what the key stands for and never changes; write another file")
        with writing(self.path / name, staging=self.path.parents[2] / ".staging") as draft:
            draft.write_text(json.dumps(content, indent=1))


@dataclass
class Stage:
    """A folder being filled: write files to stage.path, and what run.json shall say into `run`."""

    path: Path
    run: dict[str, Any] = field(default_factory=dict)
    record: Record | None = None  # after the block: what is in the place, ours or the first writer's
    first: bool = True  # after the block: False if another writer was first and ours was dropped

    def seal(self, **identity: Any) -> None:
        """Write run.json with the checksums of all that is there, everything flushed to disk."""
        present = [name for name in SEALED if (self.path / name).exists()]
        status, whole = self.run.get("status"), {"frames.mp4", "trace.jsonl"} <= {*present}
        if status not in ("invalid", "failed") and not (status == "ok" and whole):
            raise ValueError(f"want status failed, invalid or ok with frames, trace; got {status}, {present}")
        self.run |= identity | {"schema": SCHEMA, "files": {name: checksum(self.path / name) for name in present}}
        for name in present:
            _fsync(self.path / name)
        with writing(self.path / "run.json") as draft:
            draft.write_text(json.dumps(self.run, indent=1))
        _fsync(self.path)


class Store:
    """All records under `root`, made unless create=False. StoreError if it cannot be written, or found."""

    def __init__(self, root: str | os.PathLike, create: bool = True):
        self.root, self.staging = Path(root), Path(root) / ".staging"
        self.damaged: dict[Path, str] = {}  # after records(): the folders that do not count, and why
        if not create and not self.root.is_dir():
            raise StoreError(f"no results folder {self.root}; give the one that results=FOLDER named")
        try:
            if create:
                with writing(self.staging / ".writable") as draft:
                    draft.touch()
        except OSError as error:
            raise StoreError(f"cannot write {self.root} ({error}); choose another results=FOLDER") from error

    def cell(self, model: str, method: str, speed: str | None = None) -> str:
        """`model/method-speed`, the folder of a row of the table; ValueError for a name that is not plain."""
        name = method if speed in (None, "", "none") else f"{method}-{speed}"
        for part in (model, name):
            if part in RESERVED or not re.fullmatch(r"\w[\w.+=-]*", part, re.ASCII):
                raise ValueError(f"{part!r} cannot name a folder of records; want letters, digits, _ . + = -")
        return f"{model}/{name}"

    def cache(self, kind: str, name: str) -> Path:
        """Where to keep what can be made again: cache("text", "ab12.safetensors"); write it by `writing`."""
        return self.root / ".cache" / kind / name

    def find(self, model: str, method: str, speed: str | None, key: str) -> Record | None:
        """The record of `key`, checksums verified, or None if it has to be made; StoreError: newer schema."""
        return self._load(self.root / self.cell(model, method, speed) / key, verify=True)

    def records(self) -> Iterator[Record]:
        """Complete records in a stable order (model, cell, key). Sizes are checked, checksums are not."""
        self.damaged.clear()
        for folder in (Path(f) for m in _folders(self.root) for cell in _folders(m) for f in _folders(cell)):
            try:
                record = self._load(folder, verify=False)
            except StoreError as error:
                record = self._reject(folder, str(error))
            if record:
                yield record

    @contextmanager
    def stage(self, model: str, method: str, speed: str | None, key: str) -> Iterator[Stage]:
        """A folder to write a record into; it takes its place, whole, if the block ends well."""
        place = self.root / self.cell(model, method, speed) / key
        stage = Stage(self.staging / f"{key}.{_owner()}")
        _active.add(stage.path)
        try:
            stage.path.mkdir(parents=True)
            yield stage
            stage.seal(model=model, method=method, speed=speed, key=key)
            stage.first = self._settle(stage.path, place)
            stage.record = self._load(place, verify=False)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise StoreError(f"disk full: {place} is not stored; free space and run it again") from error
            raise
        finally:
            shutil.rmtree(stage.path, ignore_errors=True)
            _active.discard(stage.path)

    def sweep(self) -> list[Path]:
        """Remove what dead processes of this host left in .staging, and say what that was."""
        gone = []
        for path in sorted(self.staging.glob("*")):
            owner = re.search(rf"\.{_host}\.(\d+)\.\d+", path.name)
            if not owner or path in _active:
                continue
            pid = int(owner[1])  # ours but not active: left by an earlier process, as containers reuse the numbers
            if pid == os.getpid() or not psutil.pid_exists(pid):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
                gone.append(path)
        return gone

    def _settle(self, staged: Path, place: Path) -> bool:
        """Rename a sealed folder to its place; False if a record that stands is there already."""

        def stands(folder: Path) -> bool:
            record = self._load(folder, verify=True)
            return record is not None and record.status != "failed"

        place.parent.mkdir(parents=True, exist_ok=True)
        while not _rename(staged, place):
            if stands(place):
                log.warning("%s was stored by another writer first; that one is kept", place)
                return False
            aside = self.staging / f"{place.name}.{_owner()}"  # a failed or damaged record makes room
            if _rename(place, aside) and stands(aside):
                _rename(aside, place)  # a whole one had slipped in meanwhile
            shutil.rmtree(aside, ignore_errors=True)
        _fsync(place.parent)
        return True

    def _load(self, folder: Path, verify: bool) -> Record | None:
        try:
            with open(f"{folder}/run.json", "rb") as file:
                run = json.loads(file.read())
        except FileNotFoundError:
            return self._reject(folder, "it has no run.json") if folder.exists() else None
        except ValueError:
            return self._reject(folder, "its run.json is not JSON")
        if run.get("schema", 0) > SCHEMA:
            raise StoreError(f"{folder} has schema {run['schema']}, newer than {SCHEMA}; update the program")
        for name, sealed in run.get("files", {}).items():
            path, size = f"{folder}/{name}", sealed["bytes"]  # text: a Path costs more than the look at the file
            if not os.path.exists(path) or os.stat(path).st_size != size or (verify and checksum(path) != sealed):
                return self._reject(folder, f"{name} is missing, or not what its checksum says")
        return Record(folder, run)

    def _reject(self, folder: Path, why: str) -> Record | None:
        log.warning("%s does not count: %s", folder, why)
        self.damaged[folder] = why
        return None


def print_status(store: Store) -> None:
    """A row per cell: ok, invalid, failed, damaged, and missing: a video that its model has elsewhere."""
    from rich import print
    from rich.table import Table

    counts: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    seen: dict[tuple[str, ...], set[tuple]] = defaultdict(set)
    for record in store.records():
        cell = record.path.parts[-3:-1]
        counts[cell][record.status] += 1
        seen[cell].add((record.run.get("prompt_id"), record.run.get("seed")))
    for folder in store.damaged:
        counts[folder.parts[-3:-1]]["damaged"] += 1
    columns, running = ("ok", "invalid", "failed", "damaged", "missing"), len([*store.staging.glob("[!.]*")])
    table = Table("model", "method", *columns, title=f"{store.root}: {running} being written")
    for cell in sorted(counts):
        counts[cell]["missing"] = len(set().union(*(seen[c] for c in seen if c[0] == cell[0])) - seen[cell])
        table.add_row(*cell, *(str(counts[cell][name] or "") for name in columns))
    print(table if counts else f"no records in {store.root}")


def _folders(parent: str | Path) -> list[str]:
    with os.scandir(os.fspath(parent)) as entries:
        return sorted(e.path for e in entries if e.name[0] != "." and e.name not in RESERVED and e.is_dir())


def _rename(source: Path, target: Path) -> bool:
    """False if the target is taken or the source is gone: another writer was faster."""
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
            raise
        return False
    return True


def _owner() -> str:
    return f"{_host}.{os.getpid()}.{next(_count)}"


def _fsync(path: Path) -> None:
    os.fsync(handle := os.open(path, os.O_RDONLY))  # not open(): a folder too
    os.close(handle)


if __name__ == "__main__":
    try:
        print_status(Store((sys.argv[1:] or ["results"])[0], create=False))
    except StoreError as error:
        sys.exit(str(error))
