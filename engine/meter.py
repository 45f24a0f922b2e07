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
    """`seconds` of wall time; `allocated` and `reserved` peak bytes (on a CPU both are the process's peak RSS)."""

    seconds: float = 0.0
    allocated: int = 0
    reserved: int = 0


@contextmanager
def meter(device: torch.device) -> Iterator[Cost]:
    """Measure what runs inside, with the device synchronised on both sides and never in between."""
    cost = Cost()
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    else:
        _reset_peak_rss()
    begin = time.perf_counter()
    try:
        yield cost
    finally:
        if cuda:
            torch.cuda.synchronize(device)
            cost.allocated = torch.cuda.max_memory_allocated(device)
            cost.reserved = torch.cuda.max_memory_reserved(device)
        else:
            cost.allocated = cost.reserved = _peak_rss()
        cost.seconds = time.perf_counter() - begin


def _reset_peak_rss() -> None:
    """Linux forgets a process's peak RSS when 5 is written here; elsewhere the peak is since its start."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _peak_rss() -> int:
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
