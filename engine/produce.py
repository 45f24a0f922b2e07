"""One video from noise to frames, with what it cost."""

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
from engine.visit import Visit

Sink = Callable[[Iterable[Tensor]], Any]
"""Takes the decoded frames, (T, H, W, 3) uint8 batches, and stores them."""


@dataclass
class Produced:
    """What came of one video; `reason` says why its latents are no video, if they are none."""

    ledger: list[Entry] = field(default_factory=list)
    denoise: Cost = field(default_factory=Cost)
    decode: Cost = field(default_factory=Cost)
    reason: str = ""
    state_bytes: int = 0  # held by the method at the end
    counters: Counter[str] = field(default_factory=Counter)


def produce(
    model: Backbone, method: Method, text: Any, seed: int, sink: Sink, on_row: Callable[[Row], None] | None = None
) -> Produced:
    """Denoise and decode one video into `sink`. Time and memory are those of the denoising loop and of the decoder;
    what `sink` itself takes (encoding the file) is not counted."""
    made = Produced()
    try:
        with meter(model.device) as made.denoise:
            latents = generate(model, method, text, seed, made.ledger, on_row, made.counters)
    except NonFinite as error:
        made.reason = str(error)
        return made
    made.state_bytes = sum(tensor.numel() * tensor.element_size() for tensor in method.state())
    forget(model, method)  # the decoder needs neither the method's memory nor keys and values
    with meter(model.device) as made.decode:
        batches = list(model.decode(latents))
    sink(batches)
    return made


def forget(model: Backbone, method: Method) -> None:
    """Give back what a video left behind: the method's memory and the model's. The weights stay."""
    method.reset()
    model.forget()
    collect()


def warm_up(model: Backbone, text: Any) -> float:
    """Seconds of one forward and step that nobody counts: kernels are chosen and memory is laid out in it."""
    with meter(model.device) as cost, torch.inference_mode():
        latents = model.start(text, 0)
        row = model.schedule()[0]
        latents = model.open(latents, row)
        visit = Visit(Original(), row, model.depth, {"": [(row, Decision(Mode.RECOMPUTE))]})
        model.advance(latents, row, model.velocity(latents, row, visit))
    return cost.seconds


def attention_of(model: Backbone) -> str:
    """The attention that `model` runs: "full", or "block_causal" where a frame sees no later unit."""
    return str(getattr(getattr(model, "settings", None), "attention", "full"))


def as_run(model: Backbone, counts: tuple[float, float]) -> float:
    """Of (dense, masked) FLOPs, those of the attention that `model` runs."""
    return counts[attention_of(model) == "block_causal"]


def account(model: Backbone, made: Produced, original: Backbone) -> dict[str, Any]:
    """The part of run.json that is a function of the ledger. `original` is the backbone that nothing was taken from."""
    dense, masked = flops(made.ledger, model.price)
    whole = as_run(original, flops(plan(original.schedule()), original.price))
    share = as_run(model, (dense, masked)) / whole
    segments: dict[int, set[int]] = {}
    for entry in made.ledger:
        segments.setdefault(entry.segment, set()).add(entry.iteration)
    return {
        "flops": {"dense": dense, "masked": masked, "executed_fraction": share},
        "attention": attention_of(model),
        "forwards": forwards(made.ledger, len(model.branches)),
        "iterations": sum(map(len, segments.values())),
        "segments": [len(rows) for rows in segments.values()],
        "decisions": decisions(made.ledger),
        "counters": dict(made.counters),
        "state_bytes": made.state_bytes,
    }
