"""Time of our methods against the same techniques in diffusers' hooks and in cache-dit, at equal skips.

    python -m benchmarks.external [model=skyreels_mid] [pairs=taylorseer:external_diffusers_taylorseer] [rounds=2]
    python -m benchmarks.external pairs=first_block_cache:external_cache_dit first_block_cache.threshold=0.08

A pair is ours:theirs, both names in conf/method. NAME.setting=value sets a parameter of one of them. The two run in
turn on the same weights and noise. If both execute the same FLOPs, the ratio of their times is the overhead of the
method. If their decisions differ, the ratio of seconds per executed FLOP is the overhead. Both are printed. `none` is
the model's own forward without hooks, in our loop. The last line is one JSON object: `rows` with `ratio` (ours / theirs
in seconds) and `per_flop` (in seconds per FLOP).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.abab import conditions, in_turn, plain, ratio, show, split
from benchmarks.common import apart, composed, prompts_of
from benchmarks.realised import executed
from engine.ledger import Entry
from engine.loop import generate
from engine.method import Method
from engine.produce import warm_up
from terminal import tolerate

PAIRS = (
    "original:external_diffusers_none,taylorseer:external_diffusers_taylorseer,"
    "first_block_cache:external_diffusers_first_block_cache,first_block_cache:external_cache_dit"
)
DEFAULTS = {"pairs": PAIRS, "rounds": "2", "seed": "0"}


def against(model: Any, pair: dict[str, Method], text: Any, rounds: int, seed: int) -> dict[str, Any]:
    """Time `ours` and `theirs` of `pair` in turn."""
    ledgers: dict[str, list[Entry]] = {name: [] for name in pair}

    def run(name: str) -> None:
        ledgers[name].clear()
        generate(model, pair[name], text, seed, ledgers[name])

    spent = in_turn({name: lambda name=name: run(name) for name in pair}, rounds, model.device)  # type: ignore[misc]
    work = {name: executed(model, ledger) for name, ledger in ledgers.items()}
    seconds, cpu = (ratio(spent, "ours", "theirs", what) for what in ("seconds", "cpu_seconds"))
    share = work["ours"] / work["theirs"]
    return {
        "ratio": seconds,
        "cpu_ratio": cpu,
        "flops_ratio": share,
        "per_flop": seconds / share,
        "cpu_per_flop": cpu / share,
        "runs": plain(spent),
    }


def main(arguments: Sequence[str]) -> None:
    own, rest = split(arguments, DEFAULTS)
    pairs = [pair.split(":") for pair in own["pairs"].split(",")]
    rest, mine = apart([name for pair in pairs for name in pair], rest)
    run, model, _ = composed(["method=original", "speed=none", *rest])
    model.load()
    prompt, rows = prompts_of(run, 1)[0], []
    text = model.conditioning(prompt, model.texts([prompt]))
    warm_up(model, text)
    for pair in pairs:
        names = dict(zip(("ours", "theirs"), pair, strict=True))
        methods = {side: composed([f"method={name}", *rest, *mine[name]])[2] for side, name in names.items()}
        for method in methods.values():
            method.check(model)
        rows.append({**names, **against(model, methods, text, int(own["rounds"]), int(own["seed"]))})
    columns = ("ratio", "cpu_ratio", "flops_ratio", "per_flop", "cpu_per_flop")
    show(
        f"{model.name}: ours over theirs",
        ["ours", "theirs", *columns],
        [[row["ours"], row["theirs"], *(f"{row[c]:.3f}" for c in columns)] for row in rows],
        {
            "model": model.name,
            "weights": model.settings.weights,
            "rows": rows,
            **conditions("external", arguments, model.device),
        },
    )


if __name__ == "__main__":
    tolerate()
    main(sys.argv[1:])
