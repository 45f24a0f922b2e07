"""MeanCache (ICLR 2026, arXiv 2601.19961): a skipped step takes an average velocity, corrected by the last K steps.

    u = (x - x_K) / (s - s_K)             average velocity from K steps ago to now; x: the latent, s: the noise level
    J = (v_K - u) / (s - s_K)             stands for the Jacobian-vector product; v_K: the velocity of K steps ago
    v = v_1 - (s_next - s) J              v_1: the velocity of the last step, computed or not

A fixed schedule says which steps are computed, and K for the steps after each of them. K = 1 holds v_1: with Euler's
rule u is then v_1 and J is 0. The schedule is the path of at most B computed steps with the smallest sum of C^gamma,
where the cost C of a gap is the error of v over it on the Original's own trajectory, and gamma makes the largest count
most. `python -m benchmarks.fit_meancache` finds it on calibration prompts. `computed: []` computes every step.

Site: velocity.
Signal: none, a fixed schedule.
Memory: 2 latents for each of the last K steps, K the largest of the schedule.
Released: the velocity of a skipped step, yes; shown by tests/test_meancache.py::test_a_run_by_hand.
Changed: the schedule is read at a unit's own step, and every AR unit may have its own. If fewer than K steps are known,
K is their number. The release has schedules for image models only. The search follows the paper's description, with
the choices of ours that benchmarks/fit_meancache.py names. The latent is the sampler's own, which on SkyReels-V2 does
not follow Euler's rule.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from baselines.shared.schedule import Scheduled, active, own
from engine.forecast import Points
from engine.history import History, column
from engine.row import Mode, Row, Site

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class MeanCache(Scheduled):
    """Computes the steps of a fixed schedule; in between it corrects the last velocity by an average one."""

    computed: list[list[int]] = field(default_factory=list)  # computed steps per AR unit; more: slower, smaller errors
    spans: list[list[int]] = field(default_factory=list)  # K after each; raising it: steadier, follows later; 1: hold
    selective: str = "none"  # covers: none | prefix (no waiting frames) | exact (block-causal) | stored (see Scheduled)
    made_for: dict[str, Any] = field(default_factory=dict)  # settings of the model it was made for; others are refused

    def __post_init__(self) -> None:
        lengths = [len(steps) for steps in self.computed]
        if [len(spans) for spans in self.spans] != lengths or any(span < 1 for spans in self.spans for span in spans):
            raise ValueError(
                f"spans wants a number, 1 or larger, for each computed step ({lengths} per unit), got {self.spans}"
            )
        super().__post_init__()

    def reset(self) -> None:
        super().reset()
        most = max((span for spans in self.spans for span in spans), default=1)
        self.inputs, self.history = History(most), History(most)  # latents and velocities of the last steps

    def keep(self, site: Site, part: Row, x: Tensor, out: Tensor) -> None:
        a, b = active(part)
        self._push(part, x[a:b], out[a:b])

    def _push(self, part: Row, x: Tensor, v: Tensor) -> None:
        a, b = active(part)
        for history, values in ((self.inputs, x), (self.history, v)):
            history.push(part.updating, part.sigma[a:b], values, part.settled)

    def fill(self, site: Site, part: Row, mode: Mode, x: Tensor) -> Tensor:
        a, b = active(part)
        velocity = self._average(part, x[a:b])
        self._push(part, x[a:b], velocity)
        if b - a == len(part.slots):
            return velocity
        out = torch.zeros_like(x)  # idle frames are not stepped, so their velocity is never read
        out[a:b] = velocity
        return out

    def _average(self, part: Row, x: Tensor) -> Tensor:
        (a, b), slots = active(part), part.updating
        level, after = part.sigma[a:b], part.sigma_next[a:b]
        steps, spans = own(self.computed, part), own(self.spans, part)
        wanted = [spans[bisect_left(steps, k) - 1] for k in part.step[a:b]]
        back = [min(span, self.history.count(slot)) - 1 for slot, span in zip(slots, wanted, strict=True)]
        levels = [self.history.levels[slot][-1 - n] for slot, n in zip(slots, back, strict=True)]
        gap = column([now - before for now, before in zip(level, levels, strict=True)], x)
        reach = column([end - now if n else 0.0 for now, end, n in zip(level, after, back, strict=True)], x)
        mean = (x - self.inputs.predict(slots, oldest, level, back)) / gap
        slope = (self.history.predict(slots, oldest, level, back) - mean) / gap
        return self.history.last(slots) - reach * slope

    def state(self) -> Iterable[Tensor]:
        return (*self.inputs.tensors(), *self.history.tensors())


def oldest(points: Points, at: float) -> Any:
    """The value of the first of `points`."""
    return points[0][1]
