"""The schedules of method=ramp (baselines/ramp.py): which steps each AR unit computes."""

from __future__ import annotations

from collections.abc import Iterable

from sweep.schedules.search import bisected, by_unit, even

START = 0.3  # share of the steps in which a small budget keeps the whole grid; raising it: a better start, a worse end
EARLY = 5  # with steps to spare, the first unit computes all of the first 1 / EARLY; raising it: faster, worse start
SPACING = 8  # the first unit computes at least every 1 / SPACING of the steps; raising it: slower, a better first unit


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
        count: 3 to `steps`; what the grid does not need is spent on the next finer grid, from the last step on; where
            it is too small for the grid, steps after the first third are left out evenly.

    Raises ValueError for a smaller or larger `count`.

    >>> schedule(50, 5, 8)[1], schedule(50, 5, 12)[1]
    ([0, 5, 10, 15, 25, 35, 45, 48], [0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 48, 49])
    >>> schedule(50, 5, 12)[0]
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 17, 20, 22, 25, 30, 35, 40, 45, 48, 49]
    >>> schedule(64, 16, 7)
    ([0, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 62], [0, 16, 32, 40, 48, 56, 62])
    >>> schedule(50, 0, 6)
    ([0, 10, 19, 29, 38, 48], [0, 10, 19, 29, 38, 48])
    """
    if not 3 <= count <= steps:
        raise ValueError(f"want 3 to {steps} steps of every AR unit, got {count}")
    if not lag:
        return list(even(steps, count)), list(even(steps, count))
    rows = max(1, min(lag, (count - 1) * lag // steps))
    coarse = grid(steps, lag, rows)
    least = min(lag, -(-SPACING * lag // steps))
    small = count < len({*coarse, steps - 2})
    others = _thinned(coarse, steps, count) if small else _filled(coarse, steps, lag, rows, count, least)
    dense = max(rows, least)
    fine = [step for step in grid(steps, lag, min(2 * dense, lag)) if step <= (START if small else 1 / 2) * steps]
    spare = rows >= least and count > len({*coarse, steps - 2})
    begin = range(steps // EARLY + 1 if spare else 1)
    return sorted({*begin, *fine, *grid(steps, lag, dense), *others}), others


def whole_rows(steps: int, lag: int, units: int, count: int) -> list[list[int]]:
    """The steps that each unit computes if `count` rows are computed as a whole, for a model with full attention.

    Always: the rows in which a unit begins, or is at its last but one step. Then those halfway between the beginnings,
    a few for a small budget, and even gaps of at most the lag up to the first unit's last but one step. With steps to
    spare a unit computes its last step and the last but two instead; then come rows of the first fifth, and the middle
    of the widest gaps.

    Raises ValueError for a `count` below that of the rows that are always computed, or above all rows.

    >>> whole_rows(50, 5, 5, 20)[0]
    [0, 2, 5, 7, 10, 12, 15, 17, 20, 22, 26, 31, 35, 39, 44, 48]
    >>> whole_rows(50, 5, 5, 20)[4]
    [0, 2, 6, 11, 15, 19, 24, 28, 33, 38, 43, 48]
    """
    if not lag:
        return [list(even(steps, count))] * units
    total = steps + lag * (units - 1)
    begin, end = ([start + lag * unit for unit in range(units)] for start in (0, steps - 2))
    least = len({*begin, *end})
    if not least <= count <= total:
        raise ValueError(f"want {least} to {total} rows, got {count}")
    halves = [row + lag // 2 for row in begin]
    gaps = max(0, -(-(end[0] - halves[-1]) // lag))  # of at most the lag, from these to the first end
    if count < len({*begin, *end, *halves}) + gaps - 2:
        halves = [row for row in halves if row < START * steps]
    early = [*begin, *halves[: count - least]]
    room = count - len({*early, *end})
    rows = {*early, *end, *between(max(early), end[0], min(room, max(0, gaps - 1)))}
    if count >= len(rows) + units:
        rows = (rows - {*end}) | {row + by for row in end for by in (-1, 1)}
    extra = [row for row in range(steps // EARLY) if row not in rows]
    return by_unit(bisected({*rows, *extra[: count - len(rows)]}, total, count), steps, lag, units)


def between(first: int, last: int, count: int) -> list[int]:
    """`count` rows between two rows, spread evenly.

    >>> between(22, 48, 5)
    [26, 31, 35, 39, 44]
    """
    return [round(first + (last - first) * (i + 1) / (count + 1)) for i in range(count)]


def _thinned(coarse: list[int], steps: int, count: int) -> list[int]:
    """`count` steps of the grid, among them its first `START` and the last but one of all; the rest of it evenly."""
    kept = [step for step in coarse if step <= START * steps]
    inner, room = [step for step in coarse if step > START * steps], count - len(kept) - 1
    if room < 0:
        return list(even(steps, count))
    chosen = [inner[int((i + 0.5) * len(inner) / room)] for i in range(room)]  # the middle of each equal part
    return sorted({*kept, *chosen, steps - 2})


def _filled(coarse: list[int], steps: int, lag: int, rows: int, count: int, least: int) -> list[int]:
    """`count` steps: the grid, the last but one of all, then finer from the last step on."""
    finer = grid(steps, lag, min(2 * rows, lag))
    last: Iterable[int] = [steps - 1] if rows >= least else ()
    ranked = dict.fromkeys([*coarse, steps - 2, *last, *finer[::-1], *range(steps - 1, 0, -1)])
    return sorted(list(ranked)[:count])
