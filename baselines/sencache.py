"""SenCache (arXiv 2602.24208): reuse while the measured sensitivities of the model bound the change of its output.

    S = Jx |x - x'| + Jt |s - s'|       x: the latent, s: the noise level; x', s': those of the last computed step
    skip (x_out = x_in + R)  while  S < threshold (`early` in the first part of the steps)  and  n < max_skip
    Jx = |v(x_next, s) - v(x, s)| / |x_next - x|,   Jt = |v(x, s_next) - v(x, s)| / |s_next - s|          calibrated

R is the residual of the block stack, n the steps since the last computed one. Norms are root mean squares: the release
multiplies its thresholds by the root of the number of values instead. The tables Jx and Jt depend on the model and its
schedule: `python -m benchmarks.calibrate_sencache` measures them. The values at the last computed step count.

Site: the whole block stack.
Signal: the latent; depends on the content.
Memory: 1 hidden tensor per guidance branch and 1 latent.
Released: decisions and outputs, yes; shown by tests/test_sencache.py::test_a_run_by_hand.
Changed: S and n are kept per latent slot and the tables are read at the slot's own step; the row is computed if one of
its updating slots asks. The tables are measured on the guided velocity along the model's own steps, and Jt at x_next;
the release measures the conditional branch on noised videos. Tables of another length are read at the nearest index.
The noise level goes from 1 to 0 and not from 1000. The thresholds are estimated.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from baselines.magcache import nearest
from baselines.shared.cadence import asks, within
from baselines.shared.schedule import active
from baselines.shared.site_memory import Memory
from engine.history import History
from engine.knob import Knob
from engine.method import Method, Probe
from engine.row import Decision, Mode, Row, Site

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class SenCache(Method):
    """Reuses the residual of the block stack while latent and noise level are close to those of the last forward."""

    threshold: float  # limit of S; raising it: more steps reuse; faster, larger errors
    latent: list[float]  # Jx of every step of a slot
    time: list[float]  # Jt of every step
    early: float = 0.005  # limit of S in the first part of the steps; raising it: faster, other compositions
    early_share: float = 0.2  # that part, as a share of the steps; raising it: slower, safer
    max_skip: int = 10  # K, largest number of steps without a forward; raising it: faster, larger errors

    least_steps = 2
    knobs = (Knob("threshold", 1e-4, 10.0, follows={"early": 0.0714}), Knob("max_skip", 0, 12, whole=True))

    def __post_init__(self) -> None:
        for name in ("threshold", "early", "max_skip"):
            within(name, getattr(self, name), 0, math.inf)
        within("early_share", self.early_share, 0, 1)
        for name in ("latent", "time"):
            table = getattr(self, name)
            if not table or not all(0 <= value < math.inf for value in table):
                raise ValueError(
                    f"{name} wants a sensitivity, 0 or larger, for every step, got {table}; measure it for this model "
                    "and schedule with python -m benchmarks.calibrate_sencache"
                )
        self.reset()

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"blocks", "latent"})

    def reset(self) -> None:
        self.residual, self.input = Memory(), History(1)  # the level of an input is its noise level
        self.step: dict[int, int] = {}  # of the last forward of each slot
        self.skipped: dict[int, int] = {}  # n

    def decide(self, part: Row, probe: Probe, branch: str = "") -> Decision:
        a, b = active(part)
        self.now, slots = probe("latent")[a:b], part.updating
        if not self.residual.knows(part) or any(self.input.count(slot) == 0 for slot in slots):
            return Decision(Mode.RECOMPUTE, why="no history")
        moved = (self.now.float() - self.input.last(slots)).square().flatten(1).mean(1).sqrt().tolist()
        sums = [self._sum(slot, part, change) for slot, change in zip(slots, moved, strict=True)]
        early = [k < round(self.early_share * part.steps) for k in part.step[a:b]]
        limits = [self.early if first else self.threshold for first in early]
        reasons = {asks([s], limit) for s, limit in zip(sums, limits, strict=True)} - {""}
        if not reasons and max(self.skipped.get(slot, 0) for slot in slots) >= self.max_skip:
            reasons = {"max_skip"}
        return Decision(Mode.RECOMPUTE if reasons else Mode.CACHE, max(sums), max(reasons, default=""))

    def _sum(self, slot: int, part: Row, moved: float) -> float:
        """S of a slot whose latent has `moved` since its last forward."""
        level, k = part.sigma[slot - part.slots.start], self.step[slot]
        passed = abs(level - self.input.levels[slot][-1])
        return nearest(self.latent, k, part.steps) * moved + nearest(self.time, k, part.steps) * passed

    def settle(self, part: Row, decision: Decision, branch: str = "") -> None:
        (a, b), slots = active(part), part.updating
        fresh = decision.mode is Mode.RECOMPUTE
        for slot in slots:
            self.skipped[slot] = 0 if fresh else self.skipped.get(slot, 0) + 1
        if fresh:
            self.input.push(slots, part.sigma[a:b], self.now, part.settled)
            self.step.update(zip(slots, part.step[a:b], strict=True))

    def sites(self, depth: int, row: Row) -> Sequence[Site]:
        return (Site("blocks", range(depth)),)

    def keep(self, site: Site, part: Row, x: Tensor, out: Tensor) -> None:
        self.residual.push(site, part, out - x)

    def fill(self, site: Site, part: Row, mode: Mode, x: Tensor) -> Tensor:
        return x + self.residual.last(site, part)

    def state(self) -> Iterable[Tensor]:
        return (*self.residual.tensors(), *self.input.tensors())
