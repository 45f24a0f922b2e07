"""Searches values of a method's knobs for which a measured quantity meets a target. Independent of models and
videos."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from engine.knob import Knob

CLOSE = 0.01  # relative error at which the search stops
WITHIN = 0.03  # largest relative error of an accepted result
BRANCHES = 3  # number of values of a knob for which the next knob is varied

Settings = Mapping[str, float]


class Unreachable(ValueError):
    """No tried setting is close enough to the target. The message gives the range that was reached."""


@dataclass
class Search:
    """The settings that were tried, in order, and the measured values. NaN means that a setting could not be run; it
    counts as too cheap. The search is deterministic."""

    measure: Callable[[dict[str, float]], float]
    target: float
    rises: bool  # True if less computation raises the quantity (speedup, LPIPS), False if it lowers it (FLOPs)
    budget: int = 200  # most settings to try
    tried: dict[tuple[tuple[str, float], ...], float] = field(default_factory=dict)

    def run(self, knobs: Sequence[Knob], begin: Mapping[str, float]) -> tuple[dict[str, float], float]:
        """The settings nearest to the target and their measured value. `begin`: the start value of every knob.

        First only the first knob is varied. If its steps are too coarse, the second knob is varied for the best values
        of the first, and then the third. Raises Unreachable.
        """
        fixed = {knob.name: knob.held(begin[knob.name]) for knob in knobs}
        for depth in range(1, len(knobs) + 1):
            self._turn(knobs[:depth], fixed, {})
            if self._over:
                break
        settings = self.best
        if not self._error(self.tried[settings]) <= WITHIN:
            raise Unreachable(self._unreached(knobs))
        return dict(settings), self.tried[settings]

    @property
    def best(self) -> tuple[tuple[str, float], ...]:
        """The settings nearest to the target; among equals, the first one."""
        return min(self.tried, key=lambda settings: self._error(self.tried[settings]))

    def _turn(self, knobs: Sequence[Knob], fixed: Settings, chosen: dict[str, float]) -> None:
        """Try values of the first knob, with `chosen` for the knobs before it. Then vary the others at the best
        values."""
        knob, *finer = knobs
        errors = self._line(knob, fixed[knob.name], chosen)
        if finer:
            for value in sorted(errors, key=lambda v: (errors[v], abs(v - fixed[knob.name])))[:BRANCHES]:
                if self._over:
                    return
                self._turn(finer, fixed, chosen | knob.at(value))

    def _line(self, knob: Knob, begin: float, chosen: dict[str, float]) -> dict[float, float]:
        """Go from `begin` towards the target in growing steps, then bisect the last one. Returns {value: error}."""
        found: dict[float, float] = {}

        def at(value: float) -> float:
            """The signed error; above 0 if too much is computed."""
            measured = self._try(chosen | knob.at(value))
            found[value] = self._error(measured)
            return (self.target - measured if self.rises else measured - self.target) if measured == measured else -1.0

        here, excess, stride = begin, at(begin), 1.0
        sign = 1 if excess > 0 else -1
        while not self._over:
            there = knob.moved(here, sign * stride)
            if there == here:
                return found
            if at(there) * sign <= 0:
                break
            here, stride = there, 2 * stride
        while not self._over and (middle := knob.between(here, there)) is not None:
            here, there = (middle, there) if at(middle) * sign > 0 else (here, middle)
        return found

    def _try(self, settings: dict[str, float]) -> float:
        key = tuple(settings.items())
        if key not in self.tried:
            self.tried[key] = self.measure(settings)
        return self.tried[key]

    def _error(self, measured: float) -> float:
        """The error relative to the target; infinite if nothing was measured."""
        return abs(measured - self.target) / self.target if measured == measured else math.inf

    @property
    def _over(self) -> bool:
        return len(self.tried) >= self.budget or self._error(self.tried[self.best]) <= CLOSE

    def _unreached(self, knobs: Sequence[Knob]) -> str:
        for end in ("dear", "cheap"):
            self._try({k: v for knob in knobs for k, v in knob.at(getattr(knob, end)).items()})
        values = [value for value in self.tried.values() if value == value]
        ranges = ", ".join(f"{knob.name} from {knob.dear:g} to {knob.cheap:g}" for knob in knobs)
        if not values:
            return f"none of {len(self.tried)} settings could be run ({ranges})"
        low, high = min(values), max(values)
        near = sorted({f"{value:.4g}" for value in values}, key=lambda value: self._error(float(value)))[:2]
        why = (
            f"the value changes in steps, and the nearest values are {' and '.join(near)}"
            if low <= self.target <= high
            else "the target is outside this range"
        )
        return f"{ranges} reach {low:.4g} to {high:.4g}; {why}. Choose another target or change the method's settings"
