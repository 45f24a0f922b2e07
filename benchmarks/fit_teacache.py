"""Fit TeaCache's polynomial for a model: from the change of an input signal to the change of the block stack's output.

    python -m benchmarks.fit_teacache [model=skyreels_tiny] [count=24] [signal=time_projection]

Runs the first `count` calibration prompts, which no result uses, without acceleration. For every active slot of every
row it records

    r = mean|m_i - m_{i-1}| / mean|m_{i-1}|   of the signal,    y = the same of the stack's output,

and fits y = p(r) of degree 4 by least squares (Liu et al. 2025, Sec. 3.3). Prints the coefficients, highest power
first, the range of r of the samples, R^2, and whether p is increasing on that range. The last line is one JSON object.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmarks.abab import split
from benchmarks.common import calibrating, calibration_texts, watched
from engine.discrepancy import Discrepancy
from engine.loop import generate
from engine.method import Method, Probe
from engine.row import Decision, Mode, Row, Site
from terminal import tolerate


@dataclass
class Watch(Method):
    """The Original; records the change of each slot's signal and of its block stack's output between steps."""

    signal: str = "time_projection"

    def __post_init__(self) -> None:
        self.pairs: list[tuple[float, float]] = []
        self.reset()

    def reset(self) -> None:
        self.input, self.output = Discrepancy(eps=0.0), Discrepancy(eps=0.0)
        self.r: list[float | None] = []

    def decide(self, part: Row, probe: Probe, branch: str = "") -> Decision:
        slots = part.updating
        signal = probe(self.signal)[slots[0] - part.slots.start : slots[-1] + 1 - part.slots.start]
        self.r = self.input.measure(slots, signal)
        self.input.remember(slots, signal)
        return Decision(Mode.RECOMPUTE)

    def sites(self, depth: int, row: Row) -> Sequence[Site]:
        return (Site("blocks", range(depth)),)

    def keep(self, site: Site, part: Row, x: Tensor, out: Tensor) -> None:
        if site.branch != "cond":
            return
        slots = part.updating
        stack = out[slots[0] - part.slots.start : slots[-1] + 1 - part.slots.start].clone()
        moved = self.output.measure(slots, stack)
        self.output.remember(slots, stack)
        self.pairs += [(r, y) for r, y in zip(self.r, moved, strict=True) if r is not None and y is not None]


def fit(pairs: Sequence[tuple[float, float]]) -> dict:
    """The polynomial of degree 4 fitted to pairs (r, y), with the quality of the fit."""
    r, y = np.array(pairs).T
    coefficients = np.polyfit(r, y, 4)
    guess = np.polyval(coefficients, r)
    low, high = np.quantile(r, [0.005, 0.995])
    curve = np.polyval(coefficients, np.linspace(low, high, 200))
    return {
        "coefficients": [float(f"{c:.8g}") for c in coefficients],
        "samples": len(r),
        "range": [float(low), float(high)],
        "r_squared": float(1 - ((y - guess) ** 2).sum() / ((y - y.mean()) ** 2).sum()),
        "rises": bool((np.diff(curve) >= 0).all()),
        "least": float(curve.min()),
    }


def main(arguments: Sequence[str]) -> None:
    own, rest = split(arguments, {"count": "24", "signal": "time_projection"})
    run, model, _ = calibrating(rest)
    watch = Watch(own["signal"])
    watch.check(model)
    texts = calibration_texts(model, run, int(own["count"]))
    for number, text in enumerate(watched(texts, "watching")):
        with torch.inference_mode():
            generate(model, watch, text, 10_000 + number, [])
    found = fit(watch.pairs)
    print("coefficients:", found["coefficients"])
    print(json.dumps({"model": model.name, "signal": watch.signal, "prompts": len(texts), **found}))


if __name__ == "__main__":
    tolerate()
    main(sys.argv[1:])
