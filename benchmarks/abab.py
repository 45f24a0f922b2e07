"""Timing several variants in turn in one process (A B A B ...), so that a drift of the machine affects all equally."""

from __future__ import annotations

import ctypes
import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from engine.environment import environment
from engine.meter import meter


@dataclass(frozen=True)
class Spent:
    """The cost of one run of one variant ("arm")."""

    seconds: float  # wall time
    cpu_seconds: float  # CPU time of all threads of the process; more reliable on a busy machine
    peak: int  # peak bytes; allocated on a GPU, resident on a CPU


def in_turn(arms: Mapping[str, Callable[[], Any]], rounds: int, device: torch.device) -> dict[str, list[Spent]]:
    """`rounds` runs of every arm, in turn. The caller runs each arm once before, as a warm-up.

    Raises ValueError for fewer than one round.
    """
    if rounds < 1:
        raise ValueError(f"rounds={rounds}; want at least 1, and 2 for A B A B")
    spent: dict[str, list[Spent]] = {name: [] for name in arms}
    for _ in range(rounds):
        for name, run in arms.items():
            _give_back()
            begin = time.process_time()
            with meter(device) as cost:
                run()
            spent[name].append(Spent(cost.seconds, time.process_time() - begin, cost.allocated))
    return spent


def _give_back() -> None:
    """Return free pages to the system. The C library keeps them resident, and the next arm would count them."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim:
            trim(0)


def ratio(spent: Mapping[str, Sequence[Spent]], over: str, under: str, what: str = "seconds") -> float:
    """The geometric mean over rounds of the arm `over` / the arm `under`; `what` is a field of Spent."""
    pairs = zip(spent[over], spent[under], strict=True)
    logs = [math.log(getattr(a, what) / getattr(b, what)) for a, b in pairs]
    return math.exp(sum(logs) / len(logs))


def peak_ratio(spent: Mapping[str, Sequence[Spent]], over: str, under: str) -> float:
    """The largest peak of the arm `over` / that of the arm `under`."""
    return max(s.peak for s in spent[over]) / max(s.peak for s in spent[under])


def split(arguments: Sequence[str], defaults: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """A benchmark's own `name=value` arguments with its defaults, and the other arguments, for the configuration."""
    own = dict(defaults) | dict(a.split("=", 1) for a in arguments if a.split("=", 1)[0] in defaults)
    return own, [a for a in arguments if a.split("=", 1)[0] not in defaults]


def conditions(name: str, arguments: Sequence[str], device: torch.device) -> dict[str, Any]:
    """Machine, command and date of a result. If `load` is above `threads`, wall times are not reliable."""
    return {
        "command": " ".join(["python", "-m", f"benchmarks.{name}", *arguments]),
        "date": date.today().isoformat(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "environment": environment(device),
    }


def plain(spent: Mapping[str, Sequence[Spent]]) -> dict[str, Any]:
    """Every run of every arm, for JSON."""
    return {name: [asdict(one) for one in runs] for name, runs in spent.items()}


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], found: Mapping[str, Any]) -> None:
    """Print a table, and then `found` as one JSON object on the last line."""
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    print(json.dumps(found))
