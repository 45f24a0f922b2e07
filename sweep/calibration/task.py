"""Find the operating point of a method (values of its knobs that meet a target cost) and write it to a file.

    python run.py experiment=calibrate model=skyreels_tiny method=scope speed=fast
    python run.py experiment=calibrate method=teacache speed=slow target=flops:0.447      # or speedup:2.1, lpips:0.05
    python run.py -m experiment=calibrate model=skyreels_tiny,magi1_tiny speed=slow,fast \\
        method=delta_dit,teacache,taylorseer,flowcache,scope

The default target is the executed share of the Original's FLOPs in the paper's line of this method and speed. All
settings except the knobs (`Method.knobs`) keep their values from the current operating point or the command line. The
calibration prompts are never used in reports. If decisions do not depend on the content, the search runs without
forwards (a rehearsal). Real videos then check the result; if they disagree, the search is repeated with real videos.

conf/point/<model>/<method>_<speed>.yaml gets the point and the measured values. With random weights or a read-only
menu, the file is in RESULTS/calibration (see `into`). RESULTS/calibration/<model>/<method>_<speed>.json lists all tried
settings.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml
from rich.table import Table

from conf.schema import CONF, ConfigError, read_target
from engine.knob import Knob
from engine.method import Method
from reports.published import cells
from store import Store, writing
from sweep.calibration.prompts import check_apart
from sweep.calibration.search import Search, Unreachable
from sweep.calibration.trial import QUANTITIES, Trial
from sweep.cell import Cell
from sweep.events import Notify, nobody, out

REAL = 24  # most settings to try if each needs real videos
FOLDER = "calibration"  # below the results folder
SHOWN = 12  # lines of the printed table
UNITS = {"flops": "of the Original's FLOPs", "speedup": "times the Original's speed", "lpips": "LPIPS"}


@dataclass
class Goal:
    """The target of a search, and its source."""

    quantity: str
    value: float
    source: str


def run(cell: Cell, store: Store, notify: Notify = nobody) -> list[str]:
    """Search one operating point and write it. Returns the failures, one line each. Raises ConfigError."""
    goal, knobs, name = goal_of(cell), knobs_of(cell), f"{cell.name}_{cell.run.speed}"
    check_apart(cell.prompts, store)
    notify("say", f"{cell.model.name} {name}: {goal.quantity} {goal.value:.4g} ({goal.source})")
    trial = Trial(cell.model, cell.base, cell.method, goal.quantity, notify)
    trial.prepare(cell.prompts, store.cache("text", "x").parent)
    begin = {knob.name: float(getattr(cell.method, knob.name)) for knob in knobs}
    try:
        search, settings, reached, free = found(trial, goal, knobs, begin)
    except Unreachable as error:
        wanted = f"target={goal.quantity}:{goal.value:.4g}"
        return [f"{cell.model.name} {name}: {wanted} cannot be reached: {error}"]
    show(search, goal, name)
    point = text_of(cell, goal, knobs, settings, reached, trial, len(search.tried), free)
    path = place(cell, store) / "point" / cell.model.name / f"{name}.yaml"
    with writing(path) as draft:
        draft.write_text(point, encoding="utf-8")
    summary = {
        "model": cell.model.name,
        "method": cell.name,
        "speed": cell.run.speed,
        "quantity": goal.quantity,
        "target": goal.value,
        "reached": reached,
        "per_prompt": trial.values,
        "settings": settings,
        "rehearsed": free,
        "weights": trial.model.weights_id,
        "prompts": cell.prompts,
    }
    tried = [{**dict(key), goal.quantity: value if value == value else None} for key, value in search.tried.items()]
    with writing(store.root / FOLDER / cell.model.name / f"{name}.json") as draft:
        draft.write_text(json.dumps({**summary, "tried": tried}, indent=1), encoding="utf-8")
    hint = "" if path.is_relative_to(CONF) else f"; use it with --config-dir {path.parents[2]}"
    out.print(f"{path} holds it{hint}", markup=False)
    out.print(json.dumps({k: v for k, v in summary.items() if k not in ("prompts", "weights")}), markup=False)
    return []


def found(
    trial: Trial, goal: Goal, knobs: list[Knob], begin: Mapping[str, float]
) -> tuple[Search, dict[str, float], float, bool]:
    """The search, its result, the measured values in real videos, and whether it was rehearsed."""
    rises = QUANTITIES[goal.quantity]
    if goal.quantity == "flops" and trial.agrees(trial.turned({})):
        search = Search(trial.rehearsed, goal.value, rises)
        settings, rehearsed = search.run(knobs, begin)
        reached = trial.measured(settings)
        if abs(reached - rehearsed) < 1e-6:
            return search, settings, reached, True
    search = Search(trial.measured, goal.value, rises, REAL)
    settings, reached = search.run(knobs, begin)
    trial.values = trial.by_settings[tuple(settings.items())]
    return search, settings, reached, False


def goal_of(cell: Cell) -> Goal:
    """The target of the command line, or else that of the paper. Raises ConfigError if there is neither."""
    if cell.run.target:
        quantity, value = read_target(cell.run.target)
        if quantity not in QUANTITIES:
            raise ConfigError(f"target={cell.run.target} is no cost of a setting; want {', '.join(QUANTITIES)}")
        return Goal(quantity, value, "as asked")
    identity = {"model": cell.model.name, "method": cell.name, "speed": cell.run.speed, "variant": ""}
    own = cells(identity) or cells({**identity, "speed": ""})
    whole = cells({**identity, "method": "original", "speed": ""})
    if not own or not whole:
        raise ConfigError(
            f"the paper has no value for {cell.name} at speed={cell.run.speed} on {cell.model.name}; set a target, "
            "e.g. target=flops:0.4, target=speedup:2 or target=lpips:0.05"
        )
    pair = f"{own['flops_pf']:g} of {whole['flops_pf']:g} PFLOP"
    return Goal("flops", own["flops_pf"] / whole["flops_pf"], f"SCOPE, Table 1: {pair}")


def knobs_of(cell: Cell) -> list[Knob]:
    """The method's knobs. Dependent settings keep their ratio to the knob. Raises ConfigError if there are no knobs."""
    if not cell.method.knobs:
        raise ConfigError(
            f"method={cell.name} has no knobs: its cost is fixed or depends on its parts; calibrate the parts, choose "
            "its settings by hand, or name in `knobs` of its class the settings to search (engine/knob.py)"
        )
    if cell.run.speed == "none":
        raise ConfigError("speed=none names no operating point to write; want speed=slow or speed=fast")
    if cell.run.point.paper:
        raise ConfigError(
            f"speed={cell.run.speed} has the paper's numbers, which must not be tuned; want speed=slow or speed=fast"
        )
    return [_with_present_share(knob, cell.method) for knob in cell.method.knobs]


def _with_present_share(knob: Knob, method: Method) -> Knob:
    value = getattr(method, knob.name)
    shares = {other: getattr(method, other) / value if value else share for other, share in knob.follows.items()}
    return replace(knob, follows=shares)


def _at(method: Method, knob: Knob) -> dict[str, Any]:
    """The settings that `knob` changes, with the values of `method`."""
    return {name: getattr(method, name) for name in (knob.name, *knob.follows)}


def show(search: Search, goal: Goal, name: str) -> None:
    """Print the tried settings nearest to the goal."""
    near = sorted(search.tried.items(), key=lambda pair: abs(pair[1] - goal.value))[:SHOWN]
    table = Table("setting", goal.quantity, "off by", title=f"{name}: {len(near)} of {len(search.tried)} tried")
    for settings, value in near:
        off = f"{100 * (value / goal.value - 1):+.1f} %"
        table.add_row(", ".join(f"{k}={v:g}" for k, v in settings), f"{value:.4f}", off)
    out.print(table)


def place(cell: Cell, store: Store) -> Path:
    """The file to write. Settings found on random weights are not operating points and stay in the results folder."""
    if cell.run.into:
        return Path(cell.run.into).expanduser().absolute()
    ours = cell.model.settings.weights == "pretrained" and os.access(CONF / "point", os.W_OK)
    return CONF if ours else store.root / FOLDER


def command(cell: Cell, experiment: str, more: Sequence[str]) -> str:
    """What writes the same operating point again; `more` has settings that replace the cell's own."""
    given = {word.partition("=")[0] for word in more}
    changed = [f"{name}={value}" for name, value in cell.order.changed.items() if name not in given]
    words = [f"experiment={experiment}", f"model={cell.model.name}", f"method={cell.name}", f"speed={cell.run.speed}"]
    target = [f"target={cell.run.target}"] if cell.run.target else []
    return " ".join(["python run.py", *words, *changed, *target, *more])


def settings_of(method: Method) -> dict[str, Any]:
    """The settings of `method` that differ from the defaults of its class."""
    own = {}
    for field in fields(method):  # type: ignore[arg-type]
        default = _default(field)
        value = getattr(method, field.name)
        if default is MISSING or value != default:
            own[field.name] = value
    return own


def turned(cell: Cell, method: Mapping[str, Any]) -> list[str]:
    """The settings of `method` that differ from the same operating point of the full-size model."""
    full = CONF / "point" / cell.model.name.removesuffix("_tiny") / f"{cell.name}_{cell.run.speed}.yaml"
    published = yaml.safe_load(full.read_text(encoding="utf-8"))["method"] if full.exists() else {}
    plain = {field.name: _default(field) for field in fields(cell.method)}  # type: ignore[arg-type]
    ours, theirs = plain | dict(method), plain | published
    return [name for name in plain if ours[name] != theirs[name]]


def _default(field: Field[Any]) -> Any:
    """The default of a dataclass field; MISSING if it has none."""
    return field.default_factory() if field.default_factory is not MISSING else field.default


def text_of(
    cell: Cell,
    goal: Goal,
    knobs: list[Knob],
    settings: Mapping[str, float],
    reached: float,
    trial: Trial,
    count: int,
    free: bool,
) -> str:
    """The YAML of the operating point, with the measurements in comments."""
    weights = "" if cell.model.settings.weights == "pretrained" else ", random weights"
    unit = UNITS[goal.quantity]
    how = "rehearsed, then checked in real videos" if free else "in real videos"
    begun = " ".join(f"method.{name}={value}" for knob in knobs for name, value in _at(cell.method, knob).items())
    lines = [
        f"Searched on {datetime.date.today()} for {goal.value:.4g} {unit} ({goal.source}).",
        f"Reached {reached:.4g} ({' '.join(f'{v:.4g}' for v in trial.values)}) on {len(trial.values)} calibration "
        f"prompts{weights}.",
        "Varied " + ", ".join(f"{k.name} ({k.dear:g} to {k.cheap:g})" for k in knobs) + f"; {count} settings, {how}.",
        command(cell, "calibrate", begun.split()),
    ]
    method = {**settings_of(cell.method), **settings}
    why = f"searched for {goal.value:.4g} {unit}; reached {reached:.4g} on {len(trial.values)} calibration prompts"
    body = yaml.safe_dump({"method": method}, default_flow_style=None, sort_keys=False, width=10_000)
    point = {"estimated": False, "why": why, "turned": turned(cell, method)}
    tail = yaml.safe_dump({"point": point}, default_flow_style=None, sort_keys=False, width=10_000)
    return "# @package _global_\n" + "".join(f"# {line}\n" for line in lines) + body + tail
