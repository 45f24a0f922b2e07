"""Seconds and peak memory of a span, measured from outside it."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass
class Cost:
    """`seconds` of wall time; `allocated` and `reserved` peak bytes, and `before`, the bytes held as the span began.

    On a CPU all three are the resident memory of the whole process, and depend on what it did before.
    """

    seconds: float = 0.0
    allocated: int = 0
    reserved: int = 0
    before: int = 0


@contextmanager
def meter(device: torch.device) -> Iterator[Cost]:
    """Measure what runs inside, with the device synchronised on both sides and never in between."""
    cost = Cost()
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        cost.before = torch.cuda.memory_allocated(device)
    else:
        _reset_peak_rss()
        cost.before = _rss("VmRSS")
    begin = time.perf_counter()
    try:
        yield cost
    finally:
        if cuda:
            torch.cuda.synchronize(device)
            cost.allocated = torch.cuda.max_memory_allocated(device)
            cost.reserved = torch.cuda.max_memory_reserved(device)
        else:
            cost.allocated = cost.reserved = _rss("VmHWM")
        cost.seconds = time.perf_counter() - begin


def _reset_peak_rss() -> None:
    """Linux forgets a process's peak RSS when 5 is written here; elsewhere the peak is since its start."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _rss(field: str) -> int:
    """Resident bytes of this process: "VmRSS" now, "VmHWM" at the most; elsewhere than on Linux at the most."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
