"""The schedules of method=ramp (baselines/ramp.py): which steps the first AR unit computes, and which all others.

The first unit computes more steps than the others, in one of two forms of nearly the same cost. "aligned": the steps of
the others, the next finer grid up to half of the steps, and the first tenth of the steps. "free": short gaps at first,
longer ones later, and short ones to the last step. Which one is better depends on the model, so
sweep/schedules/fit_task.py measures both.
"""

from __future__ import annotations

from itertools import pairwise

from sweep.schedules.search import early, even

FORMS = "free", "aligned"  # of the first unit
EARLY = 10  # an aligned first unit computes the first 1 / EARLY of its steps; raising it: faster, a worse beginning
BORDERS = 0.24, 0.44  # shares of the steps up to which the gaps of a free first unit are short, and middling
GAPS = 1 / 2, 2 / 3, 9 / 10  # its gaps there and after, as shares of the mean gap of the other units
LIMITS = 1 / 25, 1 / 16, 1 / 12  # its longest gaps there and after, as shares of the steps
FAR = 3  # lags; a schedule of the others that is aligned at the first steps only has no longer gap


def grid(steps: int, lag: int, rows: int) -> list[int]:
    """The steps of a unit that fall on `rows` rows of every `lag`, so that each unit computes them in the same rows.

    >>> grid(64, 16, 3)
    [0, 5, 10, 16, 21, 26, 32, 37, 42, 48, 53, 58]
    """
    chosen = {i * lag // rows for i in range(rows)}
    return [step for step in range(steps) if step % lag in chosen]


def free(steps: int, count: int) -> list[int]:
    """The steps that a free first unit computes where the others compute `count`.

    >>> free(50, 11)
    [0, 2, 4, 6, 8, 10, 12, 15, 18, 21, 24, 28, 32, 36, 40, 44, 47, 49]
    >>> free(50, 13)
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 18, 20, 22, 25, 28, 31, 34, 37, 40, 43, 46, 48, 49]
    """
    shares = zip(GAPS, LIMITS, strict=True)
    short, middling, long = (max(1, int(min(share / count, limit) * steps)) for share, limit in shares)
    chosen = list(range(0, int(BORDERS[0] * steps) + 1, short))
    while chosen[-1] + middling <= BORDERS[1] * steps:
        chosen.append(chosen[-1] + middling)
    late, gap = [steps - 1], max(1, long // 2)
    while late[-1] - gap > chosen[-1]:
        late.append(late[-1] - gap)
        gap = max(gap, min(long, max(long - 1, 1)) if len(late) == 2 else long)
    return [*chosen, *reversed(late)]


def schedule(steps: int, lag: int, count: int, form: str = "free") -> tuple[list[int], list[int]]:
    """The steps that the first unit computes, and the `count` steps that every other unit computes.

    Args:
        steps: steps of a unit.
        lag: rows by which a unit follows its left neighbour; 0: all units are at the same step, so every schedule is
            aligned, and the first unit is like the others.
        count: 3 to `steps`; what the grid does not need is spent on the next finer grid, from the first step on. A
            budget that is too small for the grid is aligned at the first steps only.
        form: of the first unit, one of `FORMS`.

    Raises ValueError for a smaller or larger `count`, and for another form.

    >>> schedule(50, 5, 8)[1], schedule(50, 5, 11)[1]
    ([0, 5, 10, 15, 20, 29, 39, 48], [0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 48])
    >>> schedule(50, 5, 13)[1]
    [0, 2, 5, 7, 10, 15, 20, 25, 30, 35, 40, 45, 48]
    >>> schedule(50, 5, 11, "aligned")[0]
    [0, 1, 2, 3, 4, 5, 7, 10, 12, 15, 17, 20, 22, 25, 30, 35, 40, 45, 48, 49]
    >>> schedule(50, 0, 6)
    ([0, 10, 19, 29, 38, 48], [0, 10, 19, 29, 38, 48])
    """
    if not 3 <= count <= steps:
        raise ValueError(f"want 3 to {steps} steps of every AR unit, got {count}")
    if form not in FORMS:
        raise ValueError(f"the form of the first unit is one of {', '.join(FORMS)}, got {form!r}")
    if not lag:
        return list(even(steps, count)), list(even(steps, count))
    rows = max(1, min(lag, (count - 1) * lag // steps))
    coarse, fine = grid(steps, lag, rows), grid(steps, lag, min(2 * rows, lag))
    others = {*coarse, steps - 2}
    if len(others) > count:
        some = early(steps, lag, count)
        near = max(after - before for before, after in pairwise(some)) <= FAR * lag
        others = set(some if near else even(steps, count))
    spare = [step for step in [*fine, *range(steps)] if step not in others]
    others |= set(list(dict.fromkeys(spare))[: count - len(others)])
    if form == "free":
        return free(steps, count), sorted(others)
    first = {*range(steps // EARLY + 1), *(step for step in fine if 2 * step <= steps), *others, steps - 1}
    return sorted(first), sorted(others)
