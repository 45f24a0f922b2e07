"""Seconds, FLOPs and peak memory by the length of the video.

    python -m benchmarks.length_cost [model=skyreels_mid] [method=original,scope] [lengths=97,177,257] [decode=true]

On a GPU use lengths=97,177,257,497,737 for SkyReels-V2 and 120,240,480 for MAGI-1. The methods run in turn at every
length, on one prompt. The last line is one JSON object: `rows` with seconds of denoising and decoding, seconds per
PFLOP, and the peaks of both; `flat` is the peak of denoising at the last length divided by that at the first.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from benchmarks.abab import conditions, in_turn, show, split
from benchmarks.common import composed, prompts_of
from benchmarks.realised import executed
from engine.ledger import Entry
from engine.loop import generate
from engine.meter import Cost, meter
from engine.method import Method
from engine.produce import warm_up
from terminal import tolerate

DEFAULTS = {"method": "original,scope", "lengths": "97,177,257", "seed": "0", "decode": "true"}


def at_length(model: Any, methods: dict[str, Method], prompt: str, seed: int, decode: bool) -> list[dict[str, Any]]:
    """The cost of every method, denoised in turn. The decoder runs once, since it does not depend on the method."""
    text = model.conditioning(prompt, model.texts([prompt]))
    warm_up(model, text)
    ledgers: dict[str, list[Entry]] = {name: [] for name in methods}
    last: list[torch.Tensor] = []

    def run(name: str) -> None:
        last[:] = [generate(model, methods[name], text, seed, ledgers[name])]

    spent = in_turn({name: lambda name=name: run(name) for name in methods}, 1, model.device)  # type: ignore[misc]
    decoding = Cost()
    if decode:
        with meter(model.device) as decoding:
            for _ in model.decode(last[0]):
                pass
    return [
        {
            "method": name,
            "frames": model.settings.frames,
            "denoise": runs[0].seconds,
            "cpu_seconds": runs[0].cpu_seconds,
            "decode": decoding.seconds,
            "pflop": executed(model, ledgers[name]) / 1e15,
            "peak_denoise": runs[0].peak,
            "peak_decode": decoding.allocated,
        }
        for name, runs in spent.items()
    ]


def lengthened(model: Any, frames: int) -> Any:
    """The same model and weights for videos of `frames` frames."""
    other = type(model)(replace(model.settings, frames=frames), model.device)
    for name in ("transformer", "vae", "tokens"):
        if hasattr(model, name):
            setattr(other, name, getattr(model, name))
    return other


def main(arguments: Sequence[str]) -> None:
    own, rest = split(arguments, DEFAULTS)
    made = {name: composed([f"method={name}", *rest]) for name in own["method"].split(",")}
    run, model, _ = next(iter(made.values()))
    model.load()
    prompt, methods = prompts_of(run, 1)[0], {name: method for name, (_, _, method) in made.items()}
    rows = []
    for frames in map(int, own["lengths"].split(",")):
        found = at_length(lengthened(model, frames), methods, prompt, int(own["seed"]), own["decode"] == "true")
        rows += [{**row, "seconds_per_pflop": row["denoise"] / row["pflop"]} for row in found]
    ends = [max(r["peak_denoise"] for r in rows if r["frames"] == f) for f in (rows[0]["frames"], rows[-1]["frames"])]
    columns = ("frames", "method", "denoise", "decode", "pflop", "seconds_per_pflop", "peak_denoise", "peak_decode")
    show(
        f"{model.name}: cost against length",
        columns,
        [[f"{row[c]:.4g}" if isinstance(row[c], float) else str(row[c]) for c in columns] for row in rows],
        {
            "model": model.name,
            "weights": model.settings.weights,
            "flat": ends[1] / ends[0],
            "rows": rows,
            **conditions("length_cost", arguments, model.device),
        },
    )


if __name__ == "__main__":
    tolerate()
    main(sys.argv[1:])
