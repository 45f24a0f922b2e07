"""Pyramid Attention Broadcast (Zhao et al., ICLR 2025, arXiv 2408.12588, Sec. 3): reuse attention outputs, by kind.

    kind k is computed at call c  where  c mod range_k = 0  or  not end < t < begin        c counts rows, t timesteps
    otherwise  o_k(t) = o_k(last computed)

t is the timestep as in training, 1000 for noise and 0 for a clean latent. The released models reuse in [100, 850] or,
for Open-Sora, [450, 930]. On a shifted grid that is late: [100, 850] are steps 30 to 49 of the 50 of SkyReels-V2. The
differences between steps are large at the start and the end. They are smaller for cross-attention than for
self-attention, so self-attention has the shorter range. The reused outputs are those before the gate, so the present
gate is applied.

Site: self-attention, cross-attention and, if asked for, feed-forward of every block.
Signal: none, fixed ranges.
Memory: 1 hidden tensor per block and kind and guidance branch.
Released: windows and intervals, yes, if all frames are denoised together; shown by
tests/test_block_methods.py::test_pabs_windows_are_the_authors_timesteps.
Changed: a staircase has no common timestep, so a row is inside the window if all its updating slots are. Spatial and
temporal attention are one here. If the attention branch of a backbone includes cross-attention (MAGI-1), only
`attention` applies.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from baselines.shared.cadence import TIMESTEPS, Cadence, check_interval, timesteps, within
from baselines.shared.site_memory import Memory
from engine.knob import Knob
from engine.method import Capabilities, Method, Probe
from engine.row import Decision, Mode, Row, Site

if TYPE_CHECKING:
    from torch import Tensor

KINDS = ("attention", "cross_attention", "feed_forward")


@dataclass
class PAB(Method):
    """Reuses the output of every kind of attention for a fixed number of steps."""

    attention: int = 2  # self-attention is computed once in this number of steps; raising it: faster, larger errors
    cross_attention: int = 6  # for cross-attention, 6 in every release; raising it: faster, larger errors
    feed_forward: int = 1  # for feed-forward; raising it: faster, larger errors; 1 never reuses
    begin: float = 850.0  # timestep below which reuse starts; raising it: earlier reuse, faster
    end: float = 100.0  # timestep at which reuse ends; raising it: slower, sharper

    decided_by = "schedule"
    knobs = (Knob("attention", 1, 10, whole=True), Knob("feed_forward", 1, 10, whole=True))

    def __post_init__(self) -> None:
        for kind in KINDS:
            within(kind, getattr(self, kind), 1, float("inf"))
        within("begin", self.begin, 0, TIMESTEPS)
        within("end", self.end, 0, self.begin)
        self.ranges = {kind: getattr(self, kind) for kind in KINDS if getattr(self, kind) > 1}
        self.reset()

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"branches"})

    def check(self, model: Capabilities) -> None:
        super().check(model)
        for kind in KINDS:
            check_interval(model, kind, getattr(self, kind))

    def reset(self) -> None:
        self.past = Memory()
        self.calls = Cadence()
        self.due: set[str] = set()

    def decide(self, part: Row, probe: Probe, branch: str = "") -> Decision:
        call = self.calls.call(part)
        self.due = {kind for kind, every in self.ranges.items() if call % every == 0}
        if not self.past.knows(part):
            return Decision(Mode.RECOMPUTE, why="no history")
        if not all(self.end < t < self.begin for t in timesteps(part)):
            return Decision(Mode.RECOMPUTE, why="outside the window")
        if len(self.due) == len(self.ranges):
            return Decision(Mode.RECOMPUTE, why="interval")
        return Decision(Mode.CACHE)

    def sites(self, depth: int, row: Row) -> Sequence[Site]:
        return tuple(Site(kind, range(i, i + 1)) for i in range(depth) for kind in self.ranges)

    def revise(self, site: Site, part: Row, decision: Decision) -> Decision:
        return Decision(Mode.RECOMPUTE) if site.kind in self.due else decision

    def keep(self, site: Site, part: Row, x: Tensor, out: Tensor) -> None:
        self.past.push(site, part, out)

    def fill(self, site: Site, part: Row, mode: Mode, x: Tensor) -> Tensor:
        return self.past.last(site, part)

    def state(self) -> Iterable[Tensor]:
        return self.past.tensors()
