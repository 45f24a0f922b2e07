"""Our own: all AR units are computed in the same rows, the first one also in between; a line over the steps elsewhere.

    grid     steps k with k mod lag on r rows of every lag: each unit computes them in the same rows as its neighbours
    others   the grid, step 0, and the last but one step
    first    the same, the first tenth of the steps, a grid of 2 r rows up to half of the steps, and the last step
    v(k)   = v0 + (k - k0) (v0 - v1) / (k0 - k1)     between computed steps: v0, v1 last computed, at the steps k0, k1

Unit u at step k sees its left neighbour at step k + lag. Where that was not computed in the same row, the unit sees an
extrapolated neighbour and goes astray, so the grid repeats with the lag. All later units inherit the errors of the
first, which costs little to compute more often. The last noise steps change the latent most, so the last but one step
is computed. The line runs over the number of the step and not over the noise level, which falls faster and faster: the
velocity does not, so a line over the noise level goes too far. `r` follows from the budget: the number of steps that
every unit but the first computes. The schedule depends on the steps and the lag of the model and on nothing else.
`computed: []` computes every step and is the Original.
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
