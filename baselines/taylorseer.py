"""TaylorSeer (Liu et al., ICCV 2025, arXiv 2503.06923, Sec. 3): extrapolate the features of skipped steps.

    F_0 = y,  F_{k+1} = (F_k - F_k of the last full step) / gap         at every full step, gap in step indices (Eq. 3)
    y(t) = sum_{k <= order} F_k d^k / k!,  d = steps since the full step                                      (Eq. 4)

The release computes the first difference at the last of the `warmup` steps, against the step before it. Earlier steps
are not used in a forecast. With warmup 3, order 2 and y = 0, 1, 4 the forecast of step 3 is 4 + 3 = 7.

`variant: full` forecasts the output of every attention, cross-attention and feed-forward before its gate, so the
present modulation is applied on the residual path. `variant: lite` forecasts only the last block's output and skips all
blocks; the authors report a small loss of quality at a small share of the memory. One step in `interval` is full.

There are two counters. `counter: slot` (ours): the first `warmup` steps of each slot are full, and only values from its
own denoising are used in its forecast. `counter: segment`: one count of rows for all slots, as in a wrapper around the
whole window; a frame that has just started is then forecast from features of its noise while it was waiting. SCOPE's
Table 1 gives TaylorSeer LPIPS 0.68 at interval 2-3, which suggests `counter: segment`.

Site: every branch of every block, or the whole block stack.
Signal: none, a fixed interval.
Memory: 3 L (order + 1) hidden tensors per guidance branch (full), order + 1 (lite).
Released: the recursion and the steps of the warm-up, yes; memory and counters differ; shown by
tests/test_releases.py::test_taylorseer_computes_and_forecasts_as_its_release.
Changed: values are stored instead of factors, which gives the same recursion; the formula can be exchanged; the
interval may be fractional (a mean), since whole intervals do not reach the shares of FLOPs in SCOPE's Table 1. The
defaults of the menu are the release's for Wan (interval 5, order 1, warm-up 1). The operating points are fitted to
Table 1 and differ from them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from baselines.shared.cadence import Cadence, check_interval, check_order, one_of, own_steps, within
from baselines.shared.site_memory import Memory
from engine.forecast import FORECASTERS
from engine.knob import Knob
from engine.method import Capabilities, Method, Probe
from engine.row import Decision, Mode, Row, Site

if TYPE_CHECKING:
    from torch import Tensor

BRANCHES = ("attention", "cross_attention", "feed_forward")


@dataclass
class TaylorSeer(Method):
    """Forecasts the outputs of the branches, or of the last block, between two full steps."""

    interval: float  # one step in `interval` is full; raising it: faster, larger errors; 2.5 alternates 3 and 2
    order: int = 1  # order of the expansion, 0 reuses; raising it: better on smooth features, more noise and memory
    variant: str = "full"  # "full": forecast every branch of every block; "lite": only the last block's output
    counter: str = "slot"  # "slot": each slot counts its own steps; "segment": one count for all, as in a wrapper
    warmup: int = 1  # number of full steps at the start ("first enhance"); raising it: slower, smaller errors
    cooldown: int = 0  # number of full steps at the end; raising it: slower, sharper
    formula: str = "taylorseer"  # taylorseer | newton | taylor | hicache | foca | adams_bashforth
    decide_per: str = "row"  # "row"; "unit": a decision per chunk, if the backbone can forward a part of a row

    decided_by = "schedule"
    knobs = (Knob("interval", 1.0, 10.0), Knob("warmup", 24, 1, whole=True))

    def __post_init__(self) -> None:
        within("interval", self.interval, 1, float("inf"))
        within("order", self.order, 0, 3)
        within("warmup", self.warmup, 1, float("inf"))
        within("cooldown", self.cooldown, 0, float("inf"))
        one_of("variant", self.variant, "full", "lite")
        one_of("counter", self.counter, "slot", "segment")
        one_of("formula", self.formula, *FORECASTERS)
        one_of("decide_per", self.decide_per, "row", "unit")
        if self.counter == "segment" and self.decide_per == "unit":
            raise ValueError("counter=segment counts rows for all slots; set decide_per=row or counter=slot")
        self.reset()

    @property
    def grain(self) -> str:
        return self.decide_per

    @property
    def ignored(self) -> int:
        """The number of first steps that no forecast uses: differences start at the last step of the warm-up."""
        return max(self.warmup - 2, 0)

    @property
    def requires(self) -> frozenset[str]:
        needs = {"blocks" if self.variant == "lite" else "branches"}
        return frozenset(needs | ({"partial"} if self.decide_per == "unit" else set()))

    def check(self, model: Capabilities) -> None:
        super().check(model)
        check_interval(model, "interval", self.interval)
        check_order(model, self.order, self.interval, self.warmup, self.ignored)

    def reset(self) -> None:
        self.cadence = Cadence()
        self.past = Memory(self.order + 1)
        self.born: dict[int, int] = {}  # first row of each slot's denoising
        self.began: int | None = None  # the first row of the segment
        self.orders: dict[tuple[int, range, str], list[int]] = {}  # orders of the forecasts of this row

    def decide(self, part: Row, probe: Probe, branch: str = "") -> Decision:
        count = self.cadence.count(part)
        self.began = part.iteration if self.began is None else self.began
        for slot, k in zip(part.slots, part.step, strict=True):
            if k == 0 and slot in part.updating:
                self.born[slot] = part.iteration
        done, left = own_steps(part)
        if self.counter == "segment":
            done = count
        if not self.past.knows(part):
            return Decision(Mode.RECOMPUTE, why="no history")
        if done < self.warmup:
            return Decision(Mode.RECOMPUTE, why="warm-up")
        if left <= self.cooldown:
            return Decision(Mode.RECOMPUTE, why="cool-down")
        if self.cadence.due(part, self.interval):
            return Decision(Mode.RECOMPUTE, why="interval")
        return Decision(Mode.PREDICT if self.order else Mode.CACHE)

    def settle(self, part: Row, decision: Decision, branch: str = "") -> None:
        self.cadence.settle(part, decision, self.interval)

    def sites(self, depth: int, row: Row) -> Sequence[Site]:
        if self.variant == "lite":
            return (Site("blocks", range(depth)),)
        return tuple(Site(kind, range(i, i + 1)) for i in range(depth) for kind in BRANCHES)

    def keep(self, site: Site, part: Row, x: Tensor, out: Tensor) -> None:
        self.past.push(site, part, out)

    def fill(self, site: Site, part: Row, mode: Mode, x: Tensor) -> Tensor:
        return self.past.predict(site, part, FORECASTERS[self.formula], self._orders(site, part))

    def _orders(self, site: Site, part: Row) -> list[int]:
        """The order of every slot's expansion, by the number of its anchors; the same at all sites of a pass."""
        key = part.iteration, part.slots, site.branch
        if key not in self.orders:
            self.orders = {other: known for other, known in self.orders.items() if other[0] == part.iteration}
            levels, first = self.past.at[site].levels, [self._first(slot) for slot in part.slots]
            anchors = [sum(at >= k for at in levels[slot]) for slot, k in zip(part.slots, first, strict=True)]
            self.orders[key] = [max(count - 1, 0) for count in anchors]
        return self.orders[key]

    def _first(self, slot: int) -> int:
        """The first row whose value is used in forecasts of `slot`. Before its own denoising it is pure noise."""
        begin = self.born.get(slot) if self.counter == "slot" else self.began
        return -1 if begin is None else begin + self.ignored

    def state(self) -> Iterable[Tensor]:
        return self.past.tensors()
