"""What a sweep would cost, before anything is built or generated."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from engine.ledger import flops, forwards, plan
from sweep.cell import Cell
from sweep.work import out


def dry_run(cell: Cell) -> dict[str, Any]:
    """What a video of this cell would cost if no step were skipped; frames left out by selective computation are."""
    model = cell.model
    rows = [cell.method.narrow(row) for row in model.schedule()]
    ledger = plan(rows)
    dense, masked = flops(ledger, model.price)
    found = {
        "model": model.name,
        "method": cell.name,
        "speed": cell.speed,
        "iterations": len(rows),
        "forwards": forwards(ledger, len(model.branches)),
        "segments": [sum(row.segment == s for row in rows) for s in sorted({row.segment for row in rows})],
        "flops_pf": {"dense": round(dense / 1e15, 4), "masked": round(masked / 1e15, 4)},
        "parameters": model.parameters,
        "videos": len(cell.prompts) * len(cell.run.seeds),
    }
    return found | (model.plan_counts() if hasattr(model, "plan_counts") else {})


def print_plans(planned: list[dict[str, Any]]) -> None:
    """The dry runs of a sweep as one table."""
    columns = ("model", "method", "speed", "videos", "iterations", "forwards", "PFLOP dense", "masked", "all videos")
    table = Table(*columns, title="what it would cost if no step were skipped", box=None, title_justify="left")
    for plan_ in planned:
        pf = plan_["flops_pf"]
        cells = [plan_[name] for name in ("model", "method", "speed", "videos", "iterations", "forwards")]
        cells += [f"{pf['dense']:.4g}", f"{pf['masked']:.4g}", f"{pf['dense'] * plan_['videos']:.4g}"]
        table.add_row(*("" if cell is None else str(cell) for cell in cells))
    out.print(table)
