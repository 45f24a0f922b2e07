"""FasterCache's CFG cache (Lv et al., ICLR 2025, arXiv 2410.19355, Sec. 3.3): rebuild the unconditional branch.

    D = v_uncond - v_cond, split into low and high spatial frequencies        at calls  c mod `interval` = 0
    v_uncond = v_cond + D_low + D_high                                        in between, with the present v_cond
    before each of these  D_low <- (1 + boost) D_low   while  k <= low_until * steps
                          D_high <- (1 + boost) D_high  from  k >= high_from * steps  on

The branches differ in low frequencies at early steps and in high frequencies at late steps. The boost is applied to the
stored D, so it compounds: 1.1, 1.21, 1.331, 1.4641 in four consecutive steps. Between the two bounds (steps 30 and 40
of 50 in the release) both bands are boosted. The low band is within min(H, W) // 5 indices of frequency zero. The
method starts at the share `begin` of a slot's steps. It skips only unconditional forwards, so at most half of all.

Site: the velocity of each further guidance branch, before guidance.
Signal: none, a fixed interval.
Memory: 2 latents (D, and the conditional velocity of the present row).
Released: the guidance part, yes, if all frames are denoised together; shown by
tests/test_block_methods.py::test_the_boost_compounds_until_both_branches_are_computed_again.
Changed: the released code and diffusers' hook need both branches in one batch; here they are separate forwards. D is
kept per latent slot. Stages are counted in a slot's own steps, `begin` in those of the least denoised updating slot,
and calls in rows. If an outer part of a composite skips calls, both branches are computed after `interval` rows at the
latest. FasterCache's reuse of attention is not included.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from baselines.shared.cadence import Cadence, check_interval, own_steps, within
from baselines.shared.site_memory import Memory
from engine.history import column
from engine.knob import Knob
from engine.method import Capabilities, Method, Probe
from engine.row import Decision, Mode, Row, Site

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class CfgCache(Method):
    """Supplies the velocity of the further guidance branches between two computed ones."""

    interval: int = 5  # both branches are computed once in this number of steps; raising it: faster, larger errors
    begin: float = 0.33  # start of the method, as a share of a slot's steps; raising it: slower, smaller errors
    low_until: float = 0.8  # end of the boost of low frequencies, as a share of a slot's steps; raising it: later
    high_from: float = 0.6  # start of the boost of high frequencies, as a share of a slot's steps; raising it: later
    boost: float = 0.1  # increase at each reuse; raising it: stronger guidance in the boosted bands; 0: plain reuse
    band: float = 0.2  # radius of the low band, as a share of the shorter side; raising it: a larger low band

    decided_by = "schedule"
    knobs = (Knob("interval", 1, 10, whole=True), Knob("begin", 1.0, 0.02))

    def __post_init__(self) -> None:
        within("interval", self.interval, 1, math.inf)
        for name in ("begin", "low_until", "high_from"):
            within(name, getattr(self, name), 0, 1)
        within("boost", self.boost, -1, math.inf)
        within("band", self.band, 0, math.inf)
        self.reset()

    @property
    def branchwise(self) -> bool:
        return True

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"guidance"})

    def check(self, model: Capabilities) -> None:
        super().check(model)
        check_interval(model, "interval", self.interval)
        if len(model.branches) < 2:
            raise ValueError(
                f"{model.name} runs without guidance, so there is no branch to skip; set model.guidance > 1"
            )

    def reset(self) -> None:
        self.cadence, self.apart = Cadence(), Memory(dtype=torch.float32)
        self.cond: Tensor | None = None
        self.boosts: dict[
            tuple[str, int], tuple[int, int]
        ] = {}  # number of boosts of the low and high band of a slot's D

    def decide(self, part: Row, probe: Probe, branch: str = "") -> Decision:
        if branch == "cond":
            return Decision(Mode.RECOMPUTE, why="conditional")
        due = self.cadence.call(part) % self.interval == 0 or self.cadence.waited(part) + 1 >= self.interval
        if not self.apart.knows(part, branch=branch):
            return Decision(Mode.RECOMPUTE, why="no history")
        if own_steps(part)[0] < self.begin * part.steps:
            return Decision(Mode.RECOMPUTE, why="warm-up")
        return Decision(Mode.RECOMPUTE, why="interval") if due else Decision(Mode.CACHE)

    def settle(self, part: Row, decision: Decision, branch: str = "") -> None:
        if branch == "cond":
            return
        self.cadence.settle(part, decision)
        for slot, k in zip(part.slots, part.step, strict=True):
            low, high = self.boosts.get((branch, slot), (0, 0))
            boosted = low + (k <= self.low_until * part.steps), high + (k >= self.high_from * part.steps)
            self.boosts[branch, slot] = (0, 0) if decision.mode is Mode.RECOMPUTE else boosted

    def sites(self, depth: int, row: Row) -> Sequence[Site]:
        return (Site("guidance"),)

    def keep(self, site: Site, part: Row, x: Tensor, out: Tensor) -> None:
        if site.branch == "cond":
            self.cond = out
        else:
            assert self.cond is not None
            self.apart.push(site, part, out - self.cond)

    def fill(self, site: Site, part: Row, mode: Mode, x: Tensor) -> Tensor:
        assert self.cond is not None
        apart = self.apart.last(site, part)
        low = low_frequencies(apart, self.band)
        counts = [self.boosts.get((site.branch, slot), (0, 0)) for slot in part.slots]
        w_low, w_high = (column([(1 + self.boost) ** n for n in each], apart) for each in zip(*counts, strict=True))
        return self.cond + w_low * low + w_high * (apart - low)

    def state(self) -> Iterable[Tensor]:
        return (*self.apart.tensors(), *(() if self.cond is None else (self.cond,)))


def low_frequencies(x: Tensor, band: float = 0.2) -> Tensor:
    """The part of (..., H, W) within int(band min(H, W)) indices of frequency zero, in a circle of the index plane.

    The largest index of a side of 120 is 60. On 68 x 120 with band 0.2 the radius is 13, so index 14 is high.
    """
    height, width = x.shape[-2:]
    radius = int(band * min(height, width) + 1e-9)
    rows = torch.fft.fftfreq(height, 1 / height, device=x.device)[:, None].round()
    columns = torch.fft.rfftfreq(width, 1 / width, device=x.device)[None].round()
    keep = rows**2 + columns**2 <= radius**2
    return torch.fft.irfft2(torch.fft.rfft2(x) * keep, s=x.shape[-2:])
