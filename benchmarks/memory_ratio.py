"""Peak memory of every method divided by the Original's, each in a separate process.

    python -m benchmarks.memory_ratio [model=skyreels_mid] [method=scope,teacache,taylorseer] [model.steps=12]

In one process, memory that an earlier run left resident would hide a smaller peak. Measured is the denoising, weights
included. The last line is one JSON object: `memory_ratio` of the method with the largest one, and `rows` with the bytes
of all methods and `state_bytes`, the size of the tensors that the method holds.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.abab import conditions, in_turn, show, split
from benchmarks.common import composed, prompts_of
from conf.schema import device_of
from engine.loop import generate
from engine.produce import warm_up
from terminal import tolerate

DEFAULTS = {"method": "scope", "seed": "0", "alone": ""}


def alone(name: str, rest: Sequence[str], seed: int) -> dict[str, Any]:
    """The peak memory of one video in this process, and the bytes that the method holds at its end."""
    run, model, method = composed([f"method={name}", *rest])
    method.check(model)
    model.load()
    prompt = prompts_of(run, 1)[0]
    text = model.conditioning(prompt, model.texts([prompt]))
    warm_up(model, text)
    spent = in_turn({name: lambda: generate(model, method, text, seed, [])}, 1, model.device)[name][0]
    state = sum(t.numel() * t.element_size() for t in method.state())
    return {"method": name, "peak": spent.peak, "state_bytes": state, "model": model.name}


def apart(name: str, arguments: Sequence[str]) -> dict[str, Any]:
    """The same in a separate process. Raises CalledProcessError if it fails; its error output has the reason."""
    command = [sys.executable, "-m", "benchmarks.memory_ratio", *arguments, f"alone={name}"]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(arguments: Sequence[str]) -> None:
    own, rest = split(arguments, DEFAULTS)
    if own["alone"]:
        print(json.dumps(alone(own["alone"], rest, int(own["seed"]))))
        return
    rows = [apart(name, arguments) for name in ("original", *own["method"].split(","))]
    for row in rows:
        row["memory_ratio"] = row["peak"] / rows[0]["peak"]
    run, _, _ = composed(["method=original", "speed=none", *[a for a in rest if a.startswith("device=")]])
    show(
        f"{rows[0]['model']}: peak memory of denoising",
        ["method", "peak MB", "over Original", "state MB"],
        [
            [r["method"], f"{r['peak'] / 1e6:.1f}", f"{r['memory_ratio']:.4f}", f"{r['state_bytes'] / 1e6:.2f}"]
            for r in rows
        ],
        {
            "model": rows[0]["model"],
            "memory_ratio": max(r["memory_ratio"] for r in rows),
            "rows": rows,
            **conditions("memory_ratio", arguments, torch.device(device_of(run.device))),
        },
    )


if __name__ == "__main__":
    tolerate()
    main(sys.argv[1:])
