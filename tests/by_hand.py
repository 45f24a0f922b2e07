"""Rows, probes and a stack of plain blocks, for working a method's decisions out by hand."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace

import torch
from torch import Tensor

from engine.ledger import Entry
from engine.loop import decide
from engine.method import Method
from engine.row import Row, Site
from engine.visit import Visit

Block = Callable[[Tensor], Tensor]


def row_at(k: int, steps: int = 10, slots: int = 1, **changes: object) -> Row:
    """Row `k` of `slots` latents that are denoised together, sigma from 1 to 0."""
    values = {
        "iteration": k,
        "segment": 0,
        "slots": range(slots),
        "steps": steps,
        "step": (k,) * slots,
        "sigma": (1 - k / steps,) * slots,
        "sigma_next": (1 - (k + 1) / steps,) * slots,
        "active": (True,) * slots,
        "unit": slots,
        "last": k == steps - 1,
    }
    return Row(**{**values, **changes})  # type: ignore[arg-type]


def through(
    method: Method,
    blocks: Sequence[Block],
    inputs: Sequence[Tensor],
    rows: Sequence[Row] | None = None,
    signal: Callable[[str, int], Tensor] | None = None,
) -> tuple[list[Tensor], list[Entry]]:
    """Every input (slots, tokens, width) through the blocks, each offered to `method`; outputs and ledger."""
    outputs, ledger = [], []
    rows = rows or [row_at(k, len(inputs), len(inputs[0])) for k in range(len(inputs))]
    method.reset()
    for number, (row, x) in enumerate(zip(rows, inputs, strict=True)):
        probe = (lambda name, latents, row, number=number: signal(name, number)) if signal else None
        model = SimpleNamespace(branches=("cond",), probe=probe)
        visit = Visit(method, row, len(blocks), decide(model, method, x, row))  # type: ignore[arg-type]
        outputs.append(_forward(blocks, x, visit).clone())  # a stand-in may be the method's memory itself
        ledger += visit.entries()
    return outputs, ledger


def _forward(blocks: Sequence[Block], h: Tensor, visit: Visit) -> Tensor:
    i = 0
    while i < len(blocks):
        stop = visit.stop("blocks", i) or i + 1

        def run(x: Tensor, parts: Sequence[Row], span: range = range(i, stop)) -> Tensor:
            for j in span:
                x = blocks[j](x)
            return x

        h = visit(Site("blocks", range(i, stop), "cond"), h, run)
        i = stop
    return h


def velocities(
    method: Method,
    compute: Callable[[Tensor, int], Tensor],
    inputs: Sequence[Tensor],
    rows: Sequence[Row] | None = None,
) -> tuple[list[Tensor], list[Entry]]:
    """The velocity site alone: `compute(x, k)` is the model at row k; `inputs` are the latents, also as a signal."""
    outputs, ledger = [], []
    rows = rows or [row_at(k, len(inputs), len(inputs[0])) for k in range(len(inputs))]
    method.reset()
    for k, (row, x) in enumerate(zip(rows, inputs, strict=True)):
        model = SimpleNamespace(branches=("cond",), probe=lambda name, latents, row, x=x: x)
        visit = Visit(method, row, 1, decide(model, method, x, row))  # type: ignore[arg-type]
        outputs.append(visit(Site("velocity"), x, lambda x, parts, k=k: compute(x, k)))
        ledger += visit.entries()
    return outputs, ledger


def modes(ledger: Sequence[Entry]) -> str:
    """One letter a decision: c(ache), p(redict), r(ecompute)."""
    return "".join(entry.mode[0] for entry in ledger)


def numbers(*values: float) -> list[Tensor]:
    """Each value as a latent of one slot, (1, 1, 1, 1)."""
    return [torch.full((1, 1, 1, 1), float(value)) for value in values]
