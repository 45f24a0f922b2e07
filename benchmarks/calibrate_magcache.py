"""Measure MagCache's table for a model and its schedule: the ratio of the block stack's residual between steps.

    python -m benchmarks.calibrate_magcache [model=skyreels_tiny] [count=8]

Runs the first `count` calibration prompts, which no result uses, without acceleration. For every updating slot at its
own step k and every guidance branch it records

    gamma_k = mean over tokens of ||R_k|| / ||R_{k-1}||,     R = x_out - x_in of the block stack (Ma et al. 2025, Eq. 4)

Prints the mean over slots and prompts with its spread. The last line is one JSON object. Copy its `ratios` (and
`ratios_uncond`) to conf/point/<model>/magcache_<speed>.yaml.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from baselines.shared.site_memory import Memory
from benchmarks.abab import split
from benchmarks.common import calibrating, calibration_texts, watched
from engine.loop import generate
from engine.method import Method
from engine.row import Row, Site
from terminal import tolerate


@dataclass
class Weigh(Method):
    """The Original; records the ratio of residual norms of every updating slot at each of its steps."""

    def __post_init__(self) -> None:
        self.found: dict[tuple[str, int], list[float]] = defaultdict(list)  # by branch and step
        self.reset()

    def reset(self) -> None:
        self.residual = Memory()

    def sites(self, depth: int, row: Row) -> Sequence[Site]:
        return (Site("blocks", range(depth)),)

    def keep(self, site: Site, part: Row, x: Tensor, out: Tensor) -> None:
        residual = out - x
        if "+" not in site.branch:
            seen = self.residual.at.get(site)
            where = [
                i
                for i, (slot, k) in enumerate(zip(part.slots, part.step, strict=True))
                if part.active[i] and k > 0 and seen is not None and seen.count(slot)
            ]
            if where and seen is not None:
                before = seen.last([part.slots[i] for i in where]).float()
                ratio = residual[where].float().norm(dim=-1) / (before.norm(dim=-1) + 1e-8)
                for i, value in zip(where, ratio.flatten(1).mean(1).tolist(), strict=True):
                    self.found[site.branch, part.step[i]].append(value)
        self.residual.push(site, part, residual)

    def table(self, branch: str, steps: int) -> tuple[list[float], list[float]]:
        """Means and standard deviations by step; step 0 has no step before it and counts as 1."""
        values = [self.found.get((branch, k), [1.0]) for k in range(steps)]
        return [float(np.mean(v)) for v in values], [float(np.std(v)) for v in values]


def main(arguments: Sequence[str]) -> None:
    own, rest = split(arguments, {"count": "8"})
    run, model, _ = calibrating(rest)
    texts, weigh = calibration_texts(model, run, int(own["count"])), Weigh()
    for number, text in enumerate(watched(texts, "weighing")):
        with torch.inference_mode():
            generate(model, weigh, text, 10_000 + number, [])
    found = {"model": model.name, "prompts": len(texts), "steps": model.schedule()[0].steps}
    for branch in [b for b in model.branches if b in ("cond", "uncond")]:
        means, spread = weigh.table(branch, model.schedule()[0].steps)
        name = "ratios" if branch == "cond" else "ratios_uncond"
        found[name] = [round(value, 5) for value in means]
        print(f"{branch}: least {min(means):.4f}, greatest {max(means):.4f}, largest spread {max(spread):.4f}")
    print(json.dumps(found))


if __name__ == "__main__":
    tolerate()
    main(sys.argv[1:])
