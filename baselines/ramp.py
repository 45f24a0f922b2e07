"""Our own: all AR units are computed in the same rows, and a unit is integrated again when a gap closes.

    grid     steps k with k mod lag on r rows of every lag: each unit computes them in the same rows as its neighbours
    others   the grid, the last but one step, and finer steps at the end; a small budget leaves out steps of the middle
    first    the same, a grid of at least 1 / 8 of the steps, and a grid twice as fine up to half of the steps; a larger
             budget computes the whole first fifth
    full     whole rows: where a unit begins or is at its last but one step, halfway between the beginnings, and in
             between gaps of at most the lag; a finished unit is computed in one more row (`selective: stored`)

    v(k)   = v0 + (k - k0) (v0 - v1) / (k0 - k1)     in a gap: v0, v1 last computed, at the steps k0, k1
    D_j    = x_j + (end - sigma_j) v_j               clean estimate of every computed step j
    x(k)   = sampler(x(0), spline(D, 0 .. k - 1))    when step k is computed: from the unit's noise once more
    v(k)   = (D_k - x(k)) / (end - sigma_k)

A line through past velocities goes astray in a gap, while the spline through the clean estimates on both sides of it
comes close to the Original's course. So when the next step is computed, the unit's latents are integrated again from
its noise (engine/retrace.py), which needs no forward. What remains is that the step was evaluated at the extrapolated
latents.

Unit u at step k sees its left neighbour at step k + lag. Where that was not computed in the same row, the unit sees an
extrapolated neighbour, so the grid repeats with the lag. All later units inherit the errors of the first, which costs
little to compute more often. The last noise steps change the latent most, so the last but one step is computed. The
line runs over the number of the step and not over the noise level, which falls faster and faster: the velocity does
not. The schedule depends on the steps and the lag of the model and on nothing else (sweep/schedules/aligned.py).
`computed: []` computes every step and is the Original.
`python run.py experiment=fit_ramp` writes operating points and measures them on a few prompts; docs/ramp.md has the
recipe, what each part of it is worth, and what was tried without gain.

Site: velocity, and the interval of a forward.
Signal: none; the schedule is fixed beforehand.
Memory: 3 latents, and one of each computed step, of the units in flight.
Changed: not from a paper. The predictor and corrector is that of multistep methods (PEC) over gaps of many steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from baselines.shared.schedule import Scheduled
from engine.course import Course
from engine.row import Mode, Row, Site

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Ramp(Scheduled):
    """Extrapolates by a line over the steps, then interpolates; `Scheduled` decides and stores."""

    computed: list[list[int]] = field(default_factory=list)  # computed steps per AR unit; more: slower, smaller errors
    selective: str = "none"  # covers: none | prefix (no waiting frames) | exact (block-causal) | stored (see Scheduled)
    made_for: dict[str, Any] = field(default_factory=dict)  # settings of the model it was made for; others are refused
    retrace: bool = True  # True: integrate a unit again when its next step is computed; False: extrapolate only

    @property
    def requires(self) -> frozenset[str]:
        return super().requires | ({"retrace"} if self._again else set())

    @property
    def _again(self) -> bool:
        return self.retrace and bool(self.computed)

    def levels(self, part: Row) -> Sequence[float]:
        """The coordinate in which velocities are extrapolated: the number of the step."""
        return part.step

    def reset(self) -> None:
        super().reset()
        self._courses: dict[int, Course] = {}  # by the first slot of the unit

    def keep(self, site: Site, part: Row, x: Tensor, out: Tensor) -> None:
        super().keep(site, part, x, out)
        if self._again:
            self._course(part, x).computed(x, out)

    def fill(self, site: Site, part: Row, mode: Mode, x: Tensor) -> Tensor:
        if self._again:
            self._course(part, x)
        return super().fill(site, part, mode, x)

    def courses(self, row: Row) -> Sequence[Course]:
        own = [course for first, course in self._courses.items() if first in row.slots]
        return [course for course in own if course.closed and course.passed[-1].iteration == row.iteration]

    def state(self) -> Iterable[Tensor]:
        return [*super().state(), *(tensor for course in self._courses.values() for tensor in course.tensors())]

    def _course(self, part: Row, x: Tensor) -> Course:
        """The course of the unit `part`, which has come to this row; those of finished units are dropped."""
        first = part.slots.start
        if not part.progress or first not in self._courses:
            self._courses = {f: c for f, c in self._courses.items() if c.passed[-1].progress < c.passed[-1].steps - 1}
            self._courses[first] = Course(x.clone())
        self._courses[first].passed.append(part)
        return self._courses[first]
