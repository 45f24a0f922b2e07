"""What an out-of-memory error costs: a sweep on a simulated device that holds the Original's videos, not the method's.

    python -m benchmarks.memory_limit [model=skyreels_mid] [method=taylorseer] [prompts=2] [model.steps=4]

The Original, the method and `uniform` take turns, prompt by prompt. The limit lies halfway between the peaks of the
Original and of the method, weights included. Each video of the method must fail, all others must be made, and the
Original's peak must be the same before and after a failure. The last line is one JSON object; the exit status is 1 if
one of these does not hold.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from benchmarks.abab import conditions, show, split
from benchmarks.simulated_memory import SimulatedMemory
from conf.schema import CONF
from conf.words import quoted, words
from store import Store
from sweep.cell import Cell, Order
from sweep.make_videos import resident
from sweep.run_cell import perform
from terminal import tolerate

DEFAULTS = {"method": "taylorseer", "prompts": "2"}
EQUAL = 0.01  # relative difference of two peaks that count as the same


def cell(name: str, results: str, rest: Sequence[str], prompts: str) -> Cell:
    """A cell of a sweep on the CPU. Raises ConfigError."""
    own = [f"method={name}", f"prompts.limit={prompts}", f"results={quoted(results)}", "device=cpu", "score=false"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        model = [] if any(word.startswith("model=") for word in rest) else ["model=skyreels_mid"]
        config = compose("config", overrides=words([*model, *own, *rest]))
    return Cell.of(Order(OmegaConf.to_yaml(config), name, None))


def peaks(cells: Sequence[Cell], limit: float = float("inf")) -> dict[str, list[float]]:
    """Do the cells on a device with `limit` bytes: the peak during every video, by method, in order."""
    found: dict[str, list[float]] = {}
    now = ""

    def told(*event: Any) -> None:
        nonlocal now
        if event[0] == "video":
            now, memory.peak = event[2].split()[1], memory.live
        elif event[0] == "made":
            found.setdefault(now, []).append(memory.peak)

    resident.release()
    with SimulatedMemory(limit) as memory:
        perform(cells, told)
        resident.release()
    return found


def measured(name: str, prompts: str, rest: Sequence[str]) -> dict[str, Any]:
    """The peaks without a limit, and what became of every video with one."""
    with tempfile.TemporaryDirectory() as free, tempfile.TemporaryDirectory() as tight:
        alone = peaks([cell(one, free, rest, "1") for one in ("original", name)])
        low, high = alone["original"][0], next(values[0] for one, values in alone.items() if one != "original")
        names = ("original", name, "uniform")
        limited = peaks([cell(one, tight, rest, prompts) for one in names], (low + high) / 2)
        records = list(Store(tight, create=False).records())
    failed = [r.run["reason"] for r in records if r.run["method"] == name and r.status == "failed"]
    others = [r.status for r in records if r.run["method"] != name]
    return {
        "original_peak": low,
        "method_peak": high,
        "limit": (low + high) / 2,
        "failed": len(failed),
        "ok": others.count("ok"),
        "original_peaks_under_the_limit": limited["original"],
        "held": bool(failed)
        and len(failed) == int(prompts)
        and all(torch.OutOfMemoryError.__name__ in reason for reason in failed)
        and others == ["ok"] * (2 * int(prompts))
        and all(abs(peak / low - 1) <= EQUAL for peak in limited["original"]),
    }


def main(arguments: Sequence[str]) -> int:
    own, rest = split(arguments, DEFAULTS)
    found = measured(own["method"], own["prompts"], rest)
    rows = [[name, str(value)] for name, value in found.items()]
    show(
        "an out-of-memory on a simulated device",
        ("what", "value"),
        rows,
        found | conditions("memory_limit", arguments, torch.device("cpu")),
    )
    return int(not found["held"])


if __name__ == "__main__":
    tolerate()
    sys.exit(main(sys.argv[1:]))
