"""The measured speedup of denoising divided by the speedup in FLOPs, for each method.

    python -m benchmarks.realised [model=skyreels_mid] [method=scope] [speed=fast] [rounds=2]
    python -m benchmarks.realised model=skyreels_mid method=scope,teacache,taylorseer,pab
    python -m benchmarks.realised model=skyreels_mid method=flowcache,bwcache flowcache.threshold=0.1

Every method runs in turn with the Original on one prompt, with the same noise and weights. NAME.setting=value sets a
parameter of one of several methods. FLOPs are those of the ledger, in the convention of the model's attention (dense if
full, masked if block-causal). The last line is one JSON object: `ratio` is the measured speedup / the FLOPs speedup,
`cpu_ratio` the same in CPU time, `memory_ratio` the peak memory / the Original's (allocated on a GPU, resident on a
CPU), `state_bytes` the size of the tensors that the method holds. With several methods these are in `rows`, and `ratio`
is the smallest one.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.abab import conditions, in_turn, peak_ratio, plain, ratio, show, split
from benchmarks.common import apart, composed, prompts_of
from engine.ledger import Entry, decisions, flops
from engine.loop import generate
from engine.method import Method, Original
from engine.produce import warm_up
from terminal import tolerate

DEFAULTS = {"method": "scope", "rounds": "2", "seed": "0"}


def executed(model: Any, ledger: Sequence[Entry]) -> float:
    """The FLOPs of a ledger in the convention of the model's own attention."""
    dense, masked = flops(ledger, model.price)
    return masked if getattr(model.settings, "attention", "full") == "block_causal" else dense


def realise(base: Any, model: Any, method: Method, prompt: str, rounds: int, seed: int) -> dict[str, Any]:
    """Time the Original on `base` and `method` on `model`, in turn. Both models are loaded."""
    ledgers: dict[str, list[Entry]] = {"original": [], "method": []}
    state: list[int] = []

    def run(name: str) -> None:
        subject, who = (base, Original()) if name == "original" else (model, method)
        text = subject.conditioning(prompt, subject.texts([prompt]))
        ledgers[name].clear()
        generate(subject, who, text, seed, ledgers[name])
        if name == "method":
            state[:] = [sum(t.numel() * t.element_size() for t in who.state())]

    for subject in (base, model):
        warm_up(subject, subject.conditioning(prompt, subject.texts([prompt])))
    spent = in_turn({name: lambda name=name: run(name) for name in ledgers}, rounds, model.device)  # type: ignore[misc]
    saved = executed(base, ledgers["original"]) / executed(model, ledgers["method"])
    speedup, cpu = (ratio(spent, "original", "method", what) for what in ("seconds", "cpu_seconds"))
    return {
        "ratio": speedup / saved,
        "cpu_ratio": cpu / saved,
        "speedup": speedup,
        "cpu_speedup": cpu,
        "flops_speedup": saved,
        "memory_ratio": peak_ratio(spent, "method", "original"),
        "state_bytes": state[0],
        "decisions": decisions(ledgers["method"]),
        "runs": plain(spent),
    }


def arms(names: Sequence[str], rest: Sequence[str]) -> tuple[str, Any, list[tuple[Any, Method]]]:
    """A prompt, the Original's backbone, and (backbone, method) of each name; all are checked before any is timed."""
    common, mine = apart(names, rest)
    own_model = [a for a in common if not a.startswith(("method.", "speed="))]
    run, base, _ = composed(["method=original", "speed=none", *own_model])
    found = []
    for name in names:
        _, model, method = composed([f"method={name}", *common, *mine[name]])
        method.check(model)
        found.append((base if model.settings == base.settings else model, method))
    return prompts_of(run, 1)[0], base, found


def main(arguments: Sequence[str]) -> None:
    own, rest = split(arguments, DEFAULTS)
    names = own["method"].split(",")
    prompt, base, methods = arms(names, rest)
    rows: list[dict[str, Any]] = []
    for name, (model, method) in zip(names, methods, strict=True):
        for subject in (base, model):
            if not hasattr(subject, "transformer"):
                subject.load()
        rows.append({"method": name, **realise(base, model, method, prompt, int(own["rounds"]), int(own["seed"]))})
        print(f"{name}: {rows[-1]['ratio']:.3f} of {rows[-1]['flops_speedup']:.2f} x", flush=True)
    least = min(rows, key=lambda row: row["ratio"])
    about = {"model": base.name, "weights": base.settings.weights, "frames": base.settings.frames}
    only = dict(rows[0])
    if len(rows) > 1:
        most = max(row["memory_ratio"] for row in rows)
        only = {"ratio": least["ratio"], "least": least["method"], "memory_ratio": most, "rows": rows}
    shown = ("ratio", "cpu_ratio", "speedup", "cpu_speedup", "flops_speedup", "memory_ratio")
    show(
        f"{base.name}: measured speedup of denoising / FLOPs speedup",
        ["method", *shown, "state MB"],
        [[r["method"], *(f"{r[n]:.3f}" for n in shown), f"{r['state_bytes'] / 1e6:.2f}"] for r in rows],
        {**about, **only, **conditions("realised", arguments, base.device)},
    )


if __name__ == "__main__":
    tolerate()
    main(sys.argv[1:])
