"""Estimated time of each table and figure of the paper on one A800, from the paper's own times.

    python -m benchmarks.paper_cost

The paper gives the time of the Original and of a run with fewer steps. The two times give a line: a fixed part (text,
decoding) and seconds per PFLOP of the denoiser. SkyReels-V2: 1452.41 s at 244.78 PFLOP, and 330.08 s at a fifth of it.
MAGI-1: 791.08 s at 64 steps with 80.98 PFLOP, and 332.66 s at 20 steps. A video takes the fixed part plus its PFLOPs at
that rate. Its PFLOPs are those of the schedule times the share that the paper's table line executes, if the operating
point has it; else all of them, an overestimate. Prints a markdown table of hours per prompt.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.common import composed
from conf.schema import options
from engine.ledger import flops, plan
from engine.method import Original
from sweep.experiments import choices, expanded, read
from terminal import tolerate

PUBLISHED = {  # model: seconds of the Original, seconds with fewer steps, share of the steps of the latter
    "skyreels": (1452.41, 330.08, 10 / 50),
    "magi1": (791.08, 332.66, 20 / 64),
}
PFLOP = {"skyreels": 244.78, "magi1": 80.98}  # of the Original, as counted here


def line(model: str) -> tuple[float, float]:
    """(fixed seconds, seconds per PFLOP) on the paper's A800.

    >>> [round(part, 2) for part in line("skyreels")]
    [49.5, 5.73]
    """
    whole, fewer, share = PUBLISHED[model]
    slope = (whole - fewer) / (1 - share)
    return whole - slope, slope / PFLOP[model]


def seconds(model: str, pflop: float) -> float:
    """Estimated seconds of an A800 for one video of `model` that executes `pflop` PFLOP in its denoiser."""
    fixed, rate = line(model)
    return fixed + rate * pflop


def cells(arguments: Sequence[str]) -> Iterator[list[str]]:
    """The overrides of each cell of one sweep's command line."""
    lists = [[f"{key}={value}" for value in values] for key, values in choices(arguments).items()]
    yield from (list(cell) for cell in itertools.product(*lists))


def videos(overrides: Sequence[str]) -> Iterator[tuple[str, str, float]]:
    """(model, key of the video, executed PFLOP) of a cell's video and of the Original that it needs."""
    run, model, method = composed([*overrides, "model.weights=random", "device=cpu"])
    _, base, _ = composed([o for o in overrides if o.startswith("model")] + ["model.weights=random", "device=cpu"])
    yield model.name, json.dumps(asdict(base.settings), default=str), _pflop(base, Original())
    if not isinstance(method, Original) or type(method) is not Original:
        share = run.point.expects.get("flops_pf", PFLOP[model.name]) / PFLOP[model.name]
        yield model.name, json.dumps([*overrides]), min(_pflop(model, method), _pflop(base, Original()) * share)


def _pflop(model: Any, method: Any) -> float:
    dense, _ = flops(plan([method.narrow(row) for row in model.schedule()]), model.price)
    return dense / 1e15


def hours(experiment: str) -> dict[str, float]:
    """Estimated hours per model and prompt of all videos that an experiment generates, each video once."""
    found: dict[tuple[str, str], float] = {}
    for arguments in expanded([f"experiment={experiment}", f"model={','.join(PUBLISHED)}"]):
        if any(argument == "task=plan" for argument in arguments):
            continue
        for cell in cells(arguments):
            overrides = [o for o in cell if not o.startswith(("task=", "prompts."))]
            for model, video, pflop in videos(overrides):
                found[model, video] = seconds(model, pflop)
    return {model: sum(s for (m, _), s in found.items() if m == model) / 3600 for model in PUBLISHED}


def main() -> None:
    print("| experiment | SkyReels-V2, hours per prompt | MAGI-1, hours per prompt |\n|---|---:|---:|")
    for experiment in options("experiment"):
        if {"sweeps", "includes"} & set(read(experiment)) and experiment != "plan":
            found = hours(experiment)
            print(f"| {experiment} | {found['skyreels']:.2f} | {found['magi1']:.2f} |", flush=True)


if __name__ == "__main__":
    tolerate()
    main()
