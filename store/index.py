"""An index of the records of a cell, so that they need not be opened: RESULTS/.cache/index/<model>/<cell>.json.

The index is derived from the records, always replaced as a whole, and safe to delete. An entry is valid only while the
file that it was read from has the same change time and size. Most of run.json is the same in all records of a cell, so
each record is stored as its difference from the first one.
"""

from __future__ import annotations

import gc
import json
import os
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from store.files import writing

VERSION = 1
SETTLED = 2 * 10**9  # ns, far above the time resolution of file systems
WITHIN = "\0"  # suffix of a name whose value is a difference; alone: the list of missing names
Seal = list[int]
"""Change time in ns and size of a file. A change time cannot be set back, and copying a store renews it."""


def seal(path: str | Path) -> Seal | None:
    """The seal (change time and size) of a file; None if it does not exist."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return [found.st_ctime_ns, found.st_size]


def settled(found: Seal | None) -> Seal | None:
    """The seal if the file's last change is old enough that a further change must have another time; else None."""
    return found if found and time.time_ns() - found[0] > SETTLED else None


@dataclass
class Entry:
    """The data of one record in the index."""

    run: dict[str, Any] | None = None
    of: Seal | None = None  # seal of the run.json that `run` was read from
    verified: dict[str, Seal] = field(default_factory=dict)  # file: its seal when its checksum was last right
    scores: dict[str, Any] | None = None
    scored: Seal | None = None  # seal of the quality.json that `scores` was read from
    fresh: bool = True  # not yet saved in the index file

    def scores_of(self, path: str, without: Collection[str]) -> dict[str, Any] | None:
        """The JSON object at `path` without its keys `without`; None if there is no such file."""
        now = seal(path)
        if self.scored is None or now != self.scored:
            content = None
            if now:
                with gc_paused(), open(path, "rb") as file:
                    content = json.loads(file.read())
            self.scores = {k: v for k, v in content.items() if k not in without} if content is not None else None
            self.scored, self.fresh = settled(now), True
        return self.scores


class Index:
    """The entries of one cell: {key: Entry}, unpacked when they are read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._base: list[dict[str, Any]] = [{}, {}]
        self._packed: dict[str, list[Any]] = {}
        self._entries: dict[str, Entry] = {}
        with suppress(OSError, ValueError, KeyError, TypeError), gc_paused():
            content = json.loads(path.read_bytes())
            if content["version"] == VERSION:
                self._base, self._packed = content["base"], content["records"]

    def __getitem__(self, key: str) -> Entry:
        """The entry of a record; an empty entry if the index does not have it."""
        if key not in self._entries:
            packed = self._packed.get(key)
            self._entries[key] = self._unpack(packed) if packed else Entry()
        return self._entries[key]

    def _unpack(self, packed: list[Any]) -> Entry:
        run, of, verified, scores, scored = packed
        scores = None if scores is None else merged(self._base[1], scores)
        return Entry(merged(self._base[0], run), of, verified, scores, scored, fresh=False)

    def save(self, staging: Path, least: int = 1) -> None:
        """Replace the file if at least `least` entries are newer. If it cannot be written, it is not changed."""
        fresh = {key: entry for key, entry in self._entries.items() if entry.fresh and entry.run and entry.of}
        if len(fresh) < least:
            return
        first = next(iter(fresh.values()))
        self._base = [self._base[0] or first.run or {}, self._base[1] or first.scores or {}]
        for key, entry in fresh.items():
            assert entry.run is not None
            scores = None if entry.scores is None else difference(self._base[1], entry.scores)
            run = difference(self._base[0], entry.run)
            self._packed[key] = [run, entry.of, entry.verified, scores, entry.scored]
            entry.fresh = False
        content = {"version": VERSION, "base": self._base, "records": self._packed}
        with suppress(OSError), writing(self.path, staging=staging) as draft:  # a full disk, a read-only folder
            draft.write_text(json.dumps(content, separators=(",", ":")))

    def forget(self, key: str) -> None:
        """Drop the entry of a record that was removed or replaced."""
        self._entries.pop(key, None)
        self._packed.pop(key, None)

    def __len__(self) -> int:
        return len(self._packed)


def difference(base: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """The changes from `base` to `other`, for `merged`. Nested mappings that are mostly equal are differences too.

    >>> difference({"a": 1, "b": {"c": 2, "d": 3}, "e": 4}, {"a": 1, "b": {"c": 2, "d": 5}})
    {'b\\x00': {'d': 5}, '\\x00': ['e']}
    """
    found: dict[str, Any] = {}
    for name, value in other.items():
        known = base.get(name)
        if isinstance(value, dict) and isinstance(known, dict):
            inner = difference(known, value)
            if 2 * len(inner) > len(value):
                found[name] = value
            elif inner:
                found[name + WITHIN] = inner
        elif name not in base or known != value or type(known) is not type(value):
            found[name] = value
    gone = [name for name in base if name not in other]
    return found | ({WITHIN: gone} if gone else {})


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes`; equal values are shared, not copied.

    >>> merged({"a": 1, "b": {"c": 2, "d": 3}, "e": 4}, {"b\\x00": {"d": 5}, "\\x00": ["e"]})
    {'a': 1, 'b': {'c': 2, 'd': 5}}
    """
    found = {**base, **changes}
    for name in [name for name in changes if name[-1:] == WITHIN]:
        del found[name]
        if name != WITHIN:
            found[name[:-1]] = merged(base[name[:-1]], changes[name])
    for lacking in changes.get(WITHIN, ()):
        del found[lacking]
    return found


@contextmanager
def gc_paused() -> Iterator[None]:
    """Pause the garbage collector: reading an index creates no garbage, and looking for it would take most time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
