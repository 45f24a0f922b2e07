"""Generating one video, from noise to frames, and measuring its cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from engine.backbone import Backbone
from engine.ledger import Entry, decisions, flops, forwards, plan
from engine.loop import NonFinite, generate
from engine.meter import Cost, meter
from engine.method import Method, Original
from engine.resident import collect
from engine.row import Decision, Mode, Row
from engine.stamps import Chunks, Stamps
from engine.visit import Visit

Sink = Callable[[Iterable[Tensor]], Any]
"""Stores the decoded frames, given as uint8 batches (T, H, W, 3)."""


@dataclass
class Produced:
    """The ledger and the cost of one video. `reason` says why it failed; "" if it did not."""

    ledger: list[Entry] = field(default_factory=list)
    denoise: Cost = field(default_factory=Cost)
    decode: Cost = field(default_factory=Cost)
    reason: str = ""
    state_bytes: int = 0  # bytes that the method holds at the end
    counters: Counter[str] = field(default_factory=Counter)
    chunks: Chunks = field(default_factory=Chunks)


def produce(
    model: Backbone, method: Method, text: Any, seed: int, sink: Sink, on_row: Callable[[Row], None] | None = None
) -> Produced:
    """Denoise and decode one video and pass its frames to `sink`.

    Time and memory are measured for the denoising loop and for the decoder, and the times of the chunks are stamped
    (engine/stamps.py). The time of `sink` (encoding the file) is not measured. Latents that are not finite are not
    decoded; `reason` then has the message.
    """
    made, stamps = Produced(), Stamps(model)
    try:
        with meter(model.device) as made.denoise:
            stamps.begin()
            latents = generate(model, method, text, seed, made.ledger, stamps.after(on_row), made.counters)
    except NonFinite as error:
        made.reason = str(error)
        return made
    made.state_bytes = sum(tensor.numel() * tensor.element_size() for tensor in method.state())
    forget(model, method)  # the decoder needs neither the method's memory nor keys and values
    with meter(model.device) as made.decode:
        batches = list(stamps.timed(model.decode(latents)))
    made.chunks = stamps.chunks()
    sink(batches)
    return made


def forget(model: Backbone, method: Method) -> None:
    """Release the memory of the last video, of the method and of the model. The weights stay loaded."""
    method.reset()
    model.forget()
    collect()


def warm_up(model: Backbone, text: Any) -> float:
    """Run one forward and one sampler step before the measurements; returns its seconds.

    The first forward is slower than later ones, because kernels are selected and memory is allocated in it.
    """
    with meter(model.device) as cost, torch.inference_mode():
        latents = model.start(text, 0)
        row = model.schedule()[0]
        latents = model.open(latents, row)
        visit = Visit(Original(), row, model.depth, {"": [(row, Decision(Mode.RECOMPUTE))]})
        model.advance(latents, row, model.velocity(latents, row, visit))
    return cost.seconds


def as_run(model: Backbone, counts: tuple[float, float]) -> float:
    """The one of the (dense, masked) FLOPs that counts the attention that `model` runs."""
    return counts[model.attention == "block_causal"]


def account(model: Backbone, made: Produced, original: Backbone) -> dict[str, Any]:
    """The part of run.json that is computed from the ledger; `original` is the backbone at the Original's settings."""
    dense, masked = flops(made.ledger, model.price)
    whole = as_run(original, flops(plan(original.schedule()), original.price))
    share = as_run(model, (dense, masked)) / whole
    segments: dict[int, set[int]] = {}
    for entry in made.ledger:
        segments.setdefault(entry.segment, set()).add(entry.iteration)
    return {
        "flops": {"dense": dense, "masked": masked, "executed_fraction": share},
        "attention": model.attention,
        "forwards": forwards(made.ledger, len(model.branches)),
        "iterations": sum(map(len, segments.values())),
        "segments": [len(rows) for rows in segments.values()],
        "decisions": decisions(made.ledger),
        "counters": dict(made.counters),
        "state_bytes": made.state_bytes,
    }
