"""The schedule of method=ramp (baselines/ramp.py): which steps the first AR unit computes, and which all others."""

from __future__ import annotations

from sweep.schedules.search import even

EARLY = 10  # the first unit computes all of the first 1 / EARLY of the steps; raising it: faster, a worse beginning
SHORT = 10  # a lag of at most 1 / SHORT of the steps is short, see `grid`


def grid(steps: int, lag: int, rows: int) -> list[int]:
    """The steps of a unit that fall on `rows` rows of every `lag`, so that each unit computes them in the same rows.

    With a short lag the last but one step is one of them, with a long one step 0 (docs/ramp.md has both measured).

    >>> grid(50, 5, 1), grid(64, 16, 3)
    ([3, 8, 13, 18, 23, 28, 33, 38, 43, 48], [0, 5, 10, 16, 21, 26, 32, 37, 42, 48, 53, 58])
    """
    short = lag * SHORT <= steps
    chosen = {(steps - 2 - i * lag // rows) % lag if short else i * lag // rows for i in range(rows)}
    return [step for step in range(steps) if step % lag in chosen]


def thinned(steps: list[int], count: int) -> list[int]:
    """At most `count` of the steps: every second one is left out, from the middle on, but the last two stay.

    >>> thinned([0, 3, 8, 13, 18, 23, 28, 33, 38, 43, 48], 9)
    [0, 3, 8, 13, 18, 28, 38, 43, 48]
    >>> thinned([0, 3, 8, 13, 18, 23, 28, 33, 38, 43, 48], 5)
    [0, 13, 18, 43, 48]
    """
    middle = len(steps) // 2
    later, earlier = steps[middle:-2], steps[1:middle]
    order = [*later[::2], *later[1::2], *earlier]
    left_out = set(order[: max(0, len(steps) - count)])
    return [step for step in steps if step not in left_out]


def schedule(steps: int, lag: int, count: int) -> tuple[list[int], list[int]]:
    """The steps that the first unit computes, and the `count` steps that every other unit computes.

    Args:
        steps: steps of a unit.
        lag: rows by which a unit follows its left neighbour; 0: all units are at the same step, so every schedule is
            aligned, and the first unit is like the others.
        count: 3 to `steps`; the largest grid with so many steps, step 0 and the last but one is taken, and what is
            left over is spent on the next finer grid, from the first step on. The smallest grid is thinned for a
            smaller count.

    Raises ValueError for a smaller or larger `count`.

    >>> schedule(50, 5, 11)[1]
    [0, 3, 8, 13, 18, 23, 28, 33, 38, 43, 48]
    >>> schedule(50, 5, 11)[0]
    [0, 1, 2, 3, 4, 5, 6, 8, 11, 13, 16, 18, 21, 23, 28, 33, 38, 43, 48, 49]
    >>> schedule(50, 0, 6)
    ([0, 10, 19, 29, 38, 48], [0, 10, 19, 29, 38, 48])
    """
    if not 3 <= count <= steps:
        raise ValueError(f"want 3 to {steps} steps of every AR unit, got {count}")
    if not lag:
        return list(even(steps, count)), list(even(steps, count))
    rows = max(1, min(lag, (count - 1) * lag // steps))
    coarse, fine = grid(steps, lag, rows), grid(steps, lag, min(2 * rows, lag))
    others = {*thinned(sorted({0, *coarse, steps - 2}), count)}
    spare = [step for step in [*fine, *range(steps)] if step not in others]
    others |= set(list(dict.fromkeys(spare))[: count - len(others)])
    first = {*range(steps // EARLY + 1), *(step for step in fine if 2 * step <= steps), *others, steps - 1}
    return sorted(first), sorted(others)
