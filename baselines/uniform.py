"""A control: compute every k-th row, and reuse or extrapolate the velocity in between.

It uses as many forwards as a method, but measures no signal. So a method should be better than this control. Order 0
reuses the last velocity. Orders 1 and 2 extrapolate with Newton's polynomial through the last computed velocities.
`reuse: increment` adds the latent's last increment instead, as the released FlowCache and TeaCache do on MAGI-1. If
steps have unequal lengths, that corresponds to another velocity. `selective` leaves out frames that a forward need not
cover, so that the control can be compared with a method that does the same.

Site: velocity.
Signal: none, a fixed interval.
Memory: order + 1 latents.
Changed: a control of our own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from baselines.shared.cadence import check_interval, check_order
from baselines.shared.schedule import NEEDS, active, check_selective, narrowed
from engine.forecast import newton
from engine.history import History, column, steps_of
from engine.knob import Knob
from engine.method import Capabilities, Method, Probe
from engine.row import VELOCITY, Decision, Mode, Row, Site

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Uniform(Method):
    """Computes at a fixed interval, whatever the content."""

    interval: float  # one row in `interval` is computed; raising it: faster, larger errors; 2.5 alternates 2 and 3
    order: int = 0  # order of the extrapolation; raising it: better on a smooth trajectory, amplifies noise more
    reuse: str = "velocity"  # at order 0: the "velocity", or the last "increment" of the latent, for any step length
    selective: str = "none"  # slots that a forward covers: none | prefix (no waiting frames) | exact (block-causal)

    decided_by = "schedule"
    knobs = (Knob("interval", 1.0, 50.0),)

    def __post_init__(self) -> None:
        if not self.interval >= 1:
            raise ValueError(f"interval must be at least 1 (1 computes every row), got {self.interval}")
        if self.order not in (0, 1, 2):
            raise ValueError(f"order is 0, 1 or 2, got {self.order}")
        if self.reuse not in ("velocity", "increment") or (self.reuse == "increment" and self.order):
            raise ValueError(f"want reuse=velocity, or increment at order 0; got {self.reuse!r} at order {self.order}")
        check_selective(self.selective)
        self.reset()

    @property
    def requires(self) -> frozenset[str]:
        return NEEDS[self.selective]

    def narrow(self, row: Row) -> Row:
        return narrowed(row, self.selective)

    def check(self, model: Capabilities) -> None:
        super().check(model)
        check_interval(model, "interval", self.interval)
        check_order(model, self.order, self.interval)

    def reset(self) -> None:
        self.rows = 0  # decisions in this segment
        self.computed = -1  # index of the last interval that was computed
        self.history = History(self.order + 1)
        self.step: dict[int, float] = {}  # change of noise level in each slot's last computed step

    def decide(self, part: Row, probe: Probe, branch: str = "") -> Decision:
        due = int(self.rows / self.interval) > self.computed
        self.rows += 1
        if any(self.history.count(slot) == 0 for slot in part.updating):
            return Decision(Mode.RECOMPUTE, why="no history")
        if due:
            return Decision(Mode.RECOMPUTE, why="interval")
        return Decision(Mode.PREDICT if self.order else Mode.CACHE)

    def settle(self, part: Row, decision: Decision, branch: str = "") -> None:
        if decision.mode is Mode.RECOMPUTE:
            self.computed = int((self.rows - 1) / self.interval)

    def sites(self, depth: int, row: Row) -> Sequence[Site]:
        return (VELOCITY,)

    def keep(self, site: Site, part: Row, x: Tensor, out: Tensor) -> None:
        a, b = active(part)
        self.history.push(part.updating, part.sigma[a:b], out[a:b], part.settled)
        self.step |= steps_of(part)

    def fill(self, site: Site, part: Row, mode: Mode, x: Tensor) -> Tensor:
        (a, b), slots = active(part), part.updating
        orders = [min(self.order, self.history.count(slot) - 1) for slot in slots]
        out = torch.zeros_like(x)
        out[a:b] = self.history.predict(slots, newton, part.sigma[a:b], orders)
        if self.reuse == "increment":
            now = steps_of(part)
            out[a:b] *= column([self.step[slot] / now[slot] for slot in slots], out)
        return out

    def state(self) -> Iterable[Tensor]:
        return self.history.tensors()
