"""Whether RESULTS/report is still the report of what is in RESULTS, so that the same is not drawn again.

`report/.made.json` holds a digest of what the report was made of (records, plans, measurements, and the code that makes
reports), of the files that were written, and what was said on the terminal.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from store.files import writing

REPORT, NOTE = "report", ".made.json"
CODE = Path(__file__).resolve().parents[1] / "reports"


def unchanged(results: Path) -> dict[str, Any] | None:
    """What `note` was told when the report was made; None if it has to be made (again)."""
    folder = results / REPORT
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads((folder / NOTE).read_text(encoding="utf-8"))
        if known["of"] == _made_of(results) and known["files"] == _digest(_seals(folder)):
            return dict(known["said"])
    return None


def note(results: Path, said: dict[str, Any]) -> None:
    """Remember that the report has just been made, and what was said of it."""
    folder = results / REPORT
    known = {"of": _made_of(results), "files": _digest(_seals(folder)), "said": said}
    with suppress(OSError), writing(folder / NOTE) as draft:
        draft.write_text(json.dumps(known), encoding="utf-8")


def _made_of(results: Path) -> str:
    """Folders with a dot in front hold nothing that a report shows."""
    inputs = [
        seal
        for path in sorted(results.iterdir())
        if path.name != REPORT and not path.name.startswith(".")
        for seal in _seals(path)
    ]
    return _digest([*inputs, *(seal for seal in _seals(CODE) if ".pyc" not in seal)])


def _seals(path: Path) -> Iterator[str]:
    """Name, size and time of change of every file below a folder, but for the note."""
    for folder, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            if name != NOTE:
                at = os.stat(os.path.join(folder, name))
                yield f"{os.path.relpath(folder, path)}/{name}|{at.st_size}|{at.st_mtime_ns}"


def _digest(seals: Any) -> str:
    return hashlib.sha256("\n".join(seals).encode(errors="surrogateescape")).hexdigest()
