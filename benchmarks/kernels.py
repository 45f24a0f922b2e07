"""The time of the Original's denoising by kind of kernel, and its rate compared with that of large matrix products.

    python -m benchmarks.kernels [model=skyreels_mid] [rows=8] [skip=30]
    python -m benchmarks.kernels model=skyreels model.weights=random device=cuda rows=4

Runs `rows` iterations from row `skip` on without the profiler, for the time, and as many with it. The last line is one
JSON object: `tflops`, the rate over the timed rows (executed FLOPs only: without the text's projections and without the
second branch's part of the opening), `matmul_tflops`, the rate of large products in the same process and precision,
`share`, the first divided by the second, `kernel_share`, the share of wall time in kernels (GPU), and `groups`, the
seconds per iteration by kind of kernel.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.abab import conditions, show, split
from benchmarks.common import composed, prompts_of
from benchmarks.realised import executed
from engine.ledger import Entry
from engine.meter import meter
from engine.method import Original
from engine.row import Decision, Mode, Row
from engine.visit import Visit
from terminal import tolerate

DEFAULTS = {"rows": "8", "skip": "30"}
GROUPS = {  # a kernel belongs to the first group with a word that its name contains
    "attention": ("flash", "attention", "sdpa", "fmha", "cudnn_mha"),
    "products": ("gemm", "addmm", "mm", "cutlass", "cublas", "nvjet", "conv", "linear"),
    "norms": ("norm",),
    "activations": ("gelu", "silu", "softmax", "tanh"),
    "copies": ("copy", "cat", "memcpy", "memset", "index"),
    "pointwise": ("add", "mul", "sub", "div", "elementwise", "where", "pow"),
}


def matmul_rate(device: torch.device, dtype: torch.dtype, size: int = 0, seconds: float = 1.0) -> float:
    """FLOP/s of square products, the best of several batches. `size` 0: 8192 on a GPU, 1536 on a CPU."""
    size = size or (8192 if device.type == "cuda" else 1536)
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best, begin = 0.0, time.perf_counter()
    while time.perf_counter() - begin < seconds or not best:
        with meter(device) as cost:
            for _ in range(8):
                torch.mm(a, b)
        best = max(best, 8 * 2 * size**3 / cost.seconds)
    return best


def group(name: str) -> str:
    """The group of the kernel `name`."""
    low = name.lower()
    return next((kind for kind, words in GROUPS.items() if any(word in low for word in words)), "other")


class Walk:
    """Runs the Original, a few rows at a time."""

    def __init__(self, model: Any, text: Any) -> None:
        self.model, self.latents = model, model.start(text, 0)
        self.latents = model.open(self.latents, model.schedule()[0])

    def over(self, rows: Sequence[Row]) -> None:
        """Run the forward and the sampler step of each of `rows`, of the first segment."""
        for row in rows:
            visit = Visit(Original(), row, self.model.depth, {"": [(row, Decision(Mode.RECOMPUTE))]})
            self.latents = self.model.advance(self.latents, row, self.model.velocity(self.latents, row, visit))


def spent_by_group(walk: Walk, rows: Sequence[Row], cuda: bool) -> Counter[str]:
    """Seconds by kind of kernel over `rows`: GPU time if there is a GPU, else CPU time."""
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=kinds, acc_events=True) as seen:
        walk.over(rows)
        if cuda:
            torch.cuda.synchronize()
    found: Counter[str] = Counter()
    for event in seen.key_averages():
        if cuda and event.device_type == DeviceType.CUDA:  # kernels only, not the calls that launch them
            found[group(event.key)] += event.self_device_time_total / 1e6
        elif not cuda:
            found[group(event.key)] += event.self_cpu_time_total / 1e6
    return found


def shared(model: Any, rows: Sequence[Row]) -> float:
    """FLOPs of `rows` that are counted per guidance branch but executed once for all branches."""
    if len(model.branches) < 2 or not hasattr(model.prices, "of"):
        return 0.0
    causal = model.causal_block
    return sum((len(model.branches) - 1) * model.prices.of(len(row.slots), causal).attention for row in rows)


@torch.inference_mode()
def main(arguments: Sequence[str]) -> None:
    own, rest = split(arguments, DEFAULTS)
    run, model, _ = composed(["method=original", "speed=none", *rest])
    model.load()
    prompt, count, skip = prompts_of(run, 1)[0], int(own["rows"]), int(own["skip"])
    rows = [row for row in model.schedule() if row.segment == 0 and not row.forced][skip : skip + 2 * count + 1]
    if len(rows) < 2 * count + 1:
        raise SystemExit(f"skip={skip} and rows={count} need more rows than the first segment has; lower them")
    walk = Walk(model, model.conditioning(prompt, model.texts([prompt])))
    walk.over(rows[:1])
    timed, watched = rows[1 : count + 1], rows[count + 1 :]
    with meter(model.device) as cost:
        walk.over(timed)
    groups = spent_by_group(walk, watched, model.device.type == "cuda")
    work = executed(model, [Entry.of(row, Decision(Mode.RECOMPUTE), "", ()) for row in timed]) - shared(model, timed)
    rate = matmul_rate(model.device, {"fp32": torch.float32, "bf16": torch.bfloat16}[model.settings.precision])
    total, kernel = sum(groups.values()), sum(groups.values()) / count
    found = {
        "model": model.name,
        "weights": model.settings.weights,
        "precision": model.settings.precision,
        "seconds": cost.seconds / count,
        "tflops": work / cost.seconds / 1e12,
        "matmul_tflops": rate / 1e12,
        "share": work / cost.seconds / rate,
        "kernel_seconds": kernel,
        "kernel_share": kernel / (cost.seconds / count),
        "groups": {kind: seconds / count for kind, seconds in groups.most_common()},
    }
    show(
        f"{model.name}: {found['tflops']:.3g} of {found['matmul_tflops']:.3g} TFLOP/s ({found['share']:.1%})",
        ["kind", "ms an iteration", "share"],
        [[k, f"{s / count * 1e3:.2f}", f"{s / total:.1%}"] for k, s in groups.most_common()],
        {**found, **conditions("kernels", arguments, model.device)},
    )


if __name__ == "__main__":
    tolerate()
    main(sys.argv[1:])
