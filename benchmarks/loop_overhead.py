"""The time of an iteration without its forward: decision, bookkeeping and sampler step.

    python -m benchmarks.loop_overhead [model=skyreels_mid] [method=original,scope] [rounds=5]

Forwards are replaced by zeros. Schedule, signals, decisions, the history of velocities and the sampler are real. The
last line is one JSON object: `ms` of wall time per iteration of the slowest method, and `cpu_ms`. The fastest round
counts, since other load can only make a round slower.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.abab import conditions, in_turn, show, split
from benchmarks.common import composed, prompts_of
from engine.loop import generate
from engine.method import Method
from engine.row import Row
from sweep.calibration.rehearsal import Rehearsal
from terminal import tolerate

DEFAULTS = {"method": "original,scope", "rounds": "5"}


class Sampled(Rehearsal):
    """A Rehearsal with the model's own sampler."""

    def advance(self, latents: Tensor, row: Row, velocity: Tensor) -> Tensor:
        stepped: Tensor = self.model.advance(latents, row, velocity)
        return stepped


def overhead(model: Any, methods: dict[str, Method], text: Any, rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds per iteration, wall and CPU time, of every method."""
    free = Sampled(model, text)
    arms = {k: lambda m=m: generate(free, m, text, 0, []) for k, m in methods.items()}  # type: ignore[misc]
    for run in arms.values():
        run()
    spent, count = in_turn(arms, rounds, model.device), len(model.schedule())
    return {
        name: {
            "ms": min(s.seconds for s in runs) / count * 1e3,
            "cpu_ms": min(s.cpu_seconds for s in runs) / count * 1e3,
        }
        for name, runs in spent.items()
    }


def main(arguments: Sequence[str]) -> None:
    own, rest = split(arguments, DEFAULTS)
    methods, model, run = {}, None, None
    for name in own["method"].split(","):
        run, made, methods[name] = composed([f"method={name}", *rest])
        model = model or made
    assert model is not None and run is not None
    model.load()
    prompt = prompts_of(run, 1)[0]
    with torch.inference_mode():
        found = overhead(model, methods, model.conditioning(prompt, model.texts([prompt])), int(own["rounds"]))
    worst = max(found.values(), key=lambda row: row["ms"])
    show(
        f"{model.name}: milliseconds per iteration without the forward",
        ["method", "wall", "CPU"],
        [[name, f"{row['ms']:.3f}", f"{row['cpu_ms']:.3f}"] for name, row in found.items()],
        {
            "model": model.name,
            "frames": model.settings.frames,
            **worst,
            "methods": found,
            **conditions("loop_overhead", arguments, model.device),
        },
    )


if __name__ == "__main__":
    tolerate()
    main(sys.argv[1:])
