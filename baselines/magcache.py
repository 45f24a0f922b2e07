"""MagCache (Ma et al., NeurIPS 2025, arXiv 2506.09045, Sec. 3): reuse by calibrated ratios of the residual's size.

    gamma_k = mean ||R_k|| / ||R_{k-1}||        of the block stack's residual R = x_out - x_in, over tokens; calibrated
    g *= gamma_k;  e += |1 - g|;  n += 1        since the last full step
    skip (x_out = x_in + R)  while  e < threshold  and  n <= max_skip,  else compute and g = 1, e = 0, n = 0

The first `retention` of the steps are computed. The table depends on the model and its schedule, not on the content:
`python -m benchmarks.calibrate_magcache` measures it. A table of another length is read at the nearest index.

Site: the whole block stack.
Signal: a calibrated table; the same decisions for every prompt.
Memory: 1 hidden tensor per guidance branch.
Released: yes, also at the threshold; shown by
tests/test_probing_methods.py::test_magcache_computes_where_the_error_equals_the_threshold.
Changed: g, e and n are kept per latent slot and the table is read at the slot's own step, since an asynchronous
schedule has no common step; a row is skipped if all its updating slots may be skipped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from baselines.shared.cadence import asks, own_steps, within
from baselines.shared.site_memory import Memory
from engine.knob import Knob
from engine.method import Method, Probe
from engine.row import Decision, Mode, Row, Site

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class MagCache(Method):
    """Reuses the residual of the block stack for the steps that a table of ratios allows."""

    threshold: float  # limit of the accumulated error; raising it: more steps are skipped; faster, larger errors
    ratios: list[float]  # measured gamma of every step of a slot, 1 at the first; of the conditional branch
    ratios_uncond: list[float] = field(default_factory=list)  # the same of the other branches; []: one decision for all
    max_skip: int = 4  # K, largest number of steps without a forward; raising it: faster, larger errors
    retention: float = 0.2  # share of the steps, from the first on, that are computed; raising it: slower, safer

    decided_by = "schedule"
    least_steps = 2
    knobs = (Knob("threshold", 1e-4, 10.0), Knob("max_skip", 0, 12, whole=True))

    def __post_init__(self) -> None:
        within("threshold", self.threshold, 0, float("inf"))
        within("max_skip", self.max_skip, 0, float("inf"))
        within("retention", self.retention, 0, 1)
        if not self.ratios:
            raise ValueError(
                "ratios is empty; measure it for this model and schedule with python -m benchmarks.calibrate_magcache"
            )
        if not all(0 < ratio < math.inf for ratio in [*self.ratios, *self.ratios_uncond]):
            raise ValueError("ratios must be positive and finite, since they are ratios of sizes")
        self.reset()

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"blocks"})

    @property
    def branchwise(self) -> bool:
        return bool(self.ratios_uncond)

    def reset(self) -> None:
        self.residual = Memory()
        self.law: dict[tuple[str, int], tuple[float, float, int]] = {}  # g, e, n of a slot

    def decide(self, part: Row, probe: Probe, branch: str = "") -> Decision:
        table = self.ratios_uncond if self.ratios_uncond and branch != "cond" else self.ratios
        retained = int(self.retention * part.steps + 0.5)
        for slot, k, on in zip(part.slots, part.step, part.active, strict=True):
            if on and k >= retained:
                g, e, n = self.law.get((branch, slot), (1.0, 0.0, 0))
                g *= nearest(table, k, part.steps)
                self.law[branch, slot] = (g, e + abs(1 - g), n + 1)
        laws = [self.law.get((branch, slot), (1.0, 0.0, 0)) for slot in part.updating]
        score = max(e for _, e, _ in laws)
        if not self.residual.knows(part, branch=branch):
            return Decision(Mode.RECOMPUTE, score, "no history")
        if own_steps(part)[0] < retained:
            return Decision(Mode.RECOMPUTE, score, "warm-up")
        if max(n for _, _, n in laws) > self.max_skip:
            return Decision(Mode.RECOMPUTE, score, "max_skip")
        why = asks((e for _, e, _ in laws), self.threshold)
        return Decision(Mode.RECOMPUTE if why else Mode.CACHE, score, why)

    def settle(self, part: Row, decision: Decision, branch: str = "") -> None:
        if decision.mode is Mode.RECOMPUTE:
            for slot in part.slots:
                self.law.pop((branch, slot), None)

    def sites(self, depth: int, row: Row) -> Sequence[Site]:
        return (Site("blocks", range(depth)),)

    def keep(self, site: Site, part: Row, x: Tensor, out: Tensor) -> None:
        self.residual.push(site, part, out - x)

    def fill(self, site: Site, part: Row, mode: Mode, x: Tensor) -> Tensor:
        return x + self.residual.last(site, part)

    def state(self) -> Iterable[Tensor]:
        return self.residual.tensors()


def nearest(table: Sequence[float], step: int, steps: int) -> float:
    """The entry of `table` for `step` of `steps`; a table of another length is read at the nearest index.

    >>> [nearest([1.0, 0.9, 0.5], k, 5) for k in range(5)]
    [1.0, 1.0, 0.9, 0.5, 0.5]
    """
    if steps == 1:
        return table[-1]
    return table[min(round(step * (len(table) - 1) / (steps - 1)), len(table) - 1)]
