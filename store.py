"""The store: one folder per generated video, named by a hash of what produced it.

    RESULTS/<model>/<method>[-<speed>]/<key>/
        config.yaml   the resolved settings             frames.mp4   lossless frames: metrics read only these
        trace.jsonl   the ledger, one decision a line   video.mp4    for people
        quality.json  added by the evaluation           run.json     written last: the mark of completion
    RESULTS/.staging/<key>.<host>.<pid>.<n>/  being written, renamed into place when whole
    RESULTS/.cache/<kind>/                    prompt embeddings and the like, safe to delete

An fsync and a rename ask nothing of a file system that a network share lacks. A rename onto a folder that is not
empty fails, so the first writer wins. `python -m store RESULTS` prints what is done, running, failed and missing.
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

SCHEMA = 1
RESERVED = frozenset({"report", "multirun"})  # folders of RESULTS that hold no records
SEALED = ("config.yaml", "frames.mp4", "trace.jsonl", "video.mp4")  # run.json holds their checksums
NEEDED = ("frames.mp4", "trace.jsonl")  # a record that is `ok` has these

log = logging.getLogger(__name__)
_count = itertools.count()
_active: set[Path] = set()  # the staging folders that this process is writing now


class StoreError(RuntimeError):
    """A store that cannot be written or read; the message says what to do."""


def fingerprint(produced: Mapping[str, Any]) -> str:
    """12 hex digits of a sha256 over what produced a video, whatever the order of its keys; floats count by repr.

    Raises:
        TypeError: a value that is not a mapping, list, tuple, string, number, bool or None.
        ValueError: a NaN or an infinity.

    >>> fingerprint({"a": 1, "b": [0.5]}) == fingerprint({"b": (0.5,), "a": 1}) != fingerprint({"a": 1.0, "b": [0.5]})
    True
    """

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(name): plain(item) for name, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        if value is None or isinstance(value, (str, bool, int, float)):
            return value
        raise TypeError(f"cannot fingerprint {value!r} ({type(value).__name__}); give its number or its name")

    text = json.dumps(plain(produced), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def checksum(path: Path) -> dict[str, Any]:
    """{"sha256": hex, "bytes": size} of a file."""
    with open(path, "rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "bytes": path.stat().st_size}


@contextmanager
def writing(path: Path, staging: Path | None = None) -> Iterator[Path]:
    """A name to write to, in `staging` or beside `path`; it becomes `path` at once when the block ends well."""
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
    def key(self) -> str:
        return self.path.name

    @property
    def status(self) -> str:
        """`ok`, `invalid` or `failed`; run["reason"] says why."""
        return self.run.get("status", "ok")

    @property
    def quality(self) -> dict[str, Any] | None:
        """quality.json; None if the video has not been scored, or if the file is damaged (which is logged)."""
        try:
            return json.loads((self.path / "quality.json").read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            log.warning("%s/quality.json cannot be read (%s); score the video again", self.path, error)
            return None

    @property
    def config(self) -> dict[str, Any]:
        """The resolved settings; empty if the record has none."""
        import yaml

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
    """A folder being filled: write files to `stage / name`, and what run.json shall say into `run`."""

    path: Path
    run: dict[str, Any] = field(default_factory=dict)
    record: Record | None = None  # after the block: what is in the place, ours or the first writer's
    first: bool = True  # after the block: False if another writer was first and ours was dropped

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def seal(self, **identity: Any) -> None:
        """Write run.json with the checksums of all that is there, everything flushed to disk."""
        present = [name for name in SEALED if (self / name).exists()]
        absent = [name for name in NEEDED if name not in present]
        if self.run.get("status") not in ("ok", "invalid", "failed"):
            raise ValueError(f"stage.run['status'] is {self.run.get('status')!r}; want ok, invalid or failed")
        if self.run["status"] == "ok" and absent:
            raise ValueError(f"a record that is ok needs {' and '.join(absent)}; write them to `stage / name`")
        self.run |= identity | {"schema": SCHEMA, "files": {name: checksum(self / name) for name in present}}
        for name in present:
            _fsync(self / name)
        with writing(self / "run.json") as draft:
            draft.write_text(json.dumps(self.run, indent=1))
        _fsync(self.path)


class Store:
    """All records under one folder; `damaged` says which folders in it do not count, and why.

    Args:
        root: the results folder; made if it does not exist.
        create: False to read only: a folder that does not exist is then an error.

    Raises:
        StoreError: the folder cannot be made, written or found.
    """

    def __init__(self, root: str | os.PathLike, create: bool = True):
        self.root, self.staging = Path(root), Path(root) / ".staging"
        self.damaged: dict[Path, str] = {}
        if not create and not self.root.is_dir():
            raise StoreError(f"no results folder {self.root}; give the one that results=FOLDER named")
        if create:
            try:
                with writing(self.staging / ".writable") as draft:
                    draft.touch()
            except OSError as error:
                why = error.strerror or error
                raise StoreError(f"cannot write to {self.root}: {why}; choose another with results=FOLDER") from error

    def cell(self, model: str, method: str, speed: str | None = None) -> str:
        """`model/method-speed`, the folder of one row of the table; ValueError for a name that is not plain."""
        name = method if speed in (None, "", "none") else f"{method}-{speed}"
        for part in (model, name):
            if part in RESERVED or not re.fullmatch(r"\w[\w.+=-]*", part, re.ASCII):
                raise ValueError(f"{part!r} cannot name a folder of records; use letters, digits and _ . + = -")
        return f"{model}/{name}"

    def cache(self, kind: str, name: str) -> Path:
        """Where something that can be made again is kept: cache("text", "ab12.safetensors"). See `writing`."""
        (self.root / ".cache" / kind).mkdir(parents=True, exist_ok=True)
        return self.root / ".cache" / kind / name

    def find(self, model: str, method: str, speed: str | None, key: str) -> Record | None:
        """The complete record of `key`, checksums verified, or None if it has to be made (again).

        Raises:
            StoreError: it was written by a newer version, whose schema this one cannot judge.
        """
        return self._load(self.root / self.cell(model, method, speed) / key, verify=True)

    def records(self) -> Iterator[Record]:
        """Complete records in a stable order (model, cell, key). Sizes are checked, checksums are not."""
        for model in _folders(self.root):
            for cell in _folders(model):
                for folder in map(Path, _folders(cell)):
                    try:
                        record = self._load(folder, verify=False)
                    except StoreError as error:
                        record = self._reject(folder, str(error))
                    if record:
                        yield record

    @contextmanager
    def stage(self, model: str, method: str, speed: str | None, key: str) -> Iterator[Stage]:
        """A folder to write a record into; it takes its place, whole, if the block ends without an exception."""
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
            if error.errno != errno.ENOSPC:
                raise
            raise StoreError(f"the disk of {self.root} is full: {place} was not stored. Free some space and run the "
                             "same command again") from error
        finally:
            shutil.rmtree(stage.path, ignore_errors=True)
            _active.discard(stage.path)

    def sweep(self) -> list[Path]:
        """Remove what dead processes of this host left in .staging, and say what that was."""
        gone = []
        for path in sorted(self.staging.iterdir()) if self.staging.is_dir() else []:
            owner = re.search(rf"\.{_host()}\.(\d+)\.\d+", path.name)
            if owner and path not in _active and not _alive(int(owner[1])):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
                gone.append(path)
        return gone

    def _settle(self, staged: Path, place: Path) -> bool:
        """Rename a sealed folder to its place; False if a record that stands is there already."""
        place.parent.mkdir(parents=True, exist_ok=True)
        while not _rename(staged, place):
            if self._stands(place):
                log.warning("%s was stored by another writer first; that one is kept", place)
                return False
            aside = self.staging / f"{place.name}.{_owner()}"  # a failed or damaged record makes room
            if _rename(place, aside) and self._stands(aside):  # a whole one slipped in meanwhile: put it back
                _rename(aside, place)
            shutil.rmtree(aside, ignore_errors=True)
        _fsync(place.parent)
        return True

    def _stands(self, folder: Path) -> bool:
        record = self._load(folder, verify=True)
        return record is not None and record.status != "failed"

    def _load(self, folder: Path, verify: bool) -> Record | None:
        try:
            with open(f"{folder}/run.json", "rb") as file:
                run = json.loads(file.read())
        except (FileNotFoundError, NotADirectoryError):
            return self._reject(folder, "it has no run.json") if folder.is_dir() else None
        except ValueError:
            return self._reject(folder, "its run.json is not JSON")
        if run.get("schema", 0) > SCHEMA:
            raise StoreError(f"{folder} has schema {run['schema']}, written by a newer version (this one reads up to "
                             f"{SCHEMA}); update the program, or choose another folder with results=FOLDER")
        for name, sealed in run.get("files", {}).items():
            path = folder / name if verify else f"{folder}/{name}"
            if not os.path.exists(path):
                return self._reject(folder, f"{name} is missing")
            if os.stat(path).st_size != sealed["bytes"] or verify and checksum(path) != sealed:
                return self._reject(folder, f"{name} is not what its checksum says")
        return Record(folder, run)

    def _reject(self, folder: Path, why: str) -> None:
        log.warning("%s does not count: %s", folder, why)
        self.damaged[folder] = why


def print_status(store: Store) -> None:
    """One row per cell: done, invalid, failed, damaged, and missing (prompt and seed that the model has elsewhere)."""
    from rich.console import Console
    from rich.table import Table

    counts, seen = defaultdict(Counter), defaultdict(set)
    for record in store.records():
        cell = tuple(record.path.parts[-3:-1])
        counts[cell][record.status] += 1
        seen[cell].add((record.run.get("prompt_id"), record.run.get("seed")))
    for folder in store.damaged:
        counts[tuple(folder.parts[-3:-1])]["damaged"] += 1
    table = Table("model", "method", box=None)
    for name in ("done", "invalid", "failed", "damaged", "missing"):
        table.add_column(name, justify="right")
    for cell in sorted(counts):
        model = set().union(*(found for other, found in seen.items() if other[0] == cell[0]))
        count = counts[cell]
        row = count["ok"], count["invalid"], count["failed"], count["damaged"], len(model - seen[cell])
        table.add_row(*cell, *(str(n) if n else "·" for n in row))
    console = Console()
    console.print(table if counts else f"no records in {store.root}")
    running = len(_folders(store.staging)) if store.staging.is_dir() else 0
    console.print(f"{sum(c.total() for c in counts.values())} records, {running} being written")


def _folders(parent: str | os.PathLike) -> list[str]:
    with os.scandir(parent) as entries:
        return sorted(e.path for e in entries if e.name[0] != "." and e.name not in RESERVED and e.is_dir())


def _rename(source: Path, target: Path) -> bool:
    """False if the target is taken or the source is gone: another writer was faster."""
    try:
        os.rename(source, target)
        return True
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
            return False
        raise


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())


def _owner() -> str:
    return f"{_host()}.{os.getpid()}.{next(_count)}"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid != os.getpid()  # not active in this process, so left by one that had its pid: containers reuse them


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit("usage: python -m store RESULTS")
    try:
        print_status(Store(sys.argv[1], create=False))
    except StoreError as error:
        sys.exit(str(error))
