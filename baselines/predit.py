"""PrediT (arXiv 2602.18093): Adams-Bashforth prediction of the model's output, corrected at real evaluations.

    predict   v(s) = v0 + h [(1 + w/2) f0 - w/2 f1],  h = s - s0,  w = h / (s0 - s1)          two-step Adams-Bashforth
    correct   f0 = d + c (d - f1),  d = (v0 - v1) / (s0 - s1)                   slope at s0, after a real evaluation
              c = 1: the trapezoid rule (Adams-Moulton) solved for the slope at s0, so that it gives v0 exactly
              c = 0: the plain backward difference
              only if r >= `dynamics`: the paper corrects in regions of high dynamics
    horizon   J = floor(tau / (r + eps)^(1 / (p + 1))),  J <= 8,  r = mean|v0 - v1| / mean|v1|      steps predicted

s is the noise level, f the slope of the velocity along it, and p = 2 the order of the predictor. Its error over J steps
grows like J^(p + 1). If the velocity changes faster, it is evaluated earlier: r > tau^3 evaluates every step, and
r = tau^3 / 8 allows two predicted steps.

Site: velocity.
Signal: the change between the last two evaluations; depends on the content.
Memory: 3 latents (one velocity, two slopes).
Released: no code is public; the horizon as described; shown by
tests/test_probing_methods.py::test_predits_horizon_is_the_tolerance_over_the_cube_root_of_the_change_and_at_most_eight.
Changed: no code is public. The formula of the horizon is from notes about the paper, and its brackets are uncertain.
The root of the whole quotient would be the same rule with another tau. The paper states no tau for these models, so
ours is estimated. Coefficients for unequal gaps, `dynamics`, warm-up, cool-down and this corrector are ours. The
corrector is off by default: an error of the slope returns with alternating sign (undamped at c = 1). On a small partly
trained model every tested c > 0 was worse than 0 at equal settings, and c = 1 diverged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from baselines.shared.cadence import own_steps, within
from engine.discrepancy import relative_l1
from engine.history import History, column
from engine.knob import Knob
from engine.method import Method, Probe
from engine.row import VELOCITY, Decision, Mode, Row, Site

if TYPE_CHECKING:
    from torch import Tensor

ORDER = 2  # p, of two-step Adams-Bashforth
EPS = 1e-12


@dataclass
class PrediT(Method):
    """Predicts the velocity for a number of steps that depends on its last change."""

    tolerance: float  # tau; raising it: longer horizons; faster, larger errors; 0 evaluates every step
    max_horizon: int = 8  # largest number of consecutive predicted steps; raising it: faster, larger errors
    corrector: float = 0.0  # c; raising it to 1: slopes of second order, which amplify errors; 0: backward differences
    dynamics: float = 0.0  # smallest change r that is corrected; raising it: corrects only fast changes
    warmup: int = 3  # first steps of a slot that are always computed; raising it: slower, smaller errors
    cooldown: int = 1  # last steps of a slot that are always computed; raising it: slower, sharper

    least_steps = 3
    knobs = (Knob("tolerance", 1e-2, 10.0), Knob("max_horizon", 1, 10, whole=True))

    def __post_init__(self) -> None:
        for name in ("tolerance", "max_horizon", "dynamics", "warmup", "cooldown"):
            within(name, getattr(self, name), 0, math.inf)
        within("corrector", self.corrector, 0, 1)
        self.reset()

    def reset(self) -> None:
        self.velocity, self.slope = History(1), History(2)
        self.rate: dict[int, Tensor] = {}  # r, on the device
        self.skipped: dict[int, int] = {}

    def decide(self, part: Row, probe: Probe, branch: str = "") -> Decision:
        slots = part.updating
        if any(slot not in self.rate for slot in slots):
            return Decision(Mode.RECOMPUTE, why="no history")
        rate = float(torch.stack([self.rate[slot] for slot in slots]).max())
        done, left = own_steps(part)
        if done < self.warmup:
            return Decision(Mode.RECOMPUTE, rate, "warm-up")
        if left <= self.cooldown:
            return Decision(Mode.RECOMPUTE, rate, "cool-down")
        if max(self.skipped.get(slot, 0) for slot in slots) >= self.horizon(rate):
            return Decision(Mode.RECOMPUTE, rate, "horizon")
        return Decision(Mode.PREDICT, rate)

    def horizon(self, rate: float) -> int:
        """The number of steps that are predicted after an evaluation, if the velocity changed by `rate` in it."""
        if not math.isfinite(rate):
            return 0
        reach = self.tolerance / (rate + EPS) ** (1 / (ORDER + 1))
        return math.floor(min(reach + 1e-6, self.max_horizon))  # 1e-6: rounding must not lower a whole number

    def settle(self, part: Row, decision: Decision, branch: str = "") -> None:
        fresh = decision.mode is Mode.RECOMPUTE
        for slot in part.updating:
            self.skipped[slot] = 0 if fresh else self.skipped.get(slot, 0) + 1

    def sites(self, depth: int, row: Row) -> Sequence[Site]:
        return (VELOCITY,)

    def keep(self, site: Site, part: Row, x: Tensor, out: Tensor) -> None:
        for slot, level, v in zip(part.updating, _levels(part), out[_active(part)].unsqueeze(1), strict=True):
            if self.velocity.count(slot):
                before = self.velocity.last([slot])
                self.rate[slot] = relative_l1(v, before, 1e-12)[0]
                slope = (v - before) / (level - self.velocity.levels[slot][-1])
                if self.corrector and self.slope.count(slot):
                    share = self.corrector * (self.rate[slot] >= self.dynamics)
                    slope = slope + share * (slope - self.slope.last([slot]))
                self.slope.push([slot], [level], slope, part.settled)
            self.velocity.push([slot], [level], v, part.settled)

    def fill(self, site: Site, part: Row, mode: Mode, x: Tensor) -> Tensor:
        slots, at = part.updating, _levels(part)
        reach = [level - self.velocity.levels[slot][-1] for slot, level in zip(slots, at, strict=True)]
        h = column(reach, x)
        # the mean slope over the step: the value of the line through f1 and f0 half-way to the target
        halfway = [level - step / 2 for level, step in zip(at, reach, strict=True)]
        slope = self.slope.predict(slots, _line, halfway, [min(1, self.slope.count(slot) - 1) for slot in slots])
        out = torch.zeros_like(x)  # idle frames are not stepped, so their velocity is never read
        out[_active(part)] = self.velocity.last(slots) + h * slope
        return out

    def state(self) -> Iterable[Tensor]:
        return (*self.velocity.tensors(), *self.slope.tensors(), *self.rate.values())


def _line(points: Sequence[tuple[float, Tensor]], at: float) -> Tensor:
    (s0, f0), older = points[-1], points[:-1]
    return f0 + (at - s0) / (s0 - older[-1][0]) * (f0 - older[-1][1]) if older else f0


def _levels(part: Row) -> list[float]:
    return list(part.sigma[_active(part)])


def _active(part: Row) -> slice:
    """Where the updating slots, which are contiguous, lie in the part's tensors."""
    return slice(part.updating[0] - part.slots.start, part.updating[-1] + 1 - part.slots.start)
