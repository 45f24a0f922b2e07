"""SCOPE's predictors: they extrapolate the velocity from computed noise levels to a new one (Sec. 3.3, Eq. 6 and 7).

    taylor1   v0 + h d1                                        h = sigma - s0,  d1 = (v0 - v1) / (s0 - s1)     (Eq. 6)
    newton2   v0 + h d1 + h (h + h1) (d1 - d2) / (h1 + h2)     exact on quadratics at any spacing              (Eq. 7)
    taylor2   v0 + h d1 + h^2/2 c,  c = 2 (d1 - d2) / (h1 + h2)    Eq. 7 read literally; first order only
    momentum  v0 + h m,  m <- beta m + (1 - beta) d1 at each recompute, bias-corrected       (named in the paper only)
    hicache   TaylorSeer's recursion on scaled Hermite polynomials, levels in units of the last gap      (its paper)
    foca      a BDF2 forecast corrected by Heun's rule: the same line as taylor1, other arithmetic        (its paper)
    spectrum  ridge regression on Chebyshev polynomials of degree 4, up to 16 anchors               (its paper)
    auto      taylor1, newton2 or momentum, the one with the least error at past recomputes  (named in the paper only)

The history holds computed velocities only, no predicted ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from engine.forecast import Formula, Points, foca, hicache, newton, spectrum, taylor
from engine.history import History, column
from engine.to_device import picked
from scope import stability

if TYPE_CHECKING:
    from torch import Tensor

ORDER: dict[str, int] = {
    "taylor1": 1,
    "newton2": 2,
    "taylor2": 2,
    "momentum": 1,
    "hicache": 2,
    "foca": 1,
    "spectrum": 4,
    "auto": 2,
}
# the anchors that a predictor keeps and uses; Spectrum's release keeps 100, which are all of a run
ANCHORS: dict[str, int] = {name: order + 1 for name, order in ORDER.items()} | {"spectrum": 16}


def _hicache(points: Points, at: float) -> Any:
    """HiCache's formula with noise levels in units of the last gap: its fixed scale is made for steps of about 1."""
    gap = points[-1][0] - points[-2][0] if len(points) > 1 else 1.0
    return hicache([(level / gap, value) for level, value in points], at / gap)


FORMULA: dict[str, Formula] = {
    "taylor1": newton,
    "newton2": newton,
    "taylor2": taylor,
    "hicache": _hicache,
    "foca": foca,
    "spectrum": spectrum,
}
TRIED_BY_AUTO = ("taylor1", "newton2", "momentum")  # of predictors with equal errors, the first is used


@dataclass(frozen=True)
class Guards:
    """The limits of an extrapolation: h is its distance, h1 and h2 are the last gaps between anchors."""

    rho_max: float  # largest |h| / |h1|
    min_gap: float  # smallest |h1|, |h2|


def usable_order(levels: Sequence[float], at: float, wanted: int, guards: Guards) -> int:
    """The highest order <= `wanted` at level `at` that the anchors `levels` (oldest first) and the guards allow.

    An order needs one anchor more. Anchors before a gap that is too small, or of the other direction, are not used.
    """
    if not levels or wanted == 0 or len(levels) < 2:
        return 0
    h, h1 = at - levels[-1], levels[-1] - levels[-2]
    if abs(h1) < guards.min_gap or abs(h) > guards.rho_max * abs(h1):
        return 0
    order = 1
    while order < min(wanted, len(levels) - 1):
        gap = levels[-1 - order] - levels[-2 - order]
        if abs(gap) < guards.min_gap or h1 * gap <= 0:
            break
        order += 1
    return order


class Predictor:
    """One of the predictors above, with the history of velocities of all slots."""

    def __init__(self, name: str, guards: Guards, beta: float) -> None:
        self.name, self.guards, self.beta = name, guards, beta
        self.history = History(ANCHORS[name])
        self.slope = History(1)  # momentum's m
        self.updates: dict[int, int] = {}
        self.error = dict.fromkeys(TRIED_BY_AUTO, 0.0)  # running mean of the relative L1 error, for auto
        self.tried = 0
        self.pending: list[Tensor] = []  # errors that the host has not read: one per predictor of TRIED_BY_AUTO

    def keep(self, slots: Sequence[int], levels: Sequence[float], velocity: Tensor, settled: int = 0) -> None:
        """Store a computed velocity (len(slots), ...) of `slots` at `levels`; see `History.push` for `settled`."""
        moved = [i for i, s in enumerate(slots) if not self._waits(s, levels[i])]
        if len(moved) < len(slots):
            slots, levels, velocity = [slots[i] for i in moved], [levels[i] for i in moved], picked(velocity, moved)
        if not slots:
            return
        if self.name == "auto":
            self._mark(slots, levels, velocity)
        if self.name in ("momentum", "auto"):
            self._push_slope(slots, levels, velocity, settled)
        self.history.push(slots, levels, velocity, settled)

    def _waits(self, slot: int, level: float) -> bool:
        """Whether the level of a slot is unchanged. It then adds no anchor, since differences would divide by zero."""
        past = self.history.levels.get(slot, [])
        return bool(past) and past[-1] == level

    def orders(self, slots: Sequence[int], at: Sequence[float]) -> list[int]:
        """The usable order of each slot at its level in `at`, which is the number of its usable anchors less 1."""
        return self._orders(self.chosen, slots, at)

    def _orders(self, name: str, slots: Sequence[int], at: Sequence[float]) -> list[int]:
        levels, most = [self.history.levels.get(slot, []) for slot in slots], ANCHORS[name] - 1
        return [usable_order(known, level, most, self.guards) for known, level in zip(levels, at, strict=True)]

    @property
    def chosen(self) -> str:
        """The predictor in use; for "auto" the one with the least error so far."""
        if self.name != "auto":
            return self.name
        if self.pending:
            self.take(torch.stack(self.pending).tolist())
        return min(TRIED_BY_AUTO, key=lambda name: self.error[name]) if self.tried else "taylor1"

    def predict(self, slots: Sequence[int], at: Sequence[float], name: str = "") -> Tensor:
        """The velocity of `slots` at levels `at`, (len(slots), ...) float32."""
        name = name or self.chosen
        orders = self._orders(name, slots, at)
        if name != "momentum":
            return self.history.predict(slots, FORMULA[name], at, orders)
        v0, levels = self.history.last(slots), [self.history.levels.get(slot, []) for slot in slots]
        steps = [
            order * (level - known[-1]) / (1 - self.beta ** max(1, self.updates.get(slot, 0)))
            for slot, level, known, order in zip(slots, at, levels, orders, strict=True)
        ]
        if not any(steps):
            return v0
        return v0 + column(steps, v0) * self.slope.last(slots)

    def line(self, slots: Sequence[int], at: Sequence[float]) -> Tensor:
        """The line through the last two velocities of `slots` at levels `at`; every slot needs two anchors."""
        return self.history.predict(slots, newton, at, [1] * len(slots))

    def tensors(self) -> list[Tensor]:
        """The stored velocities and slopes, for the account of a method's memory."""
        return [*self.history.tensors(), *self.slope.tensors()]

    def _push_slope(self, slots: Sequence[int], levels: Sequence[float], velocity: Tensor, settled: int) -> None:
        """m <- beta m + (1 - beta) d1, starting at zero. Every slot gets an entry, which `last` needs."""
        for i, (slot, level) in enumerate(zip(slots, levels, strict=True)):
            known = self.history.levels.get(slot)
            if not known:
                self.updates[slot] = 0
                self.slope.push([slot], [level], torch.zeros_like(velocity[i : i + 1]), settled)
                continue
            d1 = (velocity[i : i + 1] - self.history.last([slot])) / (level - known[-1])
            self.updates[slot] += 1
            moved = self.beta * self.slope.last([slot]) + (1 - self.beta) * d1
            self.slope.push([slot], [level], moved, settled)

    def _mark(self, slots: Sequence[int], levels: Sequence[float], truth: Tensor) -> None:
        """Update the error of each predictor with the computed velocity, for slots with enough anchors for all."""
        ready = [i for i, slot in enumerate(slots) if self.history.count(slot) >= 3]
        if not ready:
            return
        chosen, at, truth = [slots[i] for i in ready], [levels[i] for i in ready], picked(truth, ready).float()
        size = truth.abs().mean()
        errors = torch.stack([(self.predict(chosen, at, name) - truth).abs().mean() / size for name in TRIED_BY_AUTO])
        self.pending.append(errors)

    def take(self, told: Sequence[Sequence[float]]) -> None:
        """Add the errors in `pending`, which the host has read, to the running means."""
        self.pending = []
        for errors in told:
            self.tried += 1
            share = max(1 / self.tried, 0.1)  # the mean of the first ten recomputes, then a moving average
            for name, error in zip(TRIED_BY_AUTO, errors, strict=True):
                self.error[name] += share * (error - self.error[name])

    def corrections(self, slots: Sequence[int], at: Sequence[float]) -> dict[str, Tensor]:
        """The largest correction of a slot by every predictor that may be chosen now, 0-dim; see stability.correction.

        A predictor whose order would be 0 for a slot is left out.
        """
        if any(self.history.count(slot) == 0 for slot in slots):
            return {}
        names = TRIED_BY_AUTO if self.pending else (self.chosen,)
        able = [name for name in names if min(self._orders(name, slots, at)) > 0]
        last = self.history.last(slots)
        return {name: stability.correction(self.predict(slots, at, name), last).max() for name in able}
