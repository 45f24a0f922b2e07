"""The Original timed again beside a video that is generated long after it, or while the machine has another load.

A speedup divides two times, so both should be taken under the same conditions. Cells of one sweep take turns
(sweep/turns.py); an Original from an earlier command may have been timed on a busier or an idler machine. It is then
denoised and decoded once more, without being stored: the record of the late video gets the new times as
`original_again`, and reports divide by them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import psutil
from torch import Tensor

from engine.produce import Produced, forget, produce
from store import Record

LATE = 1800.0  # seconds after an Original from which it is timed again; raising it: fewer, older times


@dataclass
class TimedAgain:
    """Times Originals again, up to `bound` seconds in all; 0: never."""

    bound: float
    spent: float = 0.0
    known: dict[str, dict[str, Any]] = field(default_factory=dict)  # by key of the Original

    def beside(self, original: Record | None, run: Callable[[], Produced]) -> dict[str, Any]:
        """`{"original_again": times}` for the record of a video that is generated now, {} if its Original's times do.

        Args:
            original: the record of its Original, as it is stored.
            run: generates the Original; its frames are not stored.
        """
        if original is None or original.status != "ok" or not apart(original.run):
            return {}
        key, seconds = original.path.name, original.run.get("seconds") or {}
        if key in self.known and not apart(self.known[key]):
            return {"original_again": self.known[key]}
        expected = float(seconds.get("denoise") or 0) + float(seconds.get("decode") or 0)
        if self.spent + expected > self.bound:
            return {}
        began, load = datetime.now(UTC).isoformat(timespec="milliseconds"), psutil.getloadavg()
        made = run()
        if made.reason:
            return {}
        times = {"denoise": made.denoise.seconds, "decode": made.decode.seconds}
        self.spent += sum(times.values())
        times["total"] = sum(times.values())
        self.known[key] = {"seconds": times, "began": began, "load": load}
        return {"original_again": self.known[key]}


def apart(run: dict[str, Any]) -> bool:
    """Whether a video whose record says `run` was timed long ago, or while this machine had another load.

    Another load: the mean number of running processes differed by more than the number of processors. Records from
    before these times were recorded are not apart.
    """
    began, load = run.get("began"), run.get("load")
    if not began or not load:
        return False
    age = time.time() - datetime.fromisoformat(began).timestamp()
    return age > LATE or abs(psutil.getloadavg()[0] - load[0]) > (os.cpu_count() or 1)


def again(model: Any, method: Any, text: Any, seed: int) -> Produced:
    """Generate a video, drop its frames and release its memory."""

    def drop(batches: Sequence[Tensor]) -> None:
        """Frames are of no use here: they are those of the record."""

    made = produce(model, method, text, seed, drop)  # type: ignore[arg-type]
    forget(model, method)
    return made
