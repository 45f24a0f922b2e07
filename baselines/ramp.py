"""Our own: a schedule and a slope for every step, both fitted in closed form to a few videos of the Original.

    v(s_k) = v0 + g_k (s_k - s0) / (s0 - s1) (v0 - v1)     v0, v1: velocities last computed, at levels s0, s1
    g_k    = argmin ||v(s_k) - v_k||^2                     over calibration videos; g = 1: Newton's line, g = 0: v0
    M      = argmin sum over gaps of w_b ||sum_k ds_k (v(s_k) - v_k)||^2,  |M| = the budget       dynamic programming

Both need nothing of the videos but the inner products of the velocities of an AR unit at its different steps. The fit
takes the time of the Originals and seconds of arithmetic, and no gradient. w_b is the factor by which the square of an
error at step b has grown at the end. It is large at high noise, where the content of the video is still open. The best
gain there is about 0.4, and about 1 near the end. The first AR unit sees no other, and has a list of its own.
`computed: []` computes every step and is the Original. `python run.py experiment=fit_ramp` makes the operating points;
docs/ramp.md has the recipe and what each part of it is worth.

Site: velocity, and the interval of a forward.
Signal: none; schedule and gains are fixed beforehand.
Memory: 2 latents.
Changed: not from a paper.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from baselines.shared.schedule import Scheduled, active, own
from engine.forecast import Formula, Points
from engine.method import Capabilities
from engine.row import Row


@dataclass
class Ramp(Scheduled):
    """Extrapolates by a line of fitted slope; `Scheduled` decides and stores."""

    computed: list[list[int]] = field(default_factory=list)  # computed steps per AR unit; more: slower, smaller errors
    gains: list[list[float]] = field(default_factory=list)  # g per step, as many lists; raising: longer slope; []: 1
    selective: str = "none"  # what a forward covers: none | prefix (no waiting frames) | exact (block-causal only)
    made_for: dict[str, Any] = field(default_factory=dict)  # settings of the fitted model; others are refused

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.gains) not in (0, len(self.computed)):
            raise ValueError(
                f"gains has {len(self.gains)} lists and computed {len(self.computed)}; want as many, or none"
            )
        wrong = [gain for gains in self.gains for gain in gains if not abs(gain) < 100]
        if wrong:
            raise ValueError(f"a gain is a factor of Newton's line, about 0 to 1, got {wrong[0]}")

    def check(self, model: Capabilities) -> None:
        super().check(model)
        steps = model.schedule()[0].steps
        if any(len(gains) != steps for gains in self.gains):
            lengths = sorted({len(gains) for gains in self.gains})
            raise ValueError(f"gains has lists of {lengths} steps, and a unit of {model.name} has {steps}")

    def formula(self, part: Row) -> Formula:
        """Newton's line with its slope multiplied by the gain of this step."""
        return line(own(self.gains, part)[part.step[active(part)[0]]] if self.gains else 1.0)


@lru_cache(maxsize=1024)  # one function for each gain, so that its weights are found again
def line(gain: float) -> Formula:
    """Newton's line through the last two points with its slope multiplied by `gain`.

    >>> points = [(0.0, 1.0), (1.0, 3.0)]
    >>> line(1.0)(points, 2.0), line(0.5)(points, 2.0), line(0.0)(points, 2.0), line(0.5)(points[:1], 2.0)
    (5.0, 4.0, 3.0, 1.0)
    """

    def formula(points: Points, at: float) -> Any:
        (level, value), older = points[-1], points[:-1]
        if not older:
            return value
        return value + gain * (at - level) / (level - older[-1][0]) * (value - older[-1][1])

    return formula
