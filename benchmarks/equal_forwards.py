"""Which method makes the most of its forwards: SCOPE, TeaCache and the uniform control at the same number of them.

    python -m benchmarks.equal_forwards [model=skyreels_tiny] [count=32] [intervals=3,4,5] [seed=0]

For every interval, the uniform control fixes how many iterations are computed. SCOPE's tau_predict (at the ratio
tau_cache : tau_predict of its operating point) and TeaCache's threshold are searched for the same number, in a
rehearsal, since their signal depends on timesteps alone. Then `count` prompts are generated with each and compared with
the Original of the same noise: PSNR pooled over a video, its mean over videos, and the paired difference to SCOPE with
a bootstrap 95 % interval over prompts. The last line is one JSON object.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import bootstrap

from baselines.teacache import TeaCache
from baselines.uniform import Uniform
from benchmarks.common import composed, prompts_of, rehearse, video
from engine.ledger import forwards
from engine.method import Method, Original
from eval.metrics import mse, psnr
from scope.method import Scope


def at_forwards(make: Callable[[float], Method], model: Any, text: Any, wanted: int, high: float) -> tuple[Method, int]:
    """The method whose main knob gives the number of forwards nearest to `wanted`, and that number."""
    branches, tried = len(model.branches), {}

    def count(knob: float) -> int:
        tried[knob] = forwards(rehearse(model, make(knob), text), branches)
        return tried[knob]

    low = 0.0
    while count(high) > wanted and high < 1e4:
        low, high = high, high * 2
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if count(middle) > wanted else (low, middle)
    best = min(tried, key=lambda knob: (abs(tried[knob] - wanted), knob))
    return make(best), tried[best]


def rivals(model: Any, scope: Scope, tea: TeaCache, text: Any, interval: float) -> dict[str, tuple[Method, int]]:
    """Every contender at the number of forwards of the uniform control."""
    uniform = Uniform(interval)
    wanted = forwards(rehearse(model, uniform, text), len(model.branches))
    ratio = scope.tau_cache / scope.tau_predict if scope.tau_predict else 0.0

    def scoped(knob: float) -> Method:
        return replace(scope, tau_cache=knob * ratio, tau_predict=knob, selective="none")

    return {
        "uniform order 0": (uniform, wanted),
        "uniform order 1": (Uniform(interval, 1), wanted),
        "teacache": at_forwards(lambda k: replace(tea, threshold=k), model, text, wanted, 1.0),
        "scope": at_forwards(scoped, model, text, wanted, 1.0),
    }


def interval_of(differences: np.ndarray) -> tuple[float, float]:
    """Bootstrap 95 % interval of a mean of paired differences."""
    found = bootstrap((differences,), np.mean, random_state=0, n_resamples=5000).confidence_interval
    return float(found.low), float(found.high)


def main(arguments: Sequence[str]) -> None:
    own = {"count": "32", "intervals": "3,4,5", "seed": "0"}
    own |= dict(a.split("=", 1) for a in arguments if a.split("=")[0] in own)
    rest = [a for a in arguments if a.split("=")[0] not in own]
    run, model, scope = composed(["method=scope", *rest])
    _, _, tea = composed(["method=teacache", *[a for a in rest if not a.startswith("method.")]])
    assert isinstance(scope, Scope) and isinstance(tea, TeaCache)
    model.load()
    prompts = prompts_of(run, int(own["count"]))
    texts = model.texts(prompts)
    conditionings = [model.conditioning(prompt, texts) for prompt in prompts]
    fields = {float(i): rivals(model, scope, tea, conditionings[0], float(i)) for i in own["intervals"].split(",")}
    scores: dict[tuple[float, str], list[float]] = {}
    for number, text in enumerate(track(conditionings, "generating")):
        seed = int(own["seed"]) + number
        original, _ = video(model, Original(), text, seed)
        for interval, contenders in fields.items():
            for name, (method, _) in contenders.items():
                frames, _ = video(model, method, text, seed)
                value = psnr(mse(frames, original))
                scores.setdefault((interval, name), []).append(100.0 if value is None else value)
    report(model.name, len(prompts), fields, scores)


def report(model: str, count: int, fields: dict, scores: dict[tuple[float, str], list[float]]) -> None:
    columns = ("interval", "method", "forwards", "PSNR", "SCOPE is better by", "95 %")
    table = Table(*columns, title=f"{model}, {count} prompts")
    found = []
    for (interval, name), values in scores.items():
        gain = np.array(scores[interval, "scope"]) - np.array(values)
        low, high = interval_of(gain) if name != "scope" else (0.0, 0.0)
        row = {"interval": interval, "method": name, "forwards": fields[interval][name][1]}
        row |= {"psnr": float(np.mean(values)), "scope_gain": float(gain.mean()), "low": low, "high": high}
        found.append(row)
        table.add_row(f"{interval:g}", name, str(row["forwards"]), f"{row['psnr']:.2f}", f"{row['scope_gain']:+.2f}",
                      f"{low:+.2f} … {high:+.2f}")  # fmt: skip
    Console().print(table)
    print(json.dumps({"model": model, "prompts": count, "rows": found}))


if __name__ == "__main__":
    main(sys.argv[1:])
