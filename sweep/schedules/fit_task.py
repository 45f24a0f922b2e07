"""Write operating points of method=ramp, and measure them on a few videos that nothing is reported on.

    python run.py experiment=fit_ramp model=skyreels_tiny speed=fast target=forwards:11
    python run.py experiment=fit_ramp model=magi1_tiny speed=slow target=forwards:21 prompts.limit=8

The budget is the number of steps that every AR unit but the first computes; under full attention it is the number of
rows. The schedule follows from it and from the model's steps and lag (sweep/schedules/aligned.py). Its videos of the
calibration prompts are compared with the Original's.

conf/point/<model>/<method>_<speed>.yaml holds the result and its evidence (with random weights or a read-only menu:
RESULTS/calibration, see `into`).
"""

from __future__ import annotations

import datetime
import json
from dataclasses import fields, replace
from typing import Any

import yaml

from conf.schema import CONF, ConfigError
from engine.method import Method
from store import Store, writing
from sweep.calibration.task import command, place, settings_of
from sweep.calibration.trial import SEED, Trial
from sweep.cell import Cell
from sweep.events import Notify, nobody, out
from sweep.schedules.aligned import schedule, whole_rows
from sweep.schedules.task import both_ways, budget_of, lag_of, made_for, units_of


def run(cell: Cell, store: Store, notify: Notify = nobody) -> list[str]:
    """Make one schedule and write it; returns what failed. Raises ConfigError."""
    if "computed" not in {own.name for own in fields(cell.method)}:  # type: ignore[arg-type]
        raise ConfigError(f"method={cell.name} has no schedule to write; want method=ramp")
    count = budget_of(cell, store)
    try:
        lists = lists_of(cell, count)
    except ValueError as error:
        raise ConfigError(f"target={cell.run.target}: {error}") from None
    changes = {"computed": [*lists], "made_for": made_for(cell)}
    method: Method = replace(cell.method, **changes)  # type: ignore[type-var]
    trial = Trial(cell.model, cell.base, cell.method, "flops", notify)
    trial.prepare(cell.prompts, store.cache("text", "x").parent)
    evidence = {"errors": trial.apart(method, "aligned"), "share": trial.share(method)}
    path = place(cell, store) / "point" / cell.model.name / f"{cell.name}_{cell.run.speed}.yaml"
    with writing(path) as draft:
        draft.write_text(text_of(cell, count, method, evidence), encoding="utf-8")
    hint = "" if path.is_relative_to(CONF) else f"; use it with --config-dir {path.parents[2]}"
    out.print(f"{path} holds it{hint}", markup=False)
    out.print(json.dumps({"count": count, "computed": lists, **evidence}), markup=False)
    return []


def lists_of(cell: Cell, count: int) -> list[list[int]]:
    """The computed steps per AR unit: under full attention `count` whole rows, else `count` steps of every unit."""
    rows = cell.model.schedule()
    steps, lag = rows[0].steps, lag_of(rows)
    if both_ways(cell):
        return whole_rows(steps, lag, units_of(rows), count)
    return list(schedule(steps, lag, count))


def text_of(cell: Cell, count: int, method: Method, evidence: dict[str, Any]) -> str:
    """The YAML of the operating point, with what speaks for it."""
    errors, weights = evidence["errors"], "" if cell.model.settings.weights == "pretrained" else ", random weights"
    budget = f"{count} of {cell.model.settings.steps} steps of all AR units but the first"
    if both_ways(cell):
        budget = f"{count} rows, computed as a whole"
    lines = [
        f"Made on {datetime.date.today()}: {budget}.",
        f"Measured on {len(errors)} prompts that are not reported on, seeds from {SEED}{weights}.",
        f"Error of the final latents there, relative squared: {' '.join(f'{e:.3g}' for e in errors)}.",
        command(cell, "fit_ramp", [f"prompts.limit={len(errors)}"]),
    ]
    why = f"an aligned schedule; executes {evidence['share']:.4g} of the Original's FLOPs"
    own = settings_of(method)
    point = {"estimated": False, "why": why, "turned": list(own)}
    body = (
        yaml.safe_dump(part, default_flow_style=None, sort_keys=False, width=10_000)
        for part in ({"method": own}, {"point": point})
    )
    return "# @package _global_\n" + "".join(f"# {line}\n" for line in lines) + "".join(body)
