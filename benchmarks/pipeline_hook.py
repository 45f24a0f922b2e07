"""What `accelerate` costs in a stock pipeline, and how it compares with cache-dit's `enable_cache` at equal skips.

    python -m benchmarks.pipeline_hook [model=skyreels_mid] [model.steps=4] [rounds=2]
    python -m benchmarks.pipeline_hook against=cache_dit model=skyreels_tiny [ours=scope ours.tau_predict=0.3 ...]

The first form runs diffusers' pipeline without and with the hook of SCOPE with thresholds of 0, which decides and
keeps velocities but skips nothing, in turn (A B A B). `ratio` is hooked / stock; `own` is the time inside the hook
outside the stock forward, over the time of the stock forward, which other load disturbs less.

The second form runs a method of ours (with its settings as `ours.NAME=value`) and cache-dit's DBCache, which computes
as many rows, at a fixed cadence. `computed` counts the rows whose last block ran. cache-dit also computes the first
block of the others, and so does not skip a whole forward. Quality is against the stock pipeline's latents and frames.
One segment only, since cache-dit counts the rows of one. It needs the extra `external`.
The last line is one JSON object.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import yaml
from torch import Tensor

from baselines.shared import cache_dit_hooks
from benchmarks.abab import conditions, in_turn, plain, ratio, show, split
from benchmarks.common import apart, composed, prompts_of
from benchmarks.stock import call, pipeline
from models.skyreels.backbone import SkyReelsV2
from scope import accelerate
from scope.pipeline import Accelerated
from terminal import tolerate

DEFAULTS = {"rounds": "2", "seed": "0", "against": "", "ours": "scope"}
ALWAYS = 1e9  # a threshold that every row is below


def overhead(pipe: Any, run: Callable[[], Tensor], rounds: int, device: torch.device) -> dict[str, Any]:
    """Time of the pipeline with a hook that skips nothing over that without; the latents must be the same bits."""
    on = accelerate(pipe, "scope", tau_cache=0.0, tau_predict=0.0, selective="none")
    inside = [0.0, 0.0]  # seconds of the stock forward, and of the whole hook

    def hooked() -> Tensor:
        on.enable()
        with _timed(on, inside):
            found = run()
        on.disable()
        return found

    on.disable()
    same = torch.equal(run(), hooked())
    inside[:] = [0.0, 0.0]
    spent = in_turn({"hooked": hooked, "stock": run}, rounds, device)
    return {
        "ratio": ratio(spent, "hooked", "stock"),
        "cpu_ratio": ratio(spent, "hooked", "stock", "cpu_seconds"),
        "own": inside[1] / inside[0] - 1,
        "rows": len(on.hook.rows),
        "identical": same,
        "runs": plain(spent),
    }


@contextmanager
def _timed(on: Accelerated, inside: list[float]) -> Iterator[None]:
    """Add up the processor seconds of this thread in the stock forward, and in the hook around it."""
    reference = on.hook.fn_ref
    stock, whole = reference.original_forward, reference.forward

    def clocked(of: Callable[..., Any], place: int) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            begin = time.thread_time()
            try:
                return of(*args, **kwargs)
            finally:
                inside[place] += time.thread_time() - begin

        return timed

    reference.original_forward = clocked(stock, 0)
    reference.forward = clocked(whole, 1)
    try:
        yield
    finally:
        reference.original_forward, reference.forward = stock, whole


def against(
    model: SkyReelsV2, run: Callable[[], Tensor], pipe: Any, method: str, settings: dict[str, Any], rounds: int
) -> dict[str, Any]:
    """Time and quality of a method of ours, and of cache-dit's at as many computed rows."""
    cache_dit_hooks.check("dbcache", {}, 2)
    counted = Counted(model.transformer)
    stock, branches = run(), 2 if pipe.do_classifier_free_guidance else 1
    rows = counted.take() // branches
    found: dict[str, Any] = {"method": method, "settings": settings, "rows": rows}

    def ours() -> Tensor:
        with accelerate(pipe, method, **settings):
            return run()

    def theirs() -> Tensor:
        with _cache_dit(model, rows, *cadence(rows, found["ours"]["computed"]), branches == 2):
            return run()

    arms = {"ours": ours, "theirs": theirs}
    for name, arm in arms.items():
        latents = arm()
        found[name] = {"computed": counted.take() // branches, **_quality(model, latents, stock)}
    spent = in_turn({**arms, "stock": run}, rounds, model.device)
    for name in arms:
        found[name]["speedup"] = ratio(spent, "stock", name)
        found[name]["cpu_speedup"] = ratio(spent, "stock", name, "cpu_seconds")
    return found | {"runs": plain(spent)}


@contextmanager
def _cache_dit(model: SkyReelsV2, rows: int, interval: int, first: int, guided: bool) -> Iterator[None]:
    """cache-dit's DBCache in the transformer: `first` rows computed, then one in `interval`, whatever the content."""
    library = cache_dit_hooks._library()
    adapter = library.BlockAdapter(
        transformer=model.transformer,
        blocks=model.transformer.blocks,
        forward_pattern=library.ForwardPattern.Pattern_3,
        has_separate_cfg=guided,
    )
    config = library.DBCacheConfig(
        Fn_compute_blocks=1,
        Bn_compute_blocks=0,
        residual_diff_threshold=ALWAYS,
        max_warmup_steps=first,
        max_continuous_cached_steps=interval - 1,
        num_inference_steps=rows,
        enable_separate_cfg=guided,
    )
    library.enable_cache(adapter, cache_config=config)
    try:
        yield
    finally:
        library.disable_cache(model.transformer)


def cadence(rows: int, computed: int) -> tuple[int, int]:
    """(interval, rows at the start) with which cache-dit computes `computed` of `rows`, the smallest that exist.

    >>> [cadence(15, computed) for computed in (5, 6, 9, 15)]
    [(3, 1), (3, 2), (2, 3), (2, 15)]
    """
    found = ((k, n) for k in range(2, rows + 1) for n in range(1, rows) if n + (rows - n) // k == computed)
    return next(found, (2, rows))


class Counted:
    """How often the last block of a transformer has run."""

    def __init__(self, transformer: Any) -> None:
        self.count = 0
        transformer.blocks[-1].register_forward_hook(self._add)

    def _add(self, *_: Any) -> None:
        self.count += 1

    def take(self) -> int:
        """The count since the last call."""
        found, self.count = self.count, 0
        return found


def _quality(model: SkyReelsV2, latents: Tensor, stock: Tensor) -> dict[str, float]:
    """Relative error of latents (slots, C, H, W), and PSNR of the frames in dB."""
    a, b = (torch.cat(list(model.decode(one[0].float()))).float() for one in (latents, stock))
    error = float(((a - b) / 255).square().mean())
    return {
        "latent_error": float((latents - stock).norm() / stock.norm()),
        "psnr": -10 * math.log10(error) if error else math.inf,
    }


def main(arguments: Sequence[str]) -> None:
    given, named = apart(["ours"], arguments)
    own, rest = split(given, DEFAULTS)
    ours = {
        name.removeprefix("method."): yaml.safe_load(of) for name, _, of in (a.partition("=") for a in named["ours"])
    }
    defaults = ["model=skyreels_mid", "model.steps=4"] if not any(a.startswith("model=") for a in rest) else []
    fixed = ["method=original", "speed=none", "model.attention=block_causal", "model.addnoise=0"]
    run, model, _ = composed([*fixed, *defaults, *rest])
    model.load()
    prompt = prompts_of(run, 1)[0]
    text = {k: v.to(model.device) for k, v in model.conditioning(prompt, model.texts([prompt])).items()}
    pipe = pipeline(model)
    with torch.inference_mode():
        once = lambda: call(pipe, model, text["cond"], text.get("uncond"), int(own["seed"]))  # noqa: E731
        found = (
            against(model, once, pipe, own["ours"], ours, int(own["rounds"]))
            if own["against"]
            else overhead(pipe, once, int(own["rounds"]), model.device)
        )
    rows = [[name, str(value)] for name, value in found.items() if name != "runs"]
    about: dict[str, Any] = {"model": model.name, "weights": model.settings.weights}
    about |= {"frames": model.settings.frames, "steps": model.settings.steps}
    found = {**about, **found, **conditions("pipeline_hook", arguments, model.device)}
    show(f"{model.name}: the hook of accelerate", ["", ""], rows, found)


if __name__ == "__main__":
    tolerate()
    main(sys.argv[1:])
