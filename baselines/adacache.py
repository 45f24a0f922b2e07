"""AdaCache (Kahatapitiya et al., ICCV 2025, arXiv 2411.02397, Sec. 3): the measured change sets how long to reuse.

    c = mean|r_now - r_then| / mean|r_then| / gap     r: attention output of block `measured`, last computed steps
    c <- c (1 + motion m),  m = mean|r_{j+1} - r_j| / mean|r_j|            between adjacent latents: motion
    the codebook maps c to a rate: compute again after this number of steps, and reuse the branches' outputs until then

The released 30-step codebook of Open-Sora ("fast") is the default. As released, one block is measured (13) and the
last two steps are always computed: with nearly constant features 8 of 30 steps are computed. The reused outputs are
those before the gate.

Site: self-attention, cross-attention and feed-forward of every block.
Signal: the attention output of one block at the last two computed steps; depends on the content.
Memory: 3 L hidden tensors per guidance branch (2 L if the attention branch includes cross-attention).
Released: the steps that are computed, yes; what is stored differs; shown by
tests/test_releases.py::test_adacache_computes_the_steps_of_its_release.
Changed: the release keeps two residuals per block, attention and the sum of cross-attention and feed-forward. Here
every branch is a site of its own. A forward applies the gate outside the site, so that the outputs of two branches
cannot be added before it: hence 3 L if the backbone has all three, and c is measured before the gate, per updating
latent slot; the largest decides. The motion term is a plain ratio instead of the paper's score and its gradient, and
off by default. A model with fewer blocks measures its last one.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import torch

from baselines.shared.cadence import Cadence, own_steps, within
from baselines.shared.site_memory import Memory
from engine.discrepancy import relative_l1
from engine.knob import Knob
from engine.method import Method, Probe
from engine.row import Decision, Mode, Row, Site
from engine.to_device import picked, sent

if TYPE_CHECKING:
    from torch import Tensor

KINDS = ("attention", "cross_attention", "feed_forward")


@dataclass
class AdaCache(Method):
    """Measures one block's attention and reuses all branches of all blocks for the number of steps that it allows."""

    codebook: list[float] = field(default_factory=lambda: [0.08, 0.16, 0.24, 0.32, 0.40])  # rising bounds of c
    rates: list[int] = field(default_factory=lambda: [6, 5, 4, 3, 2, 1])  # one rate more than bounds; raising: faster
    scale: float = 1.0  # factor on the codebook's bounds; raising it: longer reuse, faster; 0 computes every step
    motion: float = 0.0  # weight of motion; raising it: moving content is recomputed earlier, slower
    warmup: int = 1  # first steps of a slot that are always computed; raising it: slower, smaller errors
    cooldown: int = 2  # last steps of a slot that are always computed; raising it: slower, sharper
    measured: int = 13  # the block whose attention is measured; raising it: a later block; costs the same

    least_steps = 3
    knobs = (Knob("scale", 1e-3, 100.0), Knob("warmup", 20, 1, whole=True))

    def __post_init__(self) -> None:
        if len(self.rates) != len(self.codebook) + 1:
            raise ValueError(
                f"want one rate more than bounds, got {len(self.rates)} rates for {len(self.codebook)} bounds"
            )
        if not all(a < b for a, b in pairwise(self.codebook)) or not all(bound >= 0 for bound in self.codebook):
            raise ValueError(f"codebook must rise from 0 on, got {self.codebook}")
        within("the least of rates", min(self.rates), 1, float("inf"))
        for name in ("scale", "motion", "warmup", "cooldown", "measured"):
            within(name, getattr(self, name), 0, float("inf"))
        self.reset()

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"branches"})

    def reset(self) -> None:
        self.cadence, self.past = Cadence(), Memory()
        self.changes: dict[int, list[Tensor]] = {}  # per slot, c in the last computed row, for each guidance branch
        self.row, self.block = -1, self.measured

    def decide(self, part: Row, probe: Probe, branch: str = "") -> Decision:
        if not self.past.knows(part) or not all(self.changes.get(slot) for slot in part.updating):
            return Decision(Mode.RECOMPUTE, why="no history")
        found = torch.stack([torch.stack(self.changes[slot]).mean() for slot in part.updating])
        change = float(found.max())
        done, left = own_steps(part)
        if done < self.warmup:
            return Decision(Mode.RECOMPUTE, change, "warm-up")
        if left <= self.cooldown:
            return Decision(Mode.RECOMPUTE, change, "cool-down")
        if self.cadence.waited(part) + 1 >= self.rate(change):
            return Decision(Mode.RECOMPUTE, change, "rate")
        return Decision(Mode.CACHE, change)

    def rate(self, change: float) -> int:
        """The number of steps until the next computed one, for a measured change."""
        if not self.scale or not math.isfinite(change):
            return 1
        return self.rates[bisect_right(self.codebook, change / self.scale)]

    def settle(self, part: Row, decision: Decision, branch: str = "") -> None:
        self.cadence.settle(part, decision)

    def sites(self, depth: int, row: Row) -> Sequence[Site]:
        self.block = min(self.measured, depth - 1)
        return tuple(Site(kind, range(i, i + 1)) for i in range(depth) for kind in KINDS)

    def keep(self, site: Site, part: Row, x: Tensor, out: Tensor) -> None:
        if part.iteration != self.row:
            self.row, self.changes = part.iteration, {}
        watched = site.kind == "attention" and site.span.start == self.block and "+" not in site.branch
        if watched and site in self.past.at:
            self._measure(self.past.at[site].levels, site, part, out)
        self.past.push(site, part, out)

    def _measure(self, levels: dict[int, list[float]], site: Site, part: Row, out: Tensor) -> None:
        where = [i for i, slot in enumerate(part.slots) if slot in levels and slot in part.updating]
        if not where:
            return
        slots = [part.slots[i] for i in where]
        now = picked(out, where)
        gap = sent([part.iteration - levels[slot][-1] for slot in slots], out.device)
        change = relative_l1(now, self.past.at[site].last(slots), 0.0) / gap
        if self.motion and len(now) > 1:
            steps = relative_l1(now[1:], now[:-1], 1e-12)
            change = change * (1 + self.motion * steps.mean())
        for slot, value in zip(slots, change, strict=True):
            self.changes.setdefault(slot, []).append(value)

    def fill(self, site: Site, part: Row, mode: Mode, x: Tensor) -> Tensor:
        return self.past.last(site, part)

    def state(self) -> Iterable[Tensor]:
        return self.past.tensors()
