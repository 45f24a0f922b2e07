"""The GPU path at full size on a machine without a GPU: peak memory, waits and kernels of every method.

    python -m benchmarks.rehearsal model=skyreels,magi1,far method=all [rows=4] [csv=FILE] [model.steps=10]

The tensors hold no values (tests/pretended_device.py), so a video takes seconds to a minute and no memory. What the
host reads is random, so that methods skip some rows and compute others. A row of the table is a method of the menu, or
one of VARIANTS. `rows` stops the video early; then peaks and states are those of the rows that ran. A method that the
model refuses is listed with the reason. `csv=docs/rehearsal.csv` writes the rows into that table and leaves its others.
The last line is one JSON object. Exit status: 1 if a row has a fault.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.abab import split
from benchmarks.common import composed
from benchmarks.rehearsal_table import update
from conf.schema import ConfigError, options
from engine.loop import generate
from engine.produce import forget, warm_up
from engine.row import Row
from terminal import tolerate
from tests.pretended_device import Card, pretended

DEFAULTS = {"model": "skyreels,magi1", "method": "all", "rows": "0", "csv": ""}
SETTINGS = {  # at which the figures of docs/gpu.md were taken
    "skyreels": ["model.frames=177", "model.steps=10", "model.ar_step=1"],
    "magi1": ["model.steps=8"],
    "far": ["model.steps=4"],  # with 8 rows: the first chunk, its clean pass, and steps that read its keys and values
}
VARIANTS = {
    "skyreels": [
        "original model.batch_guidance=always",
        "original model.attention=block_causal",
        "scope method.decide_per=unit method.selective=none",
        "scope method.selective=exact model.attention=block_causal model.overlap_noise=segment",
        "scope method.predictor=auto method.signal=latent method.reject=0.5 method.amplitude=0.1 method.risk=0.3",
        "taylorseer method.variant=lite",
        "first_block_cache method.decide_per=unit",
        "external_diffusers_mag_cache method.options.mag_ratios=[1.0,0.99,0.98]",  # any ratios: none has a value here
        "external_diffusers_pab model.guidance=1",
        "external_diffusers_none model.attention=block_causal",
    ],
    "magi1": [
        "original model.proj_precision=bf16",
        "scope method.selective=none method.decide_per=row method.predictor=momentum method.signal=patch_embedding",
        "taylorseer method.variant=lite",
        "flowcache method.capacity=6",
    ],
    "far": [  # settings for few steps
        "original model.guidance=3",
        "cfg_cache method.interval=2 model.guidance=3",
        "composite +method.parts.scope.selective=none method.parts.cfg_cache.interval=2 model.guidance=3",
        "flowcache method.threshold=0.1",
        "magcache method.ratios=[1.0,0.99,0.98]",
        "pab method.attention=2 method.cross_attention=3",
        "taylorseer method.interval=2",
        "taylorseer method.interval=2 method.variant=lite",
    ],
}
NAMED = (  # what docs/gpu.md names: products in float32, a sinusoid in float64, the check at the end of a segment
    "models/magi1/attention.py:merge",
    "models/skyreels/forward.py:condition",
    "models/skyreels/signals.py:_table",
    "engine/loop.py:_denoise",
    "models/far/past.py:rotations",  # once per video
    "models/skyreels/hooked_forward.py:own_forward",  # diffusers' own forward, for the methods of libraries
)
STATED = {"skyreels": 6.8, "magi1": 21.0, "far": 7.4}  # GB of denoising without a method's state, at SETTINGS and below
SHARE = 0.01  # of all FLOPs: a product in float32 above it must be named
GB = 1e9


@dataclass
class Rehearsed:
    """One row of the table; bytes. `faults`: what the pretended device found, with place and number of times."""

    model: str
    method: str
    refused: str = ""
    rows: int = 0
    weights: int = 0
    loading: int = 0
    denoising: int = 0
    peak_at: str = ""
    state: int = 0  # the largest after a row
    decoding: int = 0
    waits: float = 0.0  # vectors that decisions brought to the host, per row
    kernels: dict[str, int] = field(default_factory=dict)  # of attention, by calls
    faults: dict[str, int] = field(default_factory=dict)
    named: dict[str, int] = field(default_factory=dict)  # faults that docs/gpu.md names, which do not count
    seconds: float = 0.0


@contextmanager
def deciding(card: Card, method: Any) -> Iterator[None]:
    """While this is open, each decision of `method` may bring one vector to the host, and so may its counters."""

    def once(call: Any) -> Any:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            card.allowed = 1
            try:
                return call(*args, **kwargs)
            finally:
                card.allowed = 0

        return wrapped

    own = [method, *getattr(method, "methods", {}).values()]  # of a composite, each part decides
    names = ("decide", "revise", "counters")
    for part in own:
        vars(part).update({name: once(getattr(part, name)) for name in names})
    try:
        yield
    finally:
        for part in own:
            for name in names:
                vars(part).pop(name, None)


def denoise(card: Card, model: Any, method: Any, text: Any, rows: int = 0) -> tuple[Any, list[int]]:
    """Denoise (the first `rows` rows of) a video under watch, from the first row on.

    Returns the latents, and the bytes that the method held after every row.
    """
    held: list[int] = []

    def after(row: Row) -> None:
        held.append(sum(tensor.numel() * tensor.element_size() for tensor in method.state()))

    whole = model.schedule()
    model.rows = list(whole)[: rows or None]
    try:
        with deciding(card, method), watching(card, model):
            latents = generate(model, method, text, 0, [], after)
    finally:
        model.rows = whole
    return latents, held


@contextmanager
def watching(card: Card, model: Any) -> Iterator[None]:
    """While this is open, faults are noted from the first row of a video on, until it is decoded."""
    begin, decode = model.open, model.decode

    def opened(latents: Any, row: Row) -> Any:
        card.watching = True
        return begin(latents, row)

    def decoded(latents: Any) -> Any:
        card.watching = False
        return decode(latents)

    vars(model).update(open=opened, decode=decoded)
    try:
        yield
    finally:
        card.watching = False
        for name in ("open", "decode"):
            vars(model).pop(name, None)


def bound(found: Rehearsed) -> float:
    """GB that denoising may take at most: what docs/gpu.md states for the model, and the state of the method."""
    return STATED[found.model] + found.state / GB


def rehearse(name: str, words: Sequence[str], rows: int = 0) -> Rehearsed:
    """One video of a method (with settings) at full size, without values."""
    begin, model_name = time.perf_counter(), next(w for w in words if w.startswith("model=")).partition("=")[2]
    found = Rehearsed(model_name, name)
    with pretended("meta") as card:
        try:
            _, model, method = composed([*words, "model.weights=random", "device=cuda"])
            method.check(model)
        except (ValueError, ConfigError) as error:
            found.refused = str(error).splitlines()[0]
            return found
        model.load()
        found.weights, found.loading = card.live, card.peak
        text = model.conditioning("a prompt", model.texts(["a prompt"]))
        warm_up(model, text)
        card.restart()
        latents, held = denoise(card, model, method, text, rows)
        found.rows, found.state = len(held), max(held)
        found.denoising, found.peak_at = card.peak, card.peak_at
        found.waits = round(card.decided / found.rows, 2)
        found.kernels = dict(card.kernels)
        found.faults = faults(card)
        found.named = {f"{kind} at {place}": n for kind, place, n in seen(card) if place.startswith(NAMED)}
        forget(model, method)
        card.peak = card.live
        for _ in islice(model.decode(latents), 2):
            pass
        found.decoding = card.peak
        model.unload()
    found.seconds = time.perf_counter() - begin
    return found


def faults(card: Card) -> dict[str, int]:
    """What the card saw go wrong, and products in float32 that no document names."""
    found = {f"{kind} at {place}": count for kind, place, count in seen(card) if not place.startswith(NAMED)}
    for where, share in card.slow_products().items():
        if share > SHARE and not where.startswith(NAMED):
            found[f"float32 product, {share:.0%} of the FLOPs, at {where}"] = 1
    return found


def seen(card: Card) -> list[tuple[str, str, int]]:
    """The kind, the place and the number of all faults, most frequent first."""
    return [(kind, place, count) for (kind, place), count in card.faults.most_common()]


def cases(model: str, methods: str) -> list[tuple[str, list[str]]]:
    """(name, words) of the wanted methods; "all" is the menu and the variants."""
    if methods != "all":
        return [(name, [f"method={name}"]) for name in methods.split(",")]
    lines = [*options("method"), *VARIANTS.get(model, [])]
    return [(line, f"method={line}".split()) for line in lines]


def print_table(found: Sequence[Rehearsed], heading: bool = True) -> None:
    columns = ("model", "method", "peak GB", "state GB", "decoding GB", "waits per row", "kernels")
    if heading:
        print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for row in found:
        kernels = ", ".join(f"{name} {count}" for name, count in sorted(row.kernels.items()))
        if row.refused:
            print(f"| {row.model} | {row.method} | refused: {row.refused} | | | | |")
            continue
        peaks = " | ".join(f"{x / GB:.2f}" for x in (row.denoising, row.state, row.decoding))
        print(f"| {row.model} | {row.method} | {peaks} | {row.waits:.2f} | {kernels} |")
        for fault, count in row.faults.items():
            print(f"    {count} times: {fault}")


def main(arguments: Sequence[str]) -> int:
    own, rest = split(arguments, DEFAULTS)
    found = []
    for model in own["model"].split(","):
        for name, words in cases(model, own["method"]):
            settings = [*SETTINGS.get(model, []), *rest]
            try:
                found.append(rehearse(name, [f"model={model}", *settings, *words], int(own["rows"])))
            except Exception as error:  # a method that breaks must not hide the others
                crash = f"{type(error).__name__}: {error}".splitlines()[0]
                found.append(Rehearsed(model, name, faults={crash: 1}))
            print_table(found[-1:], heading=len(found) == 1)
            if own["csv"]:
                update(Path(own["csv"]), [asdict(found[-1])])
    print(json.dumps({"rows": [asdict(row) for row in found]}))
    return int(any(row.faults for row in found))


if __name__ == "__main__":
    tolerate()
    sys.exit(main(sys.argv[1:]))
