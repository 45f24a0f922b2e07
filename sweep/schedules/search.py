"""Which steps of an AR unit are worth computing: annealing, then exchanges. Knows nothing of models or videos.

    begin      the steps spread evenly, the first and the last but one among them; or aligned early, if that is better
    propose    exchange a computed step for one that is not, in every unit or in one
    anneal     go there if e' < e, else with probability exp(-(e' / e - 1) / T);  T falls from 0.1 to 1e-4
    climb      from the best, go there only if e' < e

The number of computed steps never changes, so every schedule tried has the same budget (BudCache, arXiv 2606.13496).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

Schedule = tuple[tuple[int, ...], ...]  # per AR unit, its computed steps
HOT, COLD = 0.1, 1e-4  # T, as a relative rise of the error that is accepted with probability 1/e
ANNEALED = 2 / 3  # of the tries; the rest are exchanges
TOGETHER = 0.6  # of the exchanges are made in all units at once, while these agree on the step
ALIGNED = 0.4  # share of the steps up to which units are computed in the same rows
NEAR = 4  # the mean distance of an exchange, in steps


def even(steps: int, count: int) -> tuple[int, ...]:
    """`count` of `steps` steps, spread evenly from the first to the last but one.

    >>> even(50, 6), even(8, 8), even(8, 1)
    ((0, 10, 19, 29, 38, 48), (0, 1, 2, 3, 4, 5, 6, 7), (0,))
    """
    if count >= steps - 1:
        return tuple(range(steps))[:count] if count < steps else tuple(range(steps))
    return tuple(round(i * (steps - 2) / (count - 1)) for i in range(count)) if count > 1 else (0,)


def aligned(steps: int, lag: int, count: int) -> int:
    """The distance of steps at which a unit finds its left neighbour, `lag` rows ahead, computed in the same row: the
    smallest divisor of the lag that the budget allows.

    >>> aligned(50, 5, 9), aligned(64, 16, 24), aligned(64, 16, 12), aligned(50, 0, 9)
    (5, 4, 8, 6)
    """
    if not lag:
        return -(-steps // count)
    divisors = [d for d in range(1, lag + 1) if lag % d == 0]
    return next((d for d in divisors if steps <= d * count), lag)


def early(steps: int, lag: int, count: int) -> tuple[int, ...]:
    """`count` steps: aligned with the neighbours' up to `ALIGNED` of all, then spread evenly to the last but one.

    >>> early(50, 5, 9), early(50, 5, 3)
    ((0, 5, 10, 15, 20, 27, 34, 41, 48), (0, 24, 48))
    """
    fixed = list(range(0, int(ALIGNED * steps) + 1, aligned(steps, lag, count)))
    free = count - len(fixed)
    if free < 1:
        return even(steps, count)
    step = (steps - 2 - fixed[-1]) / free
    found = {*fixed, *(fixed[-1] + round(step * (i + 1)) for i in range(free))}
    return tuple(sorted(found)) if len(found) == count and max(found) < steps else even(steps, count)


@dataclass
class ScheduleSearch:
    """Looks for the schedule of least error. The same search tries the same schedules; `tried` may hold what is known.

    `measure` is asked for nothing that `tried` holds, so a search that was stopped goes on where it was.
    """

    measure: Callable[[Schedule], float]
    steps: int
    count: int  # computed steps of every unit
    units: int
    lag: int  # rows by which a unit follows its left neighbour
    tries: int  # different schedules measured at most
    seed: int = 0
    tried: dict[Schedule, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 1 <= self.count <= self.steps:
            raise ValueError(f"want a budget of 1 to {self.steps} forwards of every AR unit, got {self.count}")
        self._dice = random.Random(self.seed)
        self._asked: set[Schedule] = set()

    def run(self) -> tuple[Schedule, float]:
        """The best schedule that was tried, and its error."""
        begin = even(self.steps, self.count), early(self.steps, self.lag, self.count)
        starts = [(own,) * self.units for own in begin[: self.tries]]
        here = min(starts, key=self._error)
        error = self._error(here)
        best = here, error
        heated, idle = max(1, round(ANNEALED * self.tries)), 0
        while len(self._asked) < self.tries and idle < 100:
            done = len(self._asked)
            if done >= heated and heated:
                (here, error), heated = best, 0  # climb from the best
            there = self._exchanged(here)
            idle = idle + 1 if there in self._asked else 0  # a small space may have been tried as a whole
            found = self._error(there)
            if found < error or (heated and self._dice.random() < self._chance(error, found, done / heated)):
                here, error = there, found
            if error < best[1]:
                best = here, error
        return best

    def _error(self, schedule: Schedule) -> float:
        if schedule not in self.tried:
            self.tried[schedule] = self.measure(schedule)
        self._asked.add(schedule)
        return self.tried[schedule]

    @staticmethod
    def _chance(error: float, found: float, share: float) -> float:
        """Of going from `error` up to `found` when `share` of the annealing is over."""
        if not (math.isfinite(found) and error > 0):
            return 0.0
        return math.exp(-(found / error - 1) / (HOT * (COLD / HOT) ** share))

    def _exchanged(self, schedule: Schedule) -> Schedule:
        """`schedule` with one computed step exchanged for another, near it more often than far."""
        unit = self._dice.randrange(self.units)
        own = schedule[unit]
        free = [step for step in range(1, self.steps) if step not in own]
        if len(own) < 2 or not free:
            return schedule
        old = self._dice.choice(own[1:])
        new = self._dice.choices(free, [math.exp(-abs(step - old) / NEAR) for step in free])[0]
        together = self._dice.random() < TOGETHER
        return tuple(
            tuple(sorted({*steps} - {old} | {new}))
            if (together or u == unit) and old in steps and new not in steps
            else steps
            for u, steps in enumerate(schedule)
        )
