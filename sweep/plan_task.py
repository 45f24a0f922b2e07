"""`task=plan`: RESULTS/plan/<model>/<cell>.json, the forwards and the cost of a video, counted without weights."""

from __future__ import annotations

import json
from dataclasses import asdict

from engine.row import Row
from store import Store, writing
from sweep.cell import Cell
from sweep.cost import PUBLISHED, dry_run
from sweep.events import Notify, nobody, out

SETTINGS = (
    "frames",
    "height",
    "width",
    "fps",
    "steps",
    "guidance",
    "ar_step",
    "block",
    "base_frames",
    "overlap",
    "attention",
    "distill",
    "kv_range",
)  # the settings of both models that determine the count


def run(cell: Cell, store: Store, notify: Notify = nobody) -> list[str]:
    """Write the dry run of the cell and, per iteration, the forwarded and the updated slots as [first, last + 1)."""
    rows = [cell.method.narrow(row) for row in cell.model.schedule()]
    alike = rows == list(cell.model.schedule()) and cell.name != "original"  # then its matrix is the Original's
    matrix = [] if alike else [_line(row) for row in rows]
    stated = asdict(cell.model.settings)
    settings = {name: stated[name] for name in SETTINGS if name in stated}
    found = dry_run(cell) | {"unit": rows[0].unit, "settings": settings, "matrix": matrix}
    with writing(store.root / "plan" / f"{store.cell(cell.model.name, cell.name, cell.speed)}.json") as draft:
        draft.write_text(json.dumps(found))
    printed = cell.run.point.expects.get("flops_pf") or (PUBLISHED.get(cell.model.name) if cell.speed is None else None)
    beside = f", {printed:.4g} printed in SCOPE's Table 1" if printed else ""
    out.print(
        f"{cell.label}: {found['iterations']} iterations, {found['forwards']} forwards, "
        f"{found['flops_pf']['dense']:.4g} PFLOP if nothing is skipped; planned {found['planned_pf']['dense']:.4g} "
        f"({found['planned_from']}){beside}"
    )
    return []


def _line(row: Row) -> list[int]:
    """The forwarded and the updated slots of a row; a clean pass updates none."""
    first = row.updating[0] if row.updating else row.slots.start
    return [row.slots.start, row.slots.stop, first, first + len(row.updating)]
