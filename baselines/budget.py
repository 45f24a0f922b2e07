"""A control: the best fixed schedule of a given cost, found by search (BudCache, arXiv 2606.13496).

    M_u = the steps of AR unit u that are computed, |M_u| = the budget                    the same for every prompt
    v(s) = v0 + (s - s0) (v0 - v1) / (s0 - s1)        in between: Newton's line through the last two computed ones
    M    = argmin mean over calibration prompts of ||z_M - z||^2 / ||z||^2                z: the final latents

The schedule does not depend on the content. So the gain of an adaptive rule is its difference from this control at the
same cost. BudCache searches one mask for all frames by annealing, then by exchanges, and reuses the last output.
`experiment=search_schedule` does the same for every AR unit of a segment; units after the last list use the last list.
`computed: []` computes every step and is the Original.

Site: velocity.
Signal: none, a fixed schedule.
Memory: order + 1 latents.
Changed: there is one mask per AR unit, since units are at different steps in the same row; velocities are extrapolated
instead of reused; a schedule that was made for another model, length or number of steps is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from baselines.shared.schedule import NEEDS, active, check_fits, check_selective, check_steps, due, narrowed
from engine.forecast import newton
from engine.history import History
from engine.method import Capabilities, Method, Probe
from engine.row import VELOCITY, Decision, Mode, Row, Site

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Budget(Method):
    computed: list[list[int]] = field(default_factory=list)  # computed steps per AR unit; more: slower, smaller errors
    order: int = 1  # order of the extrapolation; raising it: better on a smooth trajectory, amplifies noise more
    selective: str = "none"  # slots that a forward covers: none | prefix (no waiting frames) | exact (block-causal)
    made_for: dict[str, Any] = field(default_factory=dict)  # settings of the searched model; others are refused

    def __post_init__(self) -> None:
        check_steps("computed", self.computed)
        if self.order not in (0, 1, 2):
            raise ValueError(f"order is 0, 1 or 2, got {self.order}")
        check_selective(self.selective)
        self.reset()

    @property
    def grain(self) -> str:
        return "unit"

    @property
    def requires(self) -> frozenset[str]:
        return NEEDS[self.selective] | {"partial"}

    def check(self, model: Capabilities) -> None:
        super().check(model)
        check_fits("computed", self.computed, self.made_for, model)

    def reset(self) -> None:
        self.history = History(self.order + 1)

    def narrow(self, row: Row) -> Row:
        return narrowed(row, self.selective)

    def decide(self, part: Row, probe: Probe, branch: str = "") -> Decision:
        if due(self.computed, part):
            return Decision(Mode.RECOMPUTE, why="schedule")
        if any(self.history.count(slot) == 0 for slot in part.updating):
            return Decision(Mode.RECOMPUTE, why="no history")
        return Decision(Mode.PREDICT if self.order else Mode.CACHE)

    def sites(self, depth: int, row: Row) -> Sequence[Site]:
        return (VELOCITY,)

    def keep(self, site: Site, part: Row, x: Tensor, out: Tensor) -> None:
        a, b = active(part)
        self.history.push(part.updating, part.sigma[a:b], out[a:b], part.settled)

    def fill(self, site: Site, part: Row, mode: Mode, x: Tensor) -> Tensor:
        (a, b), slots = active(part), part.updating
        orders = [min(self.order, self.history.count(slot) - 1) for slot in slots]
        velocity = self.history.predict(slots, newton, part.sigma[a:b], orders)
        if b - a == len(part.slots):
            return velocity
        out = torch.zeros_like(x)  # idle frames are not stepped, so their velocity is never read
        out[a:b] = velocity
        return out

    def state(self) -> Iterable[Tensor]:
        return self.history.tensors()
