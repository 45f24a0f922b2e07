"""SCOPE's selective computation (Sec. 3.4): a forward covers only the frames that the schedule needs.

    m_ij = 1[p_ij != p_{i-1,j}] 1[p_ij != P]             slot j advances at iteration i and is not done   (Eq. 8)
    e_i  = max(e_{i-1}, 1 + max{j : m_ij = 1})           interval end, grows only                         (Eq. 8)
    I_i  = [max(e_i - W, 0), e_i)                        valid interval                                   (Eq. 9)

If the window W is as long as the segment, Eq. 9 leaves out only frames that have not started. Under block-causal
attention no frame attends to later blocks, so this is exact. Under full attention, SkyReels-V2's default, it changes
the result.

"exact" also leaves out the finished frames, which Eq. 9 keeps. Under block-causal attention their keys and values do
not change any more. So they are computed once, in their final state, and stored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from engine.row import Row

CHOICES = ("none", "prefix", "hull", "exact")


def narrow(row: Row, selective: str, ratio: Sequence[float] = ()) -> Row:
    """`row` restricted to the interval that a forward covers, in whole AR units.

    "prefix" is Eq. 8-9: from the window's start to the last slot that updates. "hull" is the reading "moving active
    suffix": it also leaves out the finished slots at the front, and attention loses them. "exact" leaves them out too,
    but attention uses their stored keys and values. The interval depends on this row alone: the last active slot of a
    staircase never decreases, so e_i = 1 + last active.

    `ratio` gives the share of the interval that is kept in the first, second and last third of the steps of the most
    denoised slot. Updating slots are always kept: 1 is the whole "prefix", 0 the "hull".
    """
    if selective == "none" or not row.updating:
        return row
    if selective == "exact":
        return row.exact()
    start = row.slots.start if selective == "prefix" else _down(row.updating[0], row)
    if ratio:
        kept = math.ceil(ratio[_stage(row)] * (row.reach - start))
        start = max(start, _down(min(row.reach - kept, row.updating[0]), row))
    return row.only(range(start, row.reach))


def _stage(row: Row) -> int:
    """The third (0, 1 or 2) of its steps in which the most denoised active slot is."""
    done = row.step[row.updating[0] - row.slots.start]
    return min(2, 3 * done // row.steps)


def _down(slot: int, row: Row) -> int:
    return row.slots.start + (slot - row.slots.start) // row.unit * row.unit
