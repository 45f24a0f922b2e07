"""Search the best fixed schedule of a budget (method=budget), and write it down as an operating point.

    python run.py experiment=search_schedule model=skyreels_tiny speed=fast target=forwards:12
    python run.py experiment=search_schedule model=magi1_tiny speed=slow target=forwards:24 tries=120 prompts.limit=4

The budget is the number of steps that every AR unit computes. Under full attention a unit attends to all others, so
only whole rows save time: the budget is the number of rows, and a row in which a unit begins is always computed. A
schedule is judged by the mean squared error of the final latents, relative to the Original's, over prompts that nothing
is reported on. Order, selective computation and the model's settings are those of the command line.

conf/point/<model>/<method>_<speed>.yaml holds the schedule and its evidence (with random weights or a read-only menu:
RESULTS/calibration, see `into`). RESULTS/calibration/<model>/<method>_<speed>_schedules.json holds every schedule tried
and is written after each: the same command goes on where an earlier one was stopped.
"""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from conf.schema import CONF, ConfigError, read_target
from engine.fingerprint import code_of
from engine.method import Method
from engine.row import Row
from store import Store, writing
from sweep.calibration.prompts import check_apart
from sweep.calibration.task import FOLDER, command, place, settings_of
from sweep.calibration.trial import SEED, Trial
from sweep.cell import Cell
from sweep.events import Notify, nobody, out
from sweep.schedules.search import Schedule, ScheduleSearch, by_unit

MADE_FOR = ("name", "frames", "steps", "attention", "ar_step", "block", "window", "chunk")  # of either model
QUANTITY = "forwards"


@dataclass
class Found:
    """The schedule that a search ended with, and what speaks for it."""

    count: int  # computed steps of every unit, or rows
    schedule: Schedule
    errors: list[float]  # of the latents, relative, one per prompt
    even: float  # the same of the evenly spread schedule, mean over prompts
    share: float  # of the Original's FLOPs
    tried: int


def run(cell: Cell, store: Store, notify: Notify = nobody) -> list[str]:
    """Search one schedule and write it; returns what failed. Raises ConfigError."""
    count = asked(cell, store)
    trial = Trial(cell.model, cell.base, cell.method, "flops", notify)
    trial.prepare(cell.prompts, store.cache("text", "x").parent)
    found = searched(cell, count, trial, store, notify)
    path = place(cell, store) / "point" / cell.model.name / f"{cell.name}_{cell.run.speed}.yaml"
    with writing(path) as draft:
        draft.write_text(text_of(cell, found), encoding="utf-8")
    hint = "" if path.is_relative_to(CONF) else f"; use it with --config-dir {path.parents[2]}"
    out.print(f"{path} holds it{hint}", markup=False)
    out.print(json.dumps(asdict(found)), markup=False)
    return []


def asked(cell: Cell, store: Store) -> int:
    """The budget of a search that can be made. Raises ConfigError."""
    own = {field.name for field in fields(cell.method)}  # type: ignore[arg-type]
    if "computed" not in own:
        raise ConfigError(f"method={cell.name} has no schedule to search; want method=budget")
    return budget_of(cell, store)


def budget_of(cell: Cell, store: Store) -> int:
    """The steps that every AR unit may compute. Raises ConfigError for what is no budget, or no calibration."""
    if cell.run.speed == "none" or cell.run.point.paper:
        raise ConfigError(f"speed={cell.run.speed} names no point to write; want speed=slow or speed=fast")
    quantity, value = read_target(cell.run.target) if cell.run.target else ("", 0.0)
    fewest, most, what = 1, cell.model.schedule()[0].steps, "whole steps of every AR unit"
    if both_ways(cell):
        fewest, most, what = len(begins(cell)), rows_of(cell), "whole rows"
    if quantity != QUANTITY or value != int(value) or not fewest <= value <= most:
        raise ConfigError(
            f"target={cell.run.target or '(none)'}: a schedule is made for {what}, target=forwards:{fewest} to "
            f"forwards:{most}"
        )
    check_apart(cell.prompts, store)
    return int(value)


def both_ways(cell: Cell) -> bool:
    """Whether an AR unit attends to later ones too, so that only whole rows save time: SkyReels-V2, full attention."""
    return made_for(cell).get("attention") == "full"


def rows_of(cell: Cell) -> int:
    """The rows of the first segment."""
    rows = cell.model.schedule()
    return sum(row.segment == rows[0].segment for row in rows)


def begins(cell: Cell) -> tuple[int, ...]:
    """The rows in which the AR units begin."""
    rows = cell.model.schedule()
    return tuple(sorted({lag_of(rows) * unit for unit in range(units_of(rows))}))


def made_for(cell: Cell) -> dict[str, Any]:
    """The settings of the model that a schedule depends on."""
    settings = asdict(cell.model.settings)
    return {name: settings[name] for name in MADE_FOR if name in settings}


def searched(cell: Cell, count: int, trial: Trial, store: Store, notify: Notify) -> Found:
    """The best schedule of `count` steps; what was tried before for the same question is not tried again."""
    file = store.root / FOLDER / cell.model.name / f"{cell.name}_{cell.run.speed}_schedules.json"
    question = question_of(cell, count)
    errors = recalled(file, question)
    if errors:
        notify("say", f"goes on: {len(errors)} schedules are known from {file}")
    rows = cell.model.schedule()

    steps, lag, units = rows[0].steps, lag_of(rows), units_of(rows)
    whole = both_ways(cell)

    def lists(schedule: Schedule) -> list[list[int]]:
        return by_unit(schedule[0], steps, lag, units) if whole else [list(own) for own in schedule]

    def method(schedule: Schedule) -> Method:
        turned = {"computed": lists(schedule), "made_for": made_for(cell)}
        made: Method = replace(cell.method, **turned)  # type: ignore[type-var]
        return made

    def measure(schedule: Schedule) -> float:
        begun = time.perf_counter()
        errors[schedule] = trial.apart(method(schedule), f"schedule {len(errors) + 1} of at most {cell.run.tries}")
        remember(file, question, errors)
        notify("made", f"error {mean(errors[schedule]):.3g}", time.perf_counter() - begun)
        return mean(errors[schedule])

    notify("cell", cell.label, max(0, cell.run.tries - len(errors)))
    known = {schedule: mean(own) for schedule, own in errors.items()}
    space = (rows_of(cell), count, 1, 0) if whole else (steps, count, units, lag)
    search = ScheduleSearch(measure, *space, cell.run.tries, fixed=begins(cell) if whole else (0,), tried=known)
    best, _ = search.run()
    share = trial.share(method(best))
    made = tuple(map(tuple, lists(best)))
    return Found(count, made, errors[best], mean(next(iter(errors.values()))), share, len(errors))


def units_of(rows: Sequence[Row]) -> int:
    """The most AR units that a segment denoises."""
    if rows[0].borders:
        return rows[-1].number(rows[-1].slots.start) + 1 - rows[-1].number(rows[-1].given)
    return max(max(0, row.slots.stop - row.given) // row.unit for row in rows)


def lag_of(rows: Sequence[Row]) -> int:
    """How many rows after its left neighbour an AR unit begins; 0 if they begin together."""
    starts: dict[int, int] = {}
    for row in rows:
        for unit in row.units():
            if row.segment == rows[0].segment:
                starts.setdefault(unit.slots.start, row.iteration)
    begun = sorted(starts.values())
    return begun[1] - begun[0] if len(begun) > 1 else 0


def mean(errors: Sequence[float]) -> float:
    return sum(errors) / len(errors)


def question_of(cell: Cell, count: int) -> dict[str, Any]:
    """All that the errors depend on, and the search."""
    method = {k: v for k, v in asdict(cell.method).items() if k not in ("computed", "made_for")}  # type: ignore[call-overload]
    return {
        "count": count,
        "method": method | {"code": code_of(type(cell.method))},
        "model": asdict(cell.model.settings) | {"code": code_of(type(cell.model))},
        "weights": cell.model.weights_id,
        "prompts": cell.prompts,
        "first_seed": SEED,
    }


def recalled(file: Path, question: dict[str, Any]) -> dict[Schedule, list[float]]:
    """The errors of an earlier search of the same question, in the order in which they were tried."""
    if not file.exists():
        return {}
    content = json.loads(file.read_text(encoding="utf-8"))
    same = content["question"] == json.loads(json.dumps(question))
    return {tuple(map(tuple, s)): errors for s, errors in content["tried"]} if same else {}


def remember(file: Path, question: dict[str, Any], errors: dict[Schedule, list[float]]) -> None:
    with writing(file) as draft:
        draft.write_text(json.dumps({"question": question, "tried": list(errors.items())}), encoding="utf-8")


def text_of(cell: Cell, found: Found) -> str:
    """The YAML of the operating point, with what speaks for it."""
    lists = [list(own) for own in found.schedule]
    while len(lists) > 1 and lists[-1] == lists[-2]:  # later units take the last list
        lists.pop()
    method = settings_of(cell.method) | {"computed": lists, "made_for": made_for(cell)}
    weights = "" if cell.model.settings.weights == "pretrained" else ", random weights"
    budget = f"{found.count} of {cell.model.settings.steps} steps of every AR unit"
    if both_ways(cell):
        budget = f"{found.count} of {rows_of(cell)} rows, computed as a whole"
    lines = [
        f"Searched on {datetime.date.today()}: {budget}.",
        f"Error of the final latents, relative squared: {mean(found.errors):.4g} "
        f"({' '.join(f'{e:.3g}' for e in found.errors)}); spread evenly {found.even:.4g}.",
        f"{found.tried} schedules on {len(found.errors)} prompts that are not reported on, seeds from {SEED}{weights}.",
        command(cell, "search_schedule", [f"tries={cell.run.tries}", f"prompts.limit={len(found.errors)}"]),
    ]
    why = (
        f"the best of {found.tried} schedules on {len(found.errors)} calibration prompts: {budget}; "
        f"executes {found.share:.4g} of the Original's FLOPs"
    )
    point = {"estimated": False, "why": why, "turned": list(method)}
    body = (
        yaml.safe_dump(part, default_flow_style=None, sort_keys=False, width=10_000)
        for part in ({"method": method}, {"point": point})
    )
    return "# @package _global_\n" + "".join(f"# {line}\n" for line in lines) + "".join(body)
