"""Find the setting of a method's main knob that executes a wanted fraction of the Original's FLOPs, and write it down.

    python -m benchmarks.operating_point method=scope target=0.19 speed=fast [model=skyreels_tiny] [real=2] [write=true]

Bisects the knob (SCOPE: tau_predict at a fixed tau_cache : tau_predict, `ratio=`; TeaCache: threshold; uniform:
interval) in a rehearsal, whose forwards are free, or with `real=N` on the last N prompts of the suite where decisions
depend on content. `write=true` writes conf/point/<model>/<method>_<speed>.yaml with its evidence. The last line is
one JSON object.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.common import composed, prompts_of, rehearse, video
from conf.schema import CONF
from engine.ledger import Entry, flops, plan
from engine.method import Method

KNOBS: dict[str, tuple[str, float, float]] = {  # method: its knob, from dearest to cheapest
    "scope": ("tau_predict", 0.0, 4.0),
    "teacache": ("threshold", 0.0, 4.0),
    "uniform": ("interval", 1.0, 50.0),
}


def turn(method: Method, knob: str, value: float, ratio: float) -> Method:
    """The method with its knob at `value`; SCOPE's two thresholds move together."""
    changed = {knob: value} | ({"tau_cache": ratio * value} if knob == "tau_predict" else {})
    return replace(method, **changed)  # type: ignore[type-var]


def bisect(fraction: Callable[[float], float], low: float, high: float, target: float) -> tuple[float, float]:
    """The knob in [low, high] whose executed fraction is nearest to `target`, and that fraction.

    Raises ValueError, saying the range that can be reached, if `target` lies more than 3 % outside it.
    """
    ends = {low: fraction(low), high: fraction(high)}
    if not min(ends.values()) * 0.97 <= target <= max(ends.values()) * 1.03:
        least, most = min(ends.values()), max(ends.values())
        raise ValueError(f"target={target} cannot be reached: the knob gives {least:.3f} to {most:.3f}")
    tried = dict(ends)
    for _ in range(24):
        middle = (low + high) / 2
        tried[middle] = fraction(middle)
        low, high = (middle, high) if tried[middle] > target else (low, middle)
    best = min(tried, key=lambda knob: (abs(tried[knob] - target), knob))
    return best, tried[best]


def search(
    model: Any, method: Method, name: str, target: float, ratio: float, real: Sequence[Any]
) -> tuple[dict, float]:
    """The settings that hit the target, rounded to four digits, and the fraction that they execute."""
    knob, low, high = KNOBS[name]
    whole, _ = flops(plan(model.schedule()), model.price)

    def fraction(value: float) -> float:
        turned = turn(method, knob, float(f"{value:.4g}"), ratio)
        ledgers: list[list[Entry]] = [video(model, turned, text)[1] for text in real] or [
            rehearse(model, turned, free)
        ]
        return float(np.mean([flops(ledger, model.price)[0] / whole for ledger in ledgers]))

    free = model.conditioning("", model.texts([""]))
    value, reached = bisect(fraction, low, high, target)
    settings = {knob: float(f"{value:.4g}")}
    if knob == "tau_predict":
        settings = {"tau_cache": float(f"{ratio * value:.4g}"), **settings}
    return settings, reached


def main(arguments: Sequence[str]) -> None:
    own = {"target": "", "speed": "fast", "real": "0", "ratio": "0.43", "write": "false"}
    own |= dict(a.split("=", 1) for a in arguments if a.split("=")[0] in own)
    rest = [a for a in arguments if a.split("=")[0] not in own]
    name = next(a.split("=")[1] for a in rest if a.startswith("method="))
    knob = KNOBS[name][0]
    given = [f"method.{knob}=1"] + (["method.tau_cache=0.1"] if knob == "tau_predict" else [])
    run, model, method = composed([*rest, "speed=none", *given])
    model.load()
    prompts = prompts_of(run, 0)[-int(own["real"]) :] if int(own["real"]) else []
    texts = model.texts(prompts)
    real = [model.conditioning(prompt, texts) for prompt in prompts]
    settings, reached = search(model, method, name, float(own["target"]), float(own["ratio"]), real)
    given_by_hand = {
        a.split("=")[0].removeprefix("method."): a.split("=", 1)[1] for a in rest if a.startswith("method.")
    }
    evidence = f"{len(prompts)} prompts" if prompts else "a rehearsal (decisions depend on timesteps alone)"
    if own["write"] == "true":
        path = CONF / "point" / model.name / f"{name}_{own['speed']}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = ", ".join(f"{k}: {v}" for k, v in {**settings, **given_by_hand}.items())
        path.write_text(
            f"# @package _global_\n# Executes {reached:.4f} of the Original's FLOPs where {own['target']} was wanted\n"
            f"# (python -m benchmarks.operating_point {' '.join(arguments)}).\nmethod: {{{lines}}}\n"
            "point:\n  estimated: false\n"
            f"  why: searched for a fraction of {own['target']}, reached {reached:.4f} in {evidence}\n"
        )
    print(
        json.dumps(
            {"model": model.name, "method": name, **settings, "fraction": reached, "target": float(own["target"])}
        )
    )


if __name__ == "__main__":
    main(sys.argv[1:])
