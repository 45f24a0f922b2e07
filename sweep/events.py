"""What the work tells of itself, and where that is printed; nothing here needs torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from conf.schema import Run
from store import Record
from terminal import console

out = console()
if not out.is_terminal:
    out.width = 120  # a log file has no width of its own

Notify = Callable[..., None]
"""Receives events as plain values, which can be sent to another process: "cell" label, remaining videos (None: no own
videos), place; "video" key, label, prompt, rows, place; "row"; "made" status, seconds or None; "failed" a line; "say" a
text. The place is the number of the cell in the sweep (Order in sweep/cell.py)."""


class DeviceLost(RuntimeError):
    """The accelerator's context of this process is broken. Further videos need another process."""


def nobody(*event: Any) -> None:
    """Tells nobody."""


def wanted(record: Record | None, run: Run) -> bool:
    """Whether a video is to be made, given the record that the store has of it."""
    return record is None or (run.retry_failed and record.status == "failed")
