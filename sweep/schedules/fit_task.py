"""Fit the schedule and the gains of method=ramp to a few videos of the Original, and write them down.

    python run.py experiment=fit_ramp model=skyreels_tiny speed=fast target=forwards:12
    python run.py experiment=fit_ramp model=magi1_tiny speed=slow target=forwards:24 prompts.limit=8

The budget is the number of steps that every AR unit but the first computes. The velocities of the Original are recorded
on prompts that nothing is reported on, and only their inner products are kept, of the first AR unit and of all others.
What is found is run on the same prompts to say how far its videos are from the Original's, with the fitted gains and
with all gains 1, of which the better is written.

conf/point/<model>/<method>_<speed>.yaml holds the result and its evidence (with random weights or a read-only menu:
RESULTS/calibration, see `into`).
"""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from conf.schema import CONF, ConfigError
from engine.fingerprint import code_of
from engine.method import Method
from engine.row import VELOCITY, Row, Site
from store import Store, fingerprint, writing
from sweep.calibration.task import FOLDER, place, settings_of
from sweep.calibration.trial import SEED, Trial
from sweep.cell import Cell
from sweep.events import Notify, nobody, out
from sweep.schedules.fit import Statistics, best, budgets
from sweep.schedules.task import budget_of, lag_of, made_for, mean

KINDS = 2  # of AR units that have a list of their own: the first of a segment, and the others


@dataclass
class Recorder(Method):
    """The Original, which keeps the velocities of every AR unit at every step, on the host."""

    found: dict[tuple[int, int], list[Tensor]] = field(default_factory=dict)  # by segment and first slot of the unit

    def sites(self, depth: int, row: Row) -> Sequence[Site]:
        return (VELOCITY,)

    def keep(self, site: Site, part: Row, x: Tensor, out: Tensor) -> None:
        for unit in part.units():
            a = unit.slots.start - part.slots.start
            own = out[a : a + len(unit.slots)].float().flatten()
            self.found.setdefault((part.segment, unit.slots.start - part.given), []).append(own.cpu())

    def products(self, unit: int) -> list[np.ndarray]:
        """Inner products (steps, steps) of the velocities of a unit, per value, mean over units; by kind of unit."""
        sums: list[list[np.ndarray]] = [[] for _ in range(KINDS)]
        for (_, first), velocities in self.found.items():
            stacked = torch.stack(velocities).double()
            kind = min(max(0, first) // unit, KINDS - 1)
            sums[kind].append((stacked @ stacked.T / stacked.shape[1]).numpy())
        return [np.mean(own, axis=0) if own else np.zeros((0, 0)) for own in sums]


def run(cell: Cell, store: Store, notify: Notify = nobody) -> list[str]:
    """Fit one schedule and write it; returns what failed. Raises ConfigError."""
    if "gains" not in {own.name for own in fields(cell.method)}:  # type: ignore[arg-type]
        raise ConfigError(f"method={cell.name} has no gains to fit; want method=ramp")
    count = budget_of(cell, store)
    trial = Trial(cell.model, cell.base, cell.method, "flops", notify)
    trial.prepare(cell.prompts, store.cache("text", "x").parent)
    statistics = measured(cell, trial, store)
    rows = cell.model.schedule()
    forced = [mandatory(rows, kind) for kind in range(KINDS)]
    shares = budgets(rows[0].steps, lag_of(rows), count, forced)
    try:
        found = [best(own, *share) for own, share in zip(statistics, shares, strict=False)]
    except ValueError as error:
        return [f"{cell.model.name} {cell.name}: target={cell.run.target} cannot be reached: {error}"]
    lists = [steps for steps, _ in found]
    gains = [own.gains(steps) for own, steps in zip(statistics, lists, strict=True)]
    turned = {"computed": lists, "gains": gains, "made_for": made_for(cell)}
    method: Method = replace(cell.method, **turned)  # type: ignore[type-var]
    plain: Method = replace(cell.method, **turned | {"gains": []})  # type: ignore[type-var]
    errors, without = trial.apart(method, "fitted"), trial.apart(plain, "all gains 1")
    evidence = {"errors": errors, "gains all 1": without, "share": trial.share(method)}
    if not helps(errors, without):  # errors of several gaps may amplify each other, which no product shows
        method, turned["gains"] = plain, []
    path = place(cell, store) / "point" / cell.model.name / f"{cell.name}_{cell.run.speed}.yaml"
    with writing(path) as draft:
        draft.write_text(text_of(cell, count, method, evidence), encoding="utf-8")
    hint = "" if path.is_relative_to(CONF) else f"; use it with --config-dir {path.parents[2]}"
    out.print(f"{path} holds it{hint}", markup=False)
    out.print(json.dumps({"count": count, **turned, **evidence}), markup=False)
    return []


def helps(errors: Sequence[float], without: Sequence[float]) -> bool:
    """Whether the fitted gains are kept: better in the mean logarithm, and on at least half of the prompts.

    >>> helps([0.1, 0.3], [0.2, 0.2]), helps([0.01, 0.3, 0.3], [0.2, 0.2, 0.2])
    (True, False)
    """
    better = sum(a <= b for a, b in zip(errors, without, strict=True))
    return level(errors) <= level(without) and 2 * better >= len(errors)


def level(errors: Sequence[float]) -> float:
    """The mean logarithm, so that a video that is hard for both does not decide."""
    return mean([math.log(max(error, 1e-12)) for error in errors])


def measured(cell: Cell, trial: Trial, store: Store) -> list[Statistics]:
    """The statistics of every kind of AR unit, mean over the prompts; kept, since they serve every budget."""
    rows = cell.base.schedule()
    asked = {"model": asdict(cell.base.settings) | {"code": code_of(type(cell.base))}, "weights": cell.base.weights_id}
    key = fingerprint(asked | {"prompts": cell.prompts, "first_seed": SEED})
    file = store.root / FOLDER / cell.model.name / f"velocities_{key}.json"
    if not file.exists():
        recorded = []
        for number in range(len(cell.prompts)):
            recorder = Recorder()
            trial.watched(number, recorder)
            recorded.append(recorder.products(rows[0].unit))
        kinds = [[own for own in kind if own.size] for kind in zip(*recorded, strict=True)]
        with writing(file) as draft:
            draft.write_text(json.dumps([np.mean(own, axis=0).tolist() for own in kinds if own]), encoding="utf-8")
    products = json.loads(file.read_text(encoding="utf-8"))
    return [Statistics(np.array(own), levels_of(rows)) for own in products]


def levels_of(rows: Iterable[Row]) -> np.ndarray:
    """The steps + 1 noise levels of a slot."""
    found: dict[int, float] = {}
    for row in rows:
        for k, before, after, on in zip(row.step, row.sigma, row.sigma_next, row.active, strict=True):
            if on:
                found |= {k: before, k + 1: after}
    return np.array([found[k] for k in sorted(found)])


def mandatory(rows: Iterable[Row], kind: int) -> set[int]:
    """The steps of a kind of AR unit that are computed in any case, because their rows may not be skipped."""
    return {
        unit.step[0]
        for row in rows
        if row.forced
        for unit in row.units()
        if min((unit.slots.start - row.given) // row.unit, KINDS - 1) == kind
    }


def text_of(cell: Cell, count: int, method: Method, evidence: dict[str, Any]) -> str:
    """The YAML of the operating point, with what speaks for it."""
    errors, weights = evidence["errors"], "" if cell.model.settings.weights == "pretrained" else ", random weights"
    lines = [
        f"Fitted on {datetime.date.today()}: {count} of {cell.model.settings.steps} steps of an AR unit, and gains.",
        f"On {len(errors)} prompts that are not reported on, seeds from {SEED}{weights}.",
        f"Error of the final latents there, relative squared: {' '.join(f'{e:.3g}' for e in errors)} "
        f"with the fitted gains, {' '.join(f'{e:.3g}' for e in evidence['gains all 1'])} with all gains 1.",
        f"python run.py experiment=fit_ramp model={cell.model.name} method={cell.name} speed={cell.run.speed} "
        f"target={cell.run.target} prompts.limit={len(errors)}",
    ]
    why = f"fitted to {len(errors)} calibration videos; executes {evidence['share']:.4g} of the Original's FLOPs"
    own = settings_of(method)
    turned = list(own)
    point = {"estimated": False, "why": why, "turned": turned}
    body = (
        yaml.safe_dump(part, default_flow_style=None, sort_keys=False, width=10_000)
        for part in ({"method": own}, {"point": point})
    )
    return "# @package _global_\n" + "".join(f"# {line}\n" for line in lines) + "".join(body)
