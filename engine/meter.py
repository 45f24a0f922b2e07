"""Seconds and peak memory of a block of code, measured at its start and its end."""

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
    """`seconds` of wall time, peak bytes `allocated` and `reserved`, and the bytes held `before` the block began.

    On a CPU all three are the resident memory of the whole process. They depend on what the process did before.
    """

    seconds: float = 0.0
    allocated: int = 0
    reserved: int = 0
    before: int = 0


@contextmanager
def meter(device: torch.device) -> Iterator[Cost]:
    """Measure the code inside the context. The device is synchronised at the start and at the end only."""
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
    """Reset the peak RSS of this process (Linux only; elsewhere the peak counts from the start of the process)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _rss(field: str) -> int:
    """Resident bytes of this process: "VmRSS" at present, "VmHWM" the peak. Without /proc: always the peak."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
