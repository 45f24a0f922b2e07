"""Measure SenCache's tables for a model and its schedule: how much the velocity follows the latent and the noise level.

    python -m benchmarks.calibrate_sencache [model=skyreels_tiny] [count=4]

Runs the first `count` calibration prompts, which no result uses, without acceleration. With v(x, s) the velocity at the
latent x and the noise level s, for every updating slot at its own step k it records

    Jx = |v(x_next, s) - v(x, s)| / |x_next - x|
    Jt = |v(x_next, s_next) - v(x_next, s)| / |s_next - s|             norms: root mean squares over the slot

which takes one forward more per row. The last step has no next one; it gets the Jt of the step before. Prints the means
over slots and prompts. The last line is one JSON object. Copy its `latent` and `time` to
conf/point/<model>/sencache_<speed>.yaml.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.abab import split
from benchmarks.common import calibrating, calibration_texts, velocity, watched
from engine.row import Row
from terminal import tolerate


class Sensitivities:
    """The values of Jx and Jt that were found, by step."""

    def __init__(self) -> None:
        self.latent: dict[int, list[float]] = defaultdict(list)
        self.time: dict[int, list[float]] = defaultdict(list)

    @torch.inference_mode()
    def measure(self, model: Any, text: Any, seed: int) -> None:
        """Denoise one video and record every step of every slot."""
        latents, segment = model.start(text, seed), None
        ahead: dict[int, tuple[Tensor, float, int]] = {}  # v(x_next, s), s and the step, by slot
        for row in model.schedule():
            if row.segment != segment:
                latents, segment, ahead = model.open(latents, row), row.segment, {}
            now = velocity(model, latents, row)
            for slot in row.updating:
                i = slot - row.slots.start
                if slot in ahead:
                    expected, level, k = ahead[slot]
                    self.time[k].append(norm(now[i] - expected) / abs(row.sigma[i] - level))
            before = latents[row.slots.start : row.slots.stop].clone()
            latents = model.advance(latents, row, now.clone())
            if row.updating:
                self._follow(row, before, now, latents, velocity(model, latents, row), ahead)

    def _follow(
        self, row: Row, before: Tensor, now: Tensor, latents: Tensor, then: Tensor, ahead: dict[int, Any]
    ) -> None:
        for slot in row.updating:
            i = slot - row.slots.start
            step = norm(latents[slot] - before[i])
            self.latent[row.step[i]].append(norm(then[i] - now[i]) / step if step else 0.0)
            ahead[slot] = then[i].clone(), row.sigma[i], row.step[i]

    def tables(self, steps: int) -> tuple[list[float], list[float]]:
        """The means of Jx and Jt by step."""
        latent = [float(np.mean(self.latent[k])) for k in range(steps)]
        time = [float(np.mean(self.time[k])) for k in range(steps - 1)]
        return latent, [*time, time[-1] if time else 0.0]


def norm(x: Tensor) -> float:
    """The root mean square."""
    return float(x.float().square().mean().sqrt())


def main(arguments: Sequence[str]) -> None:
    own, rest = split(arguments, {"count": "4"})
    run, model, _ = calibrating(rest)
    texts, found = calibration_texts(model, run, int(own["count"])), Sensitivities()
    for number, text in enumerate(watched(texts, "measuring")):
        found.measure(model, text, 10_000 + number)
    steps = model.schedule()[0].steps
    latent, time = ([float(f"{value:.4g}") for value in table] for table in found.tables(steps))
    print(f"latent: {min(latent)} to {max(latent)}, time: {min(time)} to {max(time)}")
    print(json.dumps({"model": model.name, "prompts": len(texts), "steps": steps, "latent": latent, "time": time}))


if __name__ == "__main__":
    tolerate()
    main(sys.argv[1:])
