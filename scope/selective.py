"""SCOPE's selective computation (Sec. 3.4): forward only what the schedule will need.

    m_ij = 1[p_ij != p_{i-1,j}] 1[p_ij != P]             slot j advances at iteration i and is not done   (Eq. 8)
    e_i  = max(e_{i-1}, 1 + max{j : m_ij = 1})           interval end, grows only                         (Eq. 8)
    I_i  = [max(e_i - W, 0), e_i)                        valid interval                                   (Eq. 9)

With the window W as long as the segment, Eq. 9 drops only frames that have not started. Under block-causal attention
nothing ahead is ever looked at, so this is exact; under full attention, SkyReels-V2's default, it changes the result.

"exact" also leaves out the finished frames, which Eq. 9 keeps: under block-causal attention nothing that they see
changes any more, so their keys and values are computed once, in their final state, and kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from engine.row import Row

CHOICES = ("none", "prefix", "hull", "exact")


def narrow(row: Row, selective: str, ratio: Sequence[float] = ()) -> Row:
    """`row` cut to the interval worth forwarding, in whole AR units.

    "prefix" is Eq. 8-9: from the window's start to the last slot that updates. "hull" is the reading "moving active
    suffix": also without the finished slots at the front, which loses them as context. "exact": without them, but seen
    through kept keys and values. Rows are cut by what the schedule says at this row alone: the last active slot of a
    staircase never moves back, so e_i = 1 + last active. `ratio` keeps that share of the interval, early, midway and
    late in the steps of the slot that is farthest, and always what updates: of "prefix", 1 is all and 0 the hull.
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
    """0, 1 or 2: in which third of its steps the most denoised slot is that still updates."""
    done = row.step[row.updating[0] - row.slots.start]
    return min(2, 3 * done // row.steps)


def _down(slot: int, row: Row) -> int:
    return row.slots.start + (slot - row.slots.start) // row.unit * row.unit
