"""The integer timesteps of SkyReels-V2's frames, as the official schedule defines them."""

from __future__ import annotations

from collections.abc import Sequence

from engine.row import Row
from models.skyreels.settings import SkyReels

WAITING = 999  # the timestep of a frame that has not started, as in the official schedule


def timesteps_of(row: Row, settings: SkyReels, grid: Sequence[int]) -> list[int]:
    """The timestep of every slot of `row`: WAITING before its start, 0 when finished, `addnoise` on the overlap.

    `grid` holds the timestep of every step of an active slot.
    """
    segment = settings.segments[row.segment]
    found = []
    for slot, k, active in zip(row.slots, row.step, row.active, strict=True):
        if slot - segment.first < segment.prefix:
            found.append(settings.addnoise)
        elif k == row.steps:
            found.append(0)
        else:
            found.append(grid[k] if active else WAITING)
    return found
