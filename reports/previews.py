"""RESULTS/report/previews: the small copies of videos that bundles hold, as files beside the page."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from store import Record, writing
from store.bundled import Bundled

FOLDER = "previews"


def name(record: Record) -> str:
    """The path from the page to the preview of a record: its key and 8 digits of its content; "" without a preview."""
    clip = record.clip if isinstance(record, Bundled) else ""
    return f"{FOLDER}/{record.path.name}-{hashlib.sha256(clip.encode()).hexdigest()[:8]}.mp4" if clip else ""


def write(records: Sequence[Record], folder: Path) -> None:
    """Write the previews of records into `folder`/previews, and remove those of an earlier report."""
    named = {name(record): record for record in records if isinstance(record, Bundled) and record.clip}
    for path in (folder / FOLDER).glob("*.mp4"):
        if f"{FOLDER}/{path.name}" not in named:
            path.unlink()
    for place, record in named.items():
        with writing(folder / place) as draft:
            draft.write_bytes(record.preview or b"")
