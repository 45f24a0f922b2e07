"""Which method makes the most of its forwards: SCOPE, TeaCache and the uniform control at the same number of them.

    python -m benchmarks.equal_forwards [model=skyreels_tiny] [count=32] [intervals=3,4,5] [seed=0] [tuning=6]

For every interval, the uniform control fixes how many iterations are computed. SCOPE and TeaCache are set to the same
number by their main knob (SCOPE's tau_predict at the ratio tau_cache : tau_predict of its operating point, TeaCache's
threshold) for each of a few values of their second one (SCOPE's max_skip, TeaCache's warmup), of which the best on
`tuning` prompts that nothing is reported on stays. Where decisions depend on the content, forwards are counted in real
videos. Then `count` prompts are generated with each and compared with the Original of the same noise: PSNR pooled over
a video, its mean over videos, and the paired difference to SCOPE with a bootstrap 95 % interval over prompts; and what
prediction adds to reuse, order 1 of the control over its order 0. The last line is one JSON object.

On SkyReels-V2's staircase a block that has just begun decides: its second step has to be computed too, or four steps
of the noisiest block hang on one anchor. Time-projection scores put their forwards at the end of a block's denoising
instead, so what saves them at these costs is a short max_skip.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import bootstrap

from baselines.teacache import TeaCache
from baselines.uniform import Uniform
from benchmarks.common import calibrating, composed, prompts_of, rehearse, video
from engine.ledger import forwards
from engine.method import Method, Original
from eval.metrics import mse, psnr
from scope.method import Scope
from terminal import tolerate

CONTENT = ("latent", "patch_embedding")  # signals that differ from video to video
COUNTED = 2  # videos in which forwards are counted where they depend on the content
SLACK = 0.03  # of the wanted number of forwards, within which variants count as equally dear
TUNING_SEED = 1_000_000  # noise of the tuning prompts

SECOND = {"scope": ("max_skip", (2, 3, 4, 5)), "teacache": ("warmup", (1, 2, 4))}  # what tuning chooses among


@dataclass
class Contest:
    """A model, and the prompts on which forwards are counted and second knobs are chosen."""

    model: Any
    texts: list[Any]

    def forwards(self, method: Method) -> float:
        """The mean number of forwards of a video; rehearsed where its signal depends on timesteps alone."""
        branches = len(self.model.branches)
        if getattr(method, "signal", "") not in CONTENT:
            return forwards(rehearse(self.model, method, self.texts[0]), branches)
        return float(
            np.mean(
                [
                    forwards(video(self.model, method, text, TUNING_SEED + i)[1], branches)
                    for i, text in enumerate(self.texts[:COUNTED])
                ]
            )
        )

    def at_forwards(self, make: Callable[[float], Method], wanted: float, high: float) -> tuple[Method, float]:
        """The method whose main knob gives the number of forwards nearest to `wanted`, and that number."""
        tried: dict[float, float] = {}

        def count(knob: float) -> float:
            tried[knob] = self.forwards(make(knob))
            return tried[knob]

        low, steps = 0.0, 40 if getattr(make(high), "signal", "") not in CONTENT else 10
        while count(high) > wanted and high < 1e4:
            low, high = high, high * 2
        for _ in range(steps):
            middle = (low + high) / 2
            low, high = (middle, high) if count(middle) > wanted else (low, middle)
        best = min(tried, key=lambda knob: (abs(tried[knob] - wanted), knob))
        return make(best), tried[best]

    @cached_property
    def originals(self) -> list[np.ndarray]:
        """The Original's frames of every prompt of the tuning."""
        return [video(self.model, Original(), text, TUNING_SEED + i)[0] for i, text in enumerate(self.texts)]

    def best(self, variants: Sequence[tuple[Method, float]], wanted: float) -> tuple[Method, float]:
        """Of the variants that meet `wanted`, the one nearest to the Original on the tuning prompts."""
        least = min(abs(count - wanted) for _, count in variants)
        fair = [(method, count) for method, count in variants if abs(count - wanted) <= max(least, SLACK * wanted)]
        scores = [
            np.mean(
                [
                    _psnr(video(self.model, method, text, TUNING_SEED + i)[0], original)
                    for i, (text, original) in enumerate(zip(self.texts, self.originals, strict=True))
                ]
            )
            for method, _ in fair
        ]
        return fair[int(np.argmax(scores))]


def rivals(contest: Contest, scope: Scope, tea: TeaCache, interval: float) -> dict[str, tuple[Method, float]]:
    """Every contender at the number of forwards of the uniform control."""
    uniform = Uniform(interval)
    wanted = contest.forwards(uniform)
    ratio = scope.tau_cache / scope.tau_predict if scope.tau_predict else 0.0
    plain = replace(scope, selective="none")
    makes: dict[str, Callable[[int, float], Method]] = {
        "teacache": lambda second, k: replace(tea, threshold=k, warmup=second),
        "scope": lambda second, k: replace(plain, tau_cache=k * ratio, tau_predict=k, max_skip=second),
    }
    found: dict[str, tuple[Method, float]] = {
        "uniform order 0": (uniform, wanted),
        "uniform order 1": (Uniform(interval, 1), wanted),
    }
    for name, make in makes.items():
        variants = [contest.at_forwards(partial(make, value), wanted, 1.0) for value in SECOND[name][1]]
        found[name] = contest.best(variants, wanted)
    return found


def _psnr(frames: np.ndarray, original: np.ndarray) -> float:
    """Pooled over the video; 100 for identical ones."""
    value = psnr(mse(frames, original))
    return 100.0 if value is None else value


def interval_of(differences: np.ndarray) -> tuple[float, float]:
    """Bootstrap 95 % interval of a mean of paired differences."""
    found = bootstrap((differences,), np.mean, random_state=0, n_resamples=5000).confidence_interval
    return float(found.low), float(found.high)


def main(arguments: Sequence[str]) -> None:
    own = {"count": "32", "intervals": "3,4,5", "seed": "0", "tuning": "6"}
    own |= dict(a.split("=", 1) for a in arguments if a.split("=")[0] in own)
    rest = [a for a in arguments if a.split("=")[0] not in own]
    run, model, scope = composed(["method=scope", *rest])
    _, _, tea = composed(["method=teacache", *[a for a in rest if not a.startswith("method.")]])
    spare, _, _ = calibrating([a for a in rest if not a.startswith("method.")])
    assert isinstance(scope, Scope) and isinstance(tea, TeaCache)
    model.load()
    prompts, tuning = prompts_of(run, int(own["count"])), prompts_of(spare, int(own["tuning"]))
    texts = model.texts([*prompts, *tuning])
    contest = Contest(model, [model.conditioning(prompt, texts) for prompt in tuning])
    fields = {float(i): rivals(contest, scope, tea, float(i)) for i in own["intervals"].split(",")}
    scores: dict[tuple[float, str], list[float]] = {}
    for number, prompt in enumerate(track(prompts, "generating")):
        text, seed = model.conditioning(prompt, texts), int(own["seed"]) + number
        original, _ = video(model, Original(), text, seed)
        for interval, contenders in fields.items():
            for name, (method, _) in contenders.items():
                frames, _ = video(model, method, text, seed)
                scores.setdefault((interval, name), []).append(_psnr(frames, original))
    report(model.name, len(prompts), fields, scores)


def report(model: str, count: int, fields: dict, scores: dict[tuple[float, str], list[float]]) -> None:
    columns = ("interval", "method", "forwards", "PSNR", "SCOPE is better by", "95 %")
    table = Table(*columns, title=f"{model}, {count} prompts")
    found = []
    for (interval, name), values in scores.items():
        gain = np.array(scores[interval, "scope"]) - np.array(values)
        low, high = interval_of(gain) if name != "scope" else (0.0, 0.0)
        method, forwards_made = fields[interval][name]
        row = {"interval": interval, "method": name, "forwards": forwards_made}
        if name in SECOND:
            knob, _ = SECOND[name]
            row[knob] = getattr(method, knob)  # what tuning chose
        row |= {"psnr": float(np.mean(values)), "scope_gain": float(gain.mean()), "low": low, "high": high}
        found.append(row)
        table.add_row(
            f"{interval:g}",
            name,
            f"{forwards_made:g}",
            f"{row['psnr']:.2f}",
            f"{row['scope_gain']:+.2f}",
            f"{low:+.2f} … {high:+.2f}",
        )
    Console().print(table)
    gains = [prediction_gain(interval, scores) for interval in fields]
    for g in gains:
        print(f"interval {g['interval']:g}: prediction adds {g['gain']:+.2f} dB ({g['low']:+.2f} … {g['high']:+.2f})")
    print(json.dumps({"model": model, "prompts": count, "rows": found, "prediction": gains}))


def prediction_gain(interval: float, scores: dict[tuple[float, str], list[float]]) -> dict[str, float]:
    """What order 1 of the uniform control is better by than its order 0, dB, with its interval."""
    gain = np.array(scores[interval, "uniform order 1"]) - np.array(scores[interval, "uniform order 0"])
    low, high = interval_of(gain)
    return {"interval": interval, "gain": float(gain.mean()), "low": low, "high": high}


if __name__ == "__main__":
    tolerate()
    main(sys.argv[1:])
