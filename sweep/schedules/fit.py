"""A schedule and its gains from inner products of velocities: closed form and dynamic programming, no model.

    G_ij = <v_i, v_j>                                        of an AR unit at its steps i and j, mean over videos
    e    = sum_{a<k<b} ds_k (v(s_k) - v_k)                   what a gap from a to b, predicted from p and a, adds to x
    E    = <e, e>                                            e is linear in the velocities, so E = q^T G q
    M    = argmin sum over its gaps of w_b E(p, a, b)        exact, over all pairs of last two computed steps

Steps that a unit computes early are aligned with its neighbours': unit u at step k sees its left neighbour at step
k + lag, and goes astray where that was not computed at the same row. So all multiples of a divisor of the lag are
computed up to `ALIGNED` of the steps, and the rest of the budget is free. The first unit, whose errors all others
inherit, may compute `FIRST` times as many steps.

Errors of different gaps are taken to add up in square, each multiplied by the growth w_b from its end to the last step.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from sweep.schedules.search import ALIGNED, aligned

GROWTH = 18.0  # dB by which an error of the first step has grown at the end; raising it: more steps early
FADES = 0.6  # share of the steps after which errors grow no more; raising it: more steps early
FIRST = 1.5  # steps of the first unit, as a multiple of the budget; raising it: slower, a better beginning
BOUNDS = (-0.5, 1.5)  # of a gain


@dataclass(frozen=True)
class Statistics:
    """Inner products (steps, steps) of the velocities of one kind of AR unit, and the steps + 1 noise levels."""

    products: np.ndarray
    levels: np.ndarray

    @property
    def steps(self) -> int:
        return len(self.products)

    def gain(self, before: int, last: int, step: int) -> float:
        """The best factor of Newton's line through the steps `before` and `last`, read at `step`."""
        g, s = self.products, self.levels
        size = g[last, last] - 2 * g[last, before] + g[before, before]
        along = g[step, last] - g[step, before] - g[last, last] + g[last, before]
        reach = (s[step] - s[last]) / (s[last] - s[before])
        return float(np.clip(along / size / reach, *BOUNDS)) if size > 0 else 0.0

    def added(self, before: int | None, last: int, until: int) -> float:
        """E of the gap between the computed steps `last` and `until`; `before`: the one before, None at the start."""
        s = self.levels
        weights = np.zeros(self.steps)
        for step in range(last + 1, until):
            move = s[step + 1] - s[step]
            weights[[last, step]] += move, -move
            if before is not None:
                slope = self.gain(before, last, step) * (s[step] - s[last]) / (s[last] - s[before])
                weights[[last, before]] += move * slope, -move * slope
        used = np.flatnonzero(weights)
        return float(weights[used] @ self.products[np.ix_(used, used)] @ weights[used])

    def gains(self, computed: Sequence[int]) -> list[float]:
        """g of every step under a schedule, 1 where nothing is extrapolated."""
        found = [1.0] * self.steps
        ends = [*computed[1:], self.steps]
        for i, (last, until) in enumerate(zip(computed, ends, strict=True)):
            for step in range(last + 1, until) if i else ():
                found[step] = round(self.gain(computed[i - 1], last, step), 3)
        return found


def growth(step: int, steps: int) -> float:
    """w: by how much the square of an error at `step` has grown at the end.

    >>> [round(growth(k, 50), 1) for k in (0, 15, 30, 50)]
    [63.1, 7.9, 1.0, 1.0]
    """
    return 10 ** (GROWTH * max(0.0, 1 - step / (FADES * steps)) / 10)


def best(statistics: Statistics, count: int, mandatory: Collection[int] = ()) -> tuple[list[int], float]:
    """The schedule of `count` steps, 0 and the `mandatory` ones among them, of least weighted error, and that error.

    Raises ValueError if there are more mandatory steps than `count`.
    """
    steps = statistics.steps
    fixed = sorted({0, *mandatory})
    if not len(fixed) <= count <= steps:
        raise ValueError(f"want {len(fixed)} to {steps} steps of every AR unit (computed anyway: {fixed}), got {count}")
    known: dict[tuple[int | None, int, int], float] = {}

    def cost(before: int | None, last: int, until: int) -> float:
        key = before, last, until
        if key not in known:
            known[key] = statistics.added(*key) * growth(until, steps) if until > last + 1 else 0.0
        return known[key]

    def reach(last: int) -> int:
        """The latest step that may be computed next."""
        return min([steps - 1, *(step for step in fixed if step > last)])

    paths: dict[tuple[int | None, int], tuple[float, list[int]]] = {(None, 0): (0.0, [0])}
    for _ in range(count - 1):
        longer: dict[tuple[int | None, int], tuple[float, list[int]]] = {}
        for (before, last), (total, path) in paths.items():
            for until in range(last + 1, reach(last) + 1):
                found = total + cost(before, last, until)
                if (last, until) not in longer or found < longer[last, until][0]:
                    longer[last, until] = found, [*path, until]
        paths = longer
    ends = [
        (total + cost(before, last, steps), path)
        for (before, last), (total, path) in paths.items()
        if last >= fixed[-1]
    ]
    total, path = min(ends)
    return path, total


def budgets(steps: int, lag: int, count: int, forced: Sequence[Collection[int]]) -> list[tuple[int, list[int]]]:
    """How many steps the first unit and the others compute, and which in any case: early ones, and those of `forced`.

    >>> budgets(50, 5, 8, [(), ()])
    [(12, [0, 5, 10, 15, 20, 25]), (8, [0, 5, 10, 15, 20])]
    """
    every = aligned(steps, lag, count)
    common = set(range(0, int(ALIGNED * steps) + 1, every))
    seen = set(range(0, min(steps, int(ALIGNED * steps) + lag + 1), every))  # by the second unit, lag steps behind
    first = min(steps, round(FIRST * count))
    return [(first, sorted(seen | {*forced[0]})), (count, sorted(common | {*forced[1]}))]
