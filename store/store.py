"""The store: finds, lists and writes records."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from store.checks import PREVIEW, faults, faults_beside, unsealed, with_seal
from store.claims import Claims
from store.files import FULL, HOST, abandoned, checksum, folders, fsync, owner, place, rename, writing
from store.index import Entry, Index, Seal, gc_paused, seal, settled
from store.record import OLDER_SPEEDS, SCHEMA, SEALED, Record, StoreError

RESERVED = frozenset({"report", "vbench", "plan", "multirun", "calibration"})  # folders of RESULTS that hold no records
ABANDONED = 24 * 3600.0  # seconds until an unfinished folder of another host counts as abandoned
log = logging.getLogger("store")
_active: set[Path] = set()  # the staging folders that this process is writing


@dataclass
class Stage:
    """A record while it is written: write files to `path`, and the content of run.json to `run`."""

    path: Path
    run: dict[str, Any] = field(default_factory=dict)
    record: Record | None = None  # after the block: the stored record, ours or that of the first writer
    first: bool = True  # after the block: False if another writer was first and ours was dropped

    def seal(self, **identity: Any) -> None:
        """Write run.json with the checksums of all files, and flush everything to disk."""
        present = [name for name in SEALED if (self.path / name).exists()]
        status, whole = self.run.get("status"), {"frames.mp4", "trace.jsonl"} <= {*present}
        if status not in ("invalid", "failed") and not (status == "ok" and whole):
            raise ValueError(f"want status failed, invalid or ok with frames, trace; got {status}, {present}")
        self.run |= identity | {"schema": SCHEMA, "files": {name: checksum(self.path / name) for name in present}}
        for name in present:
            fsync(self.path / name)  # keeps the change time that `checksum` noted
        with writing(self.path / "run.json") as draft:
            draft.write_text(json.dumps(with_seal(self.run), indent=1), encoding="utf-8")
        fsync(self.path)


class Store:
    """All records under `root`. Raises StoreError if `root` is read-only, or missing with create=False."""

    def __init__(self, root: str | os.PathLike, create: bool = True):
        self.root, self.staging = Path(root), Path(root) / ".staging"
        self.damaged: dict[Path, str] = {}  # after records(): damaged folders, and the reasons
        self.unsealed = 0  # after records(verify=True): number of records without seals, of older versions
        self.claims = Claims(self.root)
        self._indexes: dict[str, Index] = {}
        if not create and not self.root.is_dir():
            raise StoreError(f"no results folder {self.root}; give the folder that was set as results=FOLDER")
        try:
            if create:
                with writing(self.staging / ".writable") as draft:
                    draft.touch()
        except OSError as error:
            raise StoreError(f"cannot write {self.root} ({error}); choose another results=FOLDER") from error

    def cell(self, model: str, method: str, speed: str | None = None) -> str:
        """`model/method-speed`, the folder of a cell; ValueError if a name has other characters than a folder's."""
        return _cell(model, method, speed)

    def cache(self, kind: str, name: str) -> Path:
        """The path of a cached file, e.g. cache("text", "ab12.safetensors"). Write it with `writing`."""
        return self.root / ".cache" / kind / name

    def find(self, model: str, method: str, speed: str | None, key: str, verify: bool = True) -> Record | None:
        """The record of `key`, or None if the video has to be generated. Raises StoreError for a newer schema.

        With `verify`, every file that has changed since its checksum was last right is read again. Without it, only
        sizes are compared.
        """
        cell = self.cell(model, method, speed)
        found = self._load(f"{self.root}/{cell}/{key}", "changed" if verify else "", self._index(cell))
        if found is None and speed in OLDER_SPEEDS:
            return self.find(model, method, OLDER_SPEEDS[speed], key, verify)
        return found

    def records(self, verify: bool = False) -> Iterator[Record]:
        """Complete records in a stable order (model, cell, key). Sizes are checked. With `verify`, all checksums are
        compared too, and the checks of store/checks.py are made."""
        self.damaged.clear()
        self.unsealed = 0
        cells = (
            f"{model}/{cell}" for model in folders(self.root, RESERVED) for cell in folders(self.root / model, RESERVED)
        )
        for cell in cells:
            with gc_paused():
                found = [self._listed(cell, key, verify) for key in folders(self.root / cell, RESERVED)]
            yield from filter(None, found)
        self.remember(least=1 if verify else 64)

    def whole(self, folder: Path) -> bool:
        """Whether all files of a record have the sealed checksums. Reads every file."""
        return self._load(folder, "all") is not None

    def older(self, cell: str) -> int:
        """The number of records of a cell with older keys, which a sweep does not find."""
        keys = folders(self.root / cell, RESERVED) if (self.root / cell).is_dir() else []
        found = (self._listed(cell, key, False) for key in keys)
        return sum(record.older_key for record in found if record)

    def _listed(self, cell: str, key: str, verify: bool) -> Record | None:
        try:
            record = self._load(f"{self.root}/{cell}/{key}", "all" if verify else "", self._index(cell))
            if verify and record:
                wrong = next(faults_beside(record.path, record.run), "")
                self.unsealed += not wrong and unsealed(record.run)
                return self._reject(record.path, wrong) if wrong else record
            return record
        except StoreError as error:
            return self._reject(f"{self.root}/{cell}/{key}", str(error))

    def remember(self, least: int = 1) -> None:
        """Save the index of each cell with at least `least` new records."""
        if self.staging.is_dir():
            for index in self._indexes.values():
                index.save(self.staging, max(least, len(index) // 50))

    @contextmanager
    def stage(self, model: str, method: str, speed: str | None, key: str) -> Iterator[Stage]:
        """A folder for a new record. If the block ends without an error, it is renamed to its final path."""
        cell = self.cell(model, method, speed)
        place = self.root / cell / key
        stage = Stage(self.staging / f"{key}.{owner()}")
        _active.add(stage.path)
        try:
            stage.path.mkdir(parents=True)
            yield stage
            stage.seal(model=model, method=method, speed=speed, key=key)
            stage.first = self._settle(stage.path, place)
            self._index(cell).forget(key)
            stage.record = self._load(place, "", self._index(cell))
        except OSError as error:
            if error.errno in FULL:
                raise StoreError(f"disk full: {place} is not stored; free space and run it again") from error
            raise
        finally:
            shutil.rmtree(stage.path, ignore_errors=True)
            _active.discard(stage.path)

    def sweep(self) -> list[Path]:
        """Remove what ended processes left in .staging and .claims; returns the removed paths."""
        gone = []
        for path in sorted(self.staging.glob("*")):
            named = re.search(r"\.([A-Za-z0-9-]+)\.(\d+)\.\d+", path.name)
            if not named or path in _active:
                continue
            left = abandoned(named[1], int(named[2]))
            if left or (named[1] not in (HOST, place()) and time.time() - _last_change(path) > ABANDONED):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
                gone.append(path)
        return gone + self.claims.sweep()

    def _settle(self, staged: Path, place: Path) -> bool:
        """Rename a sealed folder to its final path; False if a complete record exists there."""

        def stands(folder: Path) -> bool:
            record = self._load(folder, "changed")
            return record is not None and record.status != "failed"

        place.parent.mkdir(parents=True, exist_ok=True)
        while not rename(staged, place):
            if stands(place):
                log.warning("another process stored %s first; its record is kept", place)
                return False
            aside = self.staging / f"{place.name}.{owner()}"  # a failed or damaged record is replaced
            if rename(place, aside) and stands(aside):
                rename(aside, place)  # meanwhile, a complete record was stored
            shutil.rmtree(aside, ignore_errors=True)
        fsync(place.parent)
        return True

    def _index(self, cell: str) -> Index:
        if cell not in self._indexes:
            self._indexes[cell] = Index(self.cache("index", f"{cell}.json"))
        return self._indexes[cell]

    def _load(self, folder: str | Path, read: str, index: Index | None = None) -> Record | None:
        """The record in `folder`, or None if it is damaged. Raises StoreError for a newer schema.

        read: the sealed files to compare with their checksums: "" none, "changed" those that may have changed since the
        last comparison, "all". `index`: the index of the cell, used and updated; None for a staging folder.
        """
        folder = os.fspath(folder)  # text, because creating a Path takes longer than os.stat
        key = os.path.basename(folder)
        entry = Entry() if index is None else index[key]
        now = seal(f"{folder}/run.json")
        if now is None:
            if index is not None:
                index.forget(key)
            return self._reject(folder, "it has no run.json") if os.path.exists(folder) else None
        if entry.run is None or entry.of != now or read == "all":
            try:
                with open(f"{folder}/run.json", "rb") as file:
                    entry.run, entry.of, entry.fresh = json.loads(file.read()), settled(now), True
            except FileNotFoundError:
                return self._load(folder, read, index)
            except ValueError:
                return self._reject(folder, "its run.json is not valid JSON")
        if not isinstance(entry.run, dict) or not isinstance(entry.run.get("schema", 0), int):
            entry.run = None
            return self._reject(folder, "its run.json is no mapping with a whole number as schema")
        if entry.run.get("schema", 0) > SCHEMA:
            raise StoreError(f"{folder} has schema {entry.run['schema']}, newer than {SCHEMA}; update the program")
        for name, sealed in (entry.run.get("files") or {}).items():
            if not _right(f"{folder}/{name}", name, sealed, entry, now, read):
                return self._reject(folder, f"{name} is missing, or its checksum differs")
        if read == "all":
            present = tuple(name for name in SEALED if name != PREVIEW and os.path.exists(f"{folder}/{name}"))
            for wrong in faults(Path(folder), entry.run, "/".join(Path(folder).parts[-3:-1]), present):
                return self._reject(folder, wrong)
        return Record(Path(folder), entry.run, entry)

    def reject(self, record: Record, why: str) -> None:
        """Count a record as damaged, for a fault that another part of the program found."""
        self._reject(record.path, why)

    def _reject(self, folder: str | Path, why: str) -> Record | None:
        log.warning("%s is ignored: %s", folder, why)
        self.damaged[Path(folder)] = why
        return None


def _right(path: str, name: str, sealed: Mapping[str, Any], entry: Entry, run_json: Seal, read: str) -> bool:
    """Whether the file at `path` exists and, depending on `read`, has the checksum of run.json."""
    found = seal(path)
    if found is None or found[1] != sealed["bytes"]:
        return False
    known = entry.verified.get(name) == found
    # sealed before run.json was written, by the same clock: any later change has a later time
    known = known or sealed.get("changed_ns") == found[0] < run_json[0]
    if not read or (known and read != "all"):
        return True
    if checksum(path)["sha256"] != sealed["sha256"]:
        entry.verified.pop(name, None)
        return False
    if not known and settled(found):
        entry.verified[name], entry.fresh = found, True
    return True


@lru_cache(maxsize=4096)
def _cell(model: str, method: str, speed: str | None) -> str:
    name = method if speed in (None, "", "none") else f"{method}-{speed}"
    for part in (model, name):
        if part in RESERVED or not re.fullmatch(r"\w[\w.+=-]*", part, re.ASCII):
            raise ValueError(f"{part!r} cannot name a folder of records; want letters, digits, _ . + = -")
    return f"{model}/{name}"


def _last_change(path: Path) -> float:
    """The time of the last change in a folder (seconds); infinity if the folder disappears meanwhile."""
    with suppress(OSError):
        return max(p.stat().st_mtime for p in (path, *path.glob("*")))
    return float("inf")
