"""Delta-DiT (Chen et al. 2024, arXiv 2406.01125, Sec. 3-4): reuse the residual of a range of blocks.

    Delta = x_out(range) - x_in(range)        at the last full step
    x_out = x_in + Delta                      in between, with the present x_in
    range = the last Nc blocks  while k < boundary * steps    (outline stage: the front is computed)
            the first Nc blocks afterwards                    (detail stage: the rear is computed)

One step in `interval` is full. SCOPE's paper uses the method per AR unit: Delta is kept per latent slot, k counts the
slot's own steps, and a new unit starts with a full step. A decision for a whole row uses the stage of its least
denoised updating slot. `decide_per: unit` decides for every chunk, if the backbone can forward a part of a row.

Site: the front or the rear range of blocks.
Signal: none, a fixed interval.
Memory: 1 hidden tensor per guidance branch and range, so 2 after the change of stage.
Changed: there is no official code and the paper does not state its hyperparameters; interval, Nc and boundary are ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from baselines.shared.cadence import Cadence, check_interval, one_of, own_steps, within
from baselines.shared.site_memory import Memory
from engine.knob import Knob
from engine.method import Capabilities, Method, Probe
from engine.row import Decision, Mode, Row, Site

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class DeltaDiT(Method):
    """Reuses the residual of the rear blocks, later of the front blocks."""

    interval: int  # one step in `interval` is full; raising it: faster, larger errors
    blocks: float = 0.4  # share of the blocks that the range covers (Nc / L); raising it: faster, larger errors
    boundary: float = 0.5  # share of a slot's steps in the outline stage; raising it: the rear is reused for longer
    warmup: int = 1  # first steps of a slot that are always full; raising it: slower, smaller errors at the start
    decide_per: str = "row"  # "row"; "unit": a decision per chunk, if the backbone can forward a part of a row

    decided_by = "schedule"
    knobs = (
        Knob("blocks", 0.02, 1.0),
        Knob("interval", 1, 10, whole=True),
        Knob("warmup", 24, 1, whole=True),
    )

    def __post_init__(self) -> None:
        within("interval", self.interval, 1, float("inf"))
        within("blocks", self.blocks, 0, 1)
        within("boundary", self.boundary, 0, 1)
        within("warmup", self.warmup, 1, float("inf"))
        one_of("decide_per", self.decide_per, "row", "unit")
        self.reset()

    @property
    def grain(self) -> str:
        return self.decide_per

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"blocks", "partial"} if self.decide_per == "unit" else {"blocks"})

    def check(self, model: Capabilities) -> None:
        super().check(model)
        check_interval(model, "interval", self.interval)

    def reset(self) -> None:
        self.cadence = Cadence()
        self.delta = {"outline": Memory(), "detail": Memory()}
        self.stage = "outline"  # stage of the present row

    def decide(self, part: Row, probe: Probe, branch: str = "") -> Decision:
        own = self._memory(self._stage(part))
        # an outer method may have skipped a guidance branch since the start of the stage
        seen = {branch for memory in self.delta.values() for branch in memory.branches()}
        if not own.knows(part) or own.branches() != seen:
            return Decision(Mode.RECOMPUTE, why="no history")
        if own_steps(part)[0] < self.warmup:
            return Decision(Mode.RECOMPUTE, why="warm-up")
        if self.cadence.waited(part) + 1 >= self.interval:
            return Decision(Mode.RECOMPUTE, why="interval")
        return Decision(Mode.CACHE, why=self._stage(part))

    def settle(self, part: Row, decision: Decision, branch: str = "") -> None:
        self.cadence.settle(part, decision)

    def _stage(self, part: Row) -> str:
        return "outline" if part.progress < self.boundary * part.steps else "detail"

    def _memory(self, stage: str) -> Memory:
        return self.delta["outline" if self.decide_per == "unit" else stage]

    def sites(self, depth: int, row: Row) -> Sequence[Site]:
        """The stage's range of blocks. With grain "unit" both ranges, without overlap: units may differ in stage."""
        self.stage, count = self._stage(row), round(self.blocks * depth)
        if not count:
            return ()
        ranges = {"outline": range(depth - count, depth), "detail": range(count)}
        if self.decide_per == "row":
            return (Site("blocks", ranges[self.stage]),)
        spans = [range(a, b) for a, b in pairwise(sorted({0, count, depth - count, depth}))]
        self._covers = {(stage, s.start) for s in spans for stage, r in ranges.items() if s.start in r}
        return tuple(Site("blocks", s) for s in spans if {("outline", s.start), ("detail", s.start)} & self._covers)

    def revise(self, site: Site, part: Row, decision: Decision) -> Decision:
        if self.decide_per == "unit" and (self._stage(part), site.span.start) not in self._covers:
            return Decision(Mode.RECOMPUTE)
        return decision

    def keep(self, site: Site, part: Row, x: Tensor, out: Tensor) -> None:
        self._memory(self.stage).push(site, part, out - x)  # with grain "unit" all stages use one memory

    def fill(self, site: Site, part: Row, mode: Mode, x: Tensor) -> Tensor:
        return x + self._memory(self.stage).last(site, part)

    def state(self) -> Iterable[Tensor]:
        return (tensor for memory in self.delta.values() for tensor in memory.tensors())
