"""The quality of SCOPE, TeaCache and the uniform control at the same number of forwards.

    python -m benchmarks.equal_forwards [model=skyreels_tiny] [count=32] [intervals=3,4,5] [seed=0] [tuning=6]

For every interval, the uniform control gives the number of computed iterations. SCOPE and TeaCache are set to the same
number by their main setting: SCOPE's tau_predict, with tau_cache in the ratio of its operating point, and TeaCache's
threshold. This is done for a few values of their second setting (SCOPE's max_skip, TeaCache's warmup). The value that
is best on `tuning` prompts, which no result uses, is kept. If decisions depend on the content, forwards are counted in
real videos. Then `count` prompts are generated with each method and compared with the Original of the same noise.
Printed are the PSNR (pooled over a video, mean over videos), the paired difference to SCOPE with a bootstrap 95 %
interval over prompts, and the gain of prediction over reuse (order 1 of the control against order 0). The last line is
one JSON object.

On SkyReels-V2's staircase the start of a block is decisive: its second step must be computed as well, else four steps
of the noisiest block depend on one anchor. Scores of the time projection would place their forwards at the end of a
block's denoising. At these costs a small max_skip prevents that.
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
from rich.table import Table
from scipy.stats import bootstrap

from baselines.teacache import TeaCache
from baselines.uniform import Uniform
from benchmarks.common import calibrating, composed, prompts_of, video, watched
from engine.ledger import forwards
from engine.method import Method, Original
from eval.metrics import mse, psnr
from scope.method import Scope
from sweep.calibration.rehearsal import rehearse
from terminal import tolerate

CONTENT = ("latent", "patch_embedding")  # signals that differ from video to video
COUNTED = 2  # number of videos in which forwards are counted if they depend on the content
SLACK = 0.03  # variants within this share of the wanted number of forwards count as equal in cost
TUNING_SEED = 1_000_000  # first seed of the tuning prompts

SECOND = {
    "scope": ("max_skip", (2, 3, 4, 5)),
    "teacache": ("warmup", (1, 2, 4)),
}  # second setting and its values for the tuning


@dataclass
class Contest:
    """A model, and the prompts on which forwards are counted and second settings are chosen."""

    model: Any
    texts: list[Any]

    def forwards(self, method: Method) -> float:
        """The mean number of forwards of a video. The model does not run if timesteps alone decide (Rehearsal)."""
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
        """The method with the value of its main setting that is closest to `wanted` forwards, and its forwards."""
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
        """The Original's frames for every tuning prompt."""
        return [video(self.model, Original(), text, TUNING_SEED + i)[0] for i, text in enumerate(self.texts)]

    def best(self, variants: Sequence[tuple[Method, float]], wanted: float) -> tuple[Method, float]:
        """The variant with about `wanted` forwards that is closest to the Original on the tuning prompts."""
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
    """Every compared method at the number of forwards of the uniform control: {name: (method, forwards)}."""
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
    """PSNR in dB, pooled over the video; 100 for identical videos."""
    value = psnr(mse(frames, original))
    return 100.0 if value is None else value


def interval_of(differences: np.ndarray) -> tuple[float, float]:
    """The bootstrap 95 % interval of the mean of paired differences."""
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
    for number, prompt in enumerate(watched(prompts, "generating")):
        text, seed = model.conditioning(prompt, texts), int(own["seed"]) + number
        original, _ = video(model, Original(), text, seed)
        for interval, contenders in fields.items():
            for name, (method, _) in contenders.items():
                frames, _ = video(model, method, text, seed)
                scores.setdefault((interval, name), []).append(_psnr(frames, original))
    report(model.name, len(prompts), fields, scores)


def report(model: str, count: int, fields: dict, scores: dict[tuple[float, str], list[float]]) -> None:
    """Print the table and the JSON object."""
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
            row[knob] = getattr(method, knob)  # the value that tuning chose
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
    """The gain in dB of order 1 of the uniform control over its order 0, with its 95 % interval."""
    gain = np.array(scores[interval, "uniform order 1"]) - np.array(scores[interval, "uniform order 0"])
    low, high = interval_of(gain)
    return {"interval": interval, "gain": float(gain.mean()), "low": low, "high": high}


if __name__ == "__main__":
    tolerate()
    main(sys.argv[1:])
