"""A finished video in the store."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from store.checks import ADDED, CURVES, SCORES, bound
from store.files import writing
from store.index import Entry

SCHEMA = 1
KEY_VERSION = 2  # in run.json: how the key was computed (docs/records.md); records without it have version 1
SEALED = ("config.yaml", "frames.mp4", "trace.jsonl", "video.mp4")  # run.json holds their checksums


OLDER_SPEEDS = {f"table2_row{n}": f"row{n}" for n in range(1, 6)}  # what older records call an operating point


class StoreError(RuntimeError):
    """An error of the store. The message says what is wrong and what to do."""


@dataclass(frozen=True)
class Record:
    """A finished video: its folder and its run.json. The other files are read on demand."""

    path: Path
    run: dict[str, Any]  # read-only: records of a cell share equal values
    entry: Entry = field(default_factory=Entry, compare=False, repr=False)  # its entry in the index

    @property
    def status(self) -> str:
        """`ok`, `invalid` or `failed`; run["reason"] says why."""
        return self.run.get("status", "ok")

    @property
    def speed(self) -> str:
        """The operating point by its present name; "" where the record names none."""
        name = self.run.get("speed")
        now = {older: newer for newer, older in OLDER_SPEEDS.items()}
        return "" if name in (None, "none") else now.get(name, str(name))

    @property
    def older_key(self) -> bool:
        """Whether the key has an older version, so that new sweeps do not find this record."""
        return int(self.run.get("key_version", 1)) < KEY_VERSION

    @property
    def quality(self) -> dict[str, Any] | None:
        """quality.json, or None if the video has not been scored."""
        path = self.path / "quality.json"
        content = json.loads(path.read_bytes()) if path.exists() else None
        return {k: v for k, v in content.items() if k not in ADDED} if isinstance(content, dict) else content

    @property
    def scores(self) -> dict[str, Any] | None:
        """quality.json without its curves; from the index if that is up to date."""
        return self.entry.scores_of(f"{self.path}/{SCORES}", (CURVES, *ADDED))

    @property
    def config(self) -> dict[str, Any]:
        """The resolved settings; empty if the record has none."""
        path = self.path / "config.yaml"
        return (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.exists() else {}

    def trace(self) -> list[dict[str, Any]]:
        """The ledger, one mapping per decision in order; empty if the run ended before the first."""
        path = self.path / "trace.jsonl"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []

    def write_json(self, name: str, content: Any) -> None:
        """Add or replace a JSON file atomically. Raises ValueError for a file with a checksum in run.json.

        Scores get a seal and the checksum of the frames.
        """
        if name in SEALED or name == "run.json":
            raise ValueError(f"{name} belongs to the sealed record and must not change; write another file")
        with writing(self.path / name, staging=self.path.parents[2] / ".staging") as draft:
            written = bound(content, self.run) if name == SCORES else content
            draft.write_text(json.dumps(written, indent=1), encoding="utf-8")
