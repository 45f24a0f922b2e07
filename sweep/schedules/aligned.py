"""The schedule of method=ramp (baselines/ramp.py): which steps the first AR unit computes, and which all others."""

from __future__ import annotations

from sweep.schedules.search import even

EARLY = 10  # the first unit computes all of the first 1 / EARLY of the steps; raising it: faster, a worse beginning


def grid(steps: int, lag: int, rows: int) -> list[int]:
    """The steps of a unit that fall on `rows` rows of every `lag`, so that each unit computes them in the same rows.

    >>> grid(64, 16, 3)
    [0, 5, 10, 16, 21, 26, 32, 37, 42, 48, 53, 58]
    """
    chosen = {i * lag // rows for i in range(rows)}
    return [step for step in range(steps) if step % lag in chosen]


def schedule(steps: int, lag: int, count: int) -> tuple[list[int], list[int]]:
    """The steps that the first unit computes, and the `count` steps that every other unit computes.

    Args:
        steps: steps of a unit.
        lag: rows by which a unit follows its left neighbour; 0: all units are at the same step, so every schedule is
            aligned, and the first unit is like the others.
        count: 3 to `steps`; what the grid does not need is spent on the next finer grid, from the first step on, and
            what it lacks is taken from it, from the last step on.

    Raises ValueError for a smaller or larger `count`.

    >>> schedule(50, 5, 8)[1], schedule(50, 5, 11)[1]
    ([0, 5, 10, 15, 25, 35, 45, 48], [0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 48])
    >>> schedule(50, 5, 11)[0]
    [0, 1, 2, 3, 4, 5, 7, 10, 12, 15, 17, 20, 22, 25, 30, 35, 40, 45, 48, 49]
    >>> schedule(50, 0, 6)
    ([0, 10, 19, 29, 38, 48], [0, 10, 19, 29, 38, 48])
    """
    if not 3 <= count <= steps:
        raise ValueError(f"want 3 to {steps} steps of every AR unit, got {count}")
    if not lag:
        return list(even(steps, count)), list(even(steps, count))
    rows = max(1, min(lag, (count - 1) * lag // steps))
    coarse, fine = grid(steps, lag, rows), grid(steps, lag, min(2 * rows, lag))
    others = {*coarse, steps - 2}
    for step in [*coarse[-2::-2], *coarse[::-1]]:  # every second one first
        if len(others) > count and step:
            others.discard(step)
    spare = [step for step in [*fine, *range(steps)] if step not in others]
    others |= set(list(dict.fromkeys(spare))[: count - len(others)])
    first = {*range(steps // EARLY + 1), *(step for step in fine if 2 * step <= steps), *others, steps - 1}
    return sorted(first), sorted(others)
