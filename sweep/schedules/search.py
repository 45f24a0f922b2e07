"""Which steps of an AR unit are worth computing: annealing, then exchanges. Knows nothing of models or videos.

    begin      the steps spread evenly, the first and the last but one among them; or aligned early, if that is better
    propose    exchange a computed step for one that is not, in every unit or in one
    anneal     go there if e' < e, else with probability exp(-(e' / e - 1) / T);  T falls from 0.1 to 1e-4
    climb      from the best, go there only if e' < e

The number of computed steps never changes, so every schedule tried has the same budget (BudCache, arXiv 2606.13496).
Where a row is computed as a whole (full attention), the same search chooses rows: one "unit" whose steps are the rows.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

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


def spread(steps: int, count: int, fixed: Sequence[int]) -> tuple[int, ...]:
    """`count` of `steps` steps: `fixed` and the last but one, then each in the middle of the widest gap.

    Without fixed steps other than the first it is `even`. Raises ValueError if there are more fixed steps than `count`.

    >>> spread(70, 10, (0, 5, 10, 15, 20))
    (0, 5, 10, 15, 20, 26, 32, 44, 56, 68)
    """
    if len(fixed) < 2:
        return even(steps, count)
    if not len(fixed) <= count <= steps:
        raise ValueError(f"want {len(fixed)} to {steps} computed rows, got {count}")
    return bisected(sorted({*fixed, steps - 2})[:count], steps, count)


def bisected(chosen: Iterable[int], steps: int, count: int) -> tuple[int, ...]:
    """`chosen` of `steps` steps and more, up to `count`: each in the middle of the widest gap.

    >>> bisected([0, 8], 10, 4)
    (0, 2, 4, 8)
    """
    found = sorted(chosen)
    while len(found) < count:
        wide, a = max((b - a, -a) for a, b in pairwise([*found, steps]))
        found = sorted({*found, -a + wide // 2})
    return tuple(found)


def by_unit(rows: Sequence[int], steps: int, lag: int, units: int) -> list[list[int]]:
    """The steps that each of `units` AR units computes, if the rows `rows` are computed as a whole.

    >>> by_unit((0, 5, 7, 11), 10, 5, 2)
    [[0, 5, 7], [0, 2, 6]]
    """
    return [[row - lag * unit for row in rows if 0 <= row - lag * unit < steps] for unit in range(units)]


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
    fixed: tuple[int, ...] = (0,)  # steps that are computed in every schedule
    tried: dict[Schedule, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 1 <= self.count <= self.steps:
            raise ValueError(f"want a budget of 1 to {self.steps} forwards of every AR unit, got {self.count}")
        self._begin = spread(self.steps, self.count, self.fixed), early(self.steps, self.lag, self.count)
        self._dice = random.Random(self.seed)
        self._asked: set[Schedule] = set()

    def run(self) -> tuple[Schedule, float]:
        """The best schedule that was tried, and its error."""
        starts = [(own,) * self.units for own in self._begin[: self.tries] if {*self.fixed} <= {*own}]
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
        movable = [step for step in own if step not in self.fixed]
        if not movable or not free:
            return schedule
        old = self._dice.choice(movable)
        new = self._dice.choices(free, [math.exp(-abs(step - old) / NEAR) for step in free])[0]
        together = self._dice.random() < TOGETHER
        return tuple(
            tuple(sorted({*steps} - {old} | {new}))
            if (together or u == unit) and old in steps and new not in steps
            else steps
            for u, steps in enumerate(schedule)
        )
