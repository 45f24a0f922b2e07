"""Schedules per AR unit in a stock pipeline: a forward from outside covers the first units of a row and no others.

Where a unit does not attend to later ones, that gives the same as the whole row. Units after a skipped one would need
its stored keys and values, which the stock forward does not keep.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from engine.loop import decide
from engine.method import Method
from engine.row import VELOCITY, Decision, Mode, Row
from engine.visit import Visit


def check_prefixes(hook: Any, method: Method, rows: Sequence[Row], narrow: Callable[[Row], Row]) -> None:
    """Raise ValueError if a row of `rows` needs more than its first units computed. Leaves the method reset.

    `method` decides by a schedule, so its decisions can be made beforehand, on tensors of one number per slot.
    """
    method.reset()
    for row in rows:
        if not row.updating:
            continue
        row = narrow(row)
        x = torch.zeros(len(row.slots), 1, 1, 1)
        plan = decide(hook, method, x, row)
        _check(type(method).__name__, plan[""], hook.settings.attention)
        Visit(method, row, hook.depth, plan)(VELOCITY, x, _zeros)
    method.reset()


def split(plan: Sequence[tuple[Row, Decision]]) -> tuple[list[Row], list[tuple[Row, Decision]]]:
    """The parts of a row that are computed, and the others with their decisions."""
    fresh = [part for part, decision in plan if decision.mode is Mode.RECOMPUTE]
    return fresh, [(part, decision) for part, decision in plan if decision.mode is not Mode.RECOMPUTE]


def _check(name: str, plan: Sequence[tuple[Row, Decision]], attention: str) -> None:
    fresh, skipped = split(plan)
    if not fresh or not skipped:
        return
    first, last = skipped[0][0], fresh[-1]
    where = f"at iteration {first.iteration} {name} computes unit {_unit(last)} and skips unit {_unit(first)}"
    if attention != "block_causal":
        raise ValueError(f"{where}; with full attention the units of a row are computed together, so give all one list")
    if first.slots.start < last.slots.start:
        raise ValueError(
            f"{where}, whose keys and values the stock forward does not keep; use run.py, or a schedule that computes "
            "the first units of a row wherever it computes a later one"
        )


def _unit(part: Row) -> int:
    return part.number(part.slots.start)


def _zeros(x: Tensor, parts: Sequence[Row]) -> Tensor:
    return torch.zeros(sum(len(part.slots) for part in parts), 1, 1, 1)
