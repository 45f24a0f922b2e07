"""Find MeanCache's schedule for a model: the computed steps, and the number of steps K that correct the skipped ones.

    python -m benchmarks.fit_meancache [model=skyreels_tiny] [budget=20] [count=2] [gamma=2]

Runs the first `count` calibration prompts, which no result uses, without acceleration. Let steps i and j be computed
one after the other, x the latents, v the velocities and s the noise levels of the Original. The cost of this gap is

    C = mean| v_i - (s_j - s_a) J - (x_j - x_a) / (s_j - s_a) |        a = i + 1;  J: see baselines/meancache.py
    C = 0  if  j = a, since nothing is skipped

as a mean over slots and prompts. The schedule is the path from step 0 to the end with at most `budget` computed steps
and the smallest sum of C^gamma; every gap has its best K of 1 to 6. The paper describes this search but the release
does not include it: the cost's norm, the places of the window and gamma are ours. x after the last step is Euler's.
Prints the schedule as an operating point, for conf/point/<model>/meancache_<speed>.yaml.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.abab import split
from benchmarks.common import calibrating, calibration_texts, watched
from engine.loop import generate
from engine.method import Method
from engine.row import VELOCITY, Row, Site
from terminal import tolerate

LONGEST = 6  # largest K, as in the release
MADE_FOR = ("name", "steps", "frames")  # settings of the model that the schedule belongs to
Costs = dict[tuple[int, int], tuple[float, int]]  # (step i, step j): the smallest C and its K


@dataclass
class Watch(Method):
    """The Original; records latent, velocity and noise levels of every slot at each of its steps."""

    def __post_init__(self) -> None:
        self.seen: dict[tuple[int, int], list[tuple[Tensor, Tensor, float, float]]] = {}  # by segment and slot

    def sites(self, depth: int, row: Row) -> Sequence[Site]:
        return (VELOCITY,)

    def keep(self, site: Site, part: Row, x: Tensor, out: Tensor) -> None:
        for i, slot in enumerate(part.slots):
            if part.active[i]:
                found = x[i].float().cpu().clone(), out[i].float().cpu().clone(), part.sigma[i], part.sigma_next[i]
                self.seen.setdefault((part.segment, slot), []).append(found)


def costs(runs: Sequence[Sequence[tuple[Tensor, Tensor, float, float]]]) -> Costs:
    """The smallest cost of every gap and its K; `runs`: the steps of every slot as `Watch` records them."""
    steps = len(runs[0])
    x = torch.stack([torch.stack([step[0].flatten() for step in run]) for run in runs], 1)  # (steps, slots, values)
    v = torch.stack([torch.stack([step[1].flatten() for step in run]) for run in runs], 1)
    s = [step[2] for step in runs[0]] + [runs[0][-1][3]]
    x = torch.cat([x, (x[-1] + v[-1] * (s[steps] - s[steps - 1]))[None]])
    found: Costs = {(i, i + 1): (0.0, 1) for i in range(steps)}
    for i in range(steps):
        a = i + 1
        for span in range(1, min(LONGEST, a) + 1):
            gap = s[a] - s[a - span]
            slope = (v[a - span] - (x[a] - x[a - span]) / gap) / gap if span > 1 else torch.zeros_like(v[i])
            for j in range(a + 1, steps + 1):
                error = v[i] - (s[j] - s[a]) * slope - (x[j] - x[a]) / (s[j] - s[a])
                found[i, j] = min(found.get((i, j), (math.inf, 1)), (float(error.abs().mean()), span))
    return found


def shortest(found: Costs, steps: int, budget: int, gamma: float) -> tuple[list[int], list[int]]:
    """The computed steps, at most `budget`, with the smallest sum of C^gamma, and K after each of them."""
    best: list[dict[int, tuple[float, list[int]]]] = [{0: (0.0, [0])}]  # by number of computed steps: by the last one
    ends: list[tuple[float, list[int]]] = []
    for number in range(1, budget + 1):
        grown: dict[int, tuple[float, list[int]]] = {}
        for i, (total, path) in best[-1].items():
            ends.append((total + found[i, steps][0] ** gamma, path))
            for j in range(i + 1, steps if number < budget else i + 1):
                grown[j] = min(grown.get(j, (math.inf, [])), (total + found[i, j][0] ** gamma, [*path, j]))
        best.append(grown)
    path = min(ends)[1]
    return path, [found[i, j][1] for i, j in zip(path, [*path[1:], steps], strict=True)]


def main(arguments: Sequence[str]) -> None:
    own, rest = split(arguments, {"count": "2", "budget": "20", "gamma": "2"})
    run, model, _ = calibrating(rest)
    steps, budget = model.schedule()[0].steps, int(own["budget"])
    if not 1 <= budget <= steps:
        raise ValueError(f"budget wants 1 to {steps} computed steps, as many as {model.name} has; got {budget}")
    texts = calibration_texts(model, run, int(own["count"]))
    runs: list[Any] = []
    for number, text in enumerate(watched(texts, "watching")):
        watch = Watch()
        generate(model, watch, text, 10_000 + number, [])
        runs += [one for one in watch.seen.values() if len(one) == steps]
    computed, spans = shortest(costs(runs), steps, budget, float(own["gamma"]))
    made_for = ", ".join(f"{name}: {getattr(model.settings, name)}" for name in MADE_FOR)
    print("# @package _global_")
    print(f"# python -m benchmarks.fit_meancache {' '.join(arguments)}")
    print(f"method: {{computed: [{computed}], spans: [{spans}], made_for: {{{made_for}}}}}")
    print("point:\n  estimated: false")
    many = "prompt" if len(texts) == 1 else "prompts"
    print(f"  why: {len(computed)} computed steps of {steps}, found on {len(texts)} calibration {many}")


if __name__ == "__main__":
    tolerate()
    main(sys.argv[1:])
