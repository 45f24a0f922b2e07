"""The denoising loop. It connects a backbone and a method, and depends on no particular one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from engine.backbone import Backbone
from engine.ledger import Entry
from engine.method import Method
from engine.retrace import retrace
from engine.row import Decision, Mode, Row
from engine.visit import Visit

if TYPE_CHECKING:
    from torch import Tensor


class NonFinite(RuntimeError):
    """The latents hold NaN or infinity. The message says after which iteration."""


@torch.inference_mode()
def generate(
    model: Backbone,
    method: Method,
    text: Any,
    seed: int,
    ledger: list[Entry],
    on_row: Callable[[Row], None] | None = None,
    counters: Counter[str] | None = None,
) -> Tensor:
    """Denoise one video along the backbone's schedule and return its latents (slots, C, H, W), float32.

    `ledger` receives one entry per decision. `counters` receives the method's counters of every segment. `on_row` is
    called after every row. Raises NonFinite at the end of the first segment whose latents hold NaN or infinity.
    """
    with method.attached(model):
        return _denoise(model, method, model.start(text, seed), ledger, on_row, counters)


def _denoise(
    model: Backbone,
    method: Method,
    latents: Tensor,
    ledger: list[Entry],
    on_row: Callable[[Row], None] | None,
    counters: Counter[str] | None,
) -> Tensor:
    segment = None
    for row in model.schedule():
        if row.segment != segment:
            latents, segment = model.open(latents, row), row.segment
            method.reset()
        row = method.narrow(row)
        probed: list[str] = []
        plan = decide(model, method, latents, row, probed)
        visit = Visit(method, row, model.depth, plan, probed)
        velocity = model.velocity(latents, row, visit)
        for course in method.courses(row):
            latents, velocity = retrace(model, latents, velocity, row, course)
        latents = model.advance(latents, row, velocity)
        ledger.extend(visit.entries())
        if row.last and counters is not None:
            counters.update(method.counters())
        if row.last and not bool(torch.isfinite(latents[row.slots.start : row.slots.stop]).all()):
            raise NonFinite(f"latents of segment {row.segment} are not finite after iteration {row.iteration}")
        if on_row:
            on_row(row)
    return latents


def decide(
    model: Backbone, method: Method, latents: Tensor, row: Row, probed: list[str] | None = None
) -> dict[str, list[tuple[Row, Decision]]]:
    """One decision per part of the row: {guidance branch: [(part, decision), ...]}.

    The key is "" if one decision covers all branches. `probed` receives the names of the signals that were measured.
    A row that updates no slot (a clean pass) is computed; the method is not asked.
    """
    if not row.updating:
        return {"": [(row, Decision(Mode.RECOMPUTE, why=row.forced))]}

    @cache
    def probe(name: str) -> Tensor:
        if probed is not None:
            probed.append(name)
        return model.probe(name, latents, row)

    parts = row.units() if method.grain == "unit" else [row]
    plan: dict[str, list[tuple[Row, Decision]]] = {}
    for branch in model.branches if method.branchwise else ("",):
        plan[branch] = []
        for part in parts:
            start = part.slots.start - row.slots.start
            decision = method.decide(part, _within(probe, start, len(part.slots)), branch)
            if row.forced and (decision.mode is not Mode.RECOMPUTE or decision.tokens):
                decision = Decision(Mode.RECOMPUTE, decision.score, row.forced)
            method.settle(part, decision, branch)
            plan[branch].append((part, decision))
    return plan


def _within(probe: Callable[[str], Tensor], start: int, length: int) -> Callable[[str], Tensor]:
    return lambda name: probe(name)[start : start + length]
