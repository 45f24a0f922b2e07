"""One finished video as others see it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from store.checks import ADDED, SCORES, bound
from store.files import writing
from store.index import Entry

SCHEMA = 1
KEY_VERSION = 2  # how keys are made (docs/records.md), in run.json; 1, not written there: of the method's source text
SEALED = ("config.yaml", "frames.mp4", "trace.jsonl", "video.mp4")  # run.json holds their checksums
CURVES = "per_frame"  # of quality.json: long lists that only a figure reads


class StoreError(RuntimeError):
    """What is wrong with the store, and what to do."""


@dataclass(frozen=True)
class Record:
    """One finished video: its folder and its run.json. The other files are read when asked for."""

    path: Path
    run: dict[str, Any]  # not to be changed: records of a cell share what is equal in them
    entry: Entry = field(default_factory=Entry, compare=False, repr=False)  # what the index knows of it

    @property
    def status(self) -> str:
        """`ok`, `invalid` or `failed`; run["reason"] says why."""
        return self.run.get("status", "ok")

    @property
    def older_key(self) -> bool:
        """Whether the key was made in an older way, so that no sweep of today finds this record."""
        return int(self.run.get("key_version", 1)) < KEY_VERSION

    @property
    def quality(self) -> dict[str, Any] | None:
        """quality.json, or None if the video has not been scored."""
        path = self.path / "quality.json"
        content = json.loads(path.read_bytes()) if path.exists() else None
        return {k: v for k, v in content.items() if k not in ADDED} if isinstance(content, dict) else content

    @property
    def scores(self) -> dict[str, Any] | None:
        """quality.json without its curves, from the index where that is up to date."""
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
        """Add or replace a JSON file, whole or not at all; ValueError for a file that run.json seals.

        Scores are sealed, and bound to the frames that run.json names.
        """
        if name in SEALED or name == "run.json":
            raise ValueError(f"{name} is what the key stands for and never changes; write another file")
        with writing(self.path / name, staging=self.path.parents[2] / ".staging") as draft:
            written = bound(content, self.run) if name == SCORES else content
            draft.write_text(json.dumps(written, indent=1), encoding="utf-8")
