"""Our own: the first AR unit is computed most, all others in the same rows, and a line over the steps elsewhere.

    first  = gaps of g / 2, 2 g / 3 and 9 g / 10 steps, then short ones to the last step       g: steps / budget
    others = steps k with k mod lag on r rows of every lag, and the last but one step          r: from the budget
    v(k)   = v0 + (k - k0) (v0 - v1) / (k0 - k1)     between computed steps: v0, v1 last computed, at the steps k0, k1

The first unit decides what the video shows, and every later unit inherits its errors. It is one of many, so computing
it more often costs little. Unit u at step k sees its left neighbour at step k + lag. Where that was not computed in the
same row, the unit sees an extrapolated neighbour and goes astray, so the others' steps repeat with the lag. The last
noise steps change the latent most, so the last but one step is computed. The line runs over the number of the step
instead of the noise level: the noise level falls faster and faster, and a line over it goes too far. The schedule
depends on the steps and the lag of the model and on nothing else. `computed: []` computes every step and is the
Original.
`python run.py experiment=fit_ramp` writes operating points and measures them on a few prompts; docs/ramp.md has the
recipe, what each part of it is worth, and what was tried without gain.

Site: velocity, and the interval of a forward.
Signal: none; the schedule is fixed beforehand.
Memory: 2 latents.
Changed: not from a paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from baselines.shared.schedule import Scheduled
from engine.row import Row


@dataclass
class Ramp(Scheduled):
    """Extrapolates by a line over the steps; `Scheduled` decides and stores."""

    computed: list[list[int]] = field(default_factory=list)  # computed steps per AR unit; more: slower, smaller errors
    selective: str = "none"  # what a forward covers: none | prefix (no waiting frames) | exact (block-causal only)
    made_for: dict[str, Any] = field(default_factory=dict)  # settings of the model it was made for; others are refused

    def levels(self, part: Row) -> Sequence[float]:
        """The coordinate in which velocities are extrapolated: the number of the step."""
        return part.step
