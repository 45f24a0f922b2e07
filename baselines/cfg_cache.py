"""FasterCache's CFG cache (Lv et al., ICLR 2025, arXiv 2410.19355, Sec. 3.3): rebuild the unconditional branch.

    D = v_uncond - v_cond, split into low and high spatial frequencies        at every `interval`-th step
    v_uncond = v_cond + w_low D_low + w_high D_high                           in between, with the v_cond of now
    (w_low, w_high) = (1 + boost, 1)  while k < switch * steps,  (1, 1 + boost)  afterwards

The branches differ in low frequencies early and in high ones late, which the boost follows. From `begin` of a slot's
steps on; only the unconditional forwards are saved, so at most half of all.

Site: the velocity of each further guidance branch, before guidance.
Signal: none, a fixed interval.
Memory: 2 latents (D, and the conditional velocity of the present row).
Changed: the released code and diffusers' hook need both branches in one batch; here they are separate forwards. D is
kept per latent slot, and stages are counted in a slot's own steps (row: those of its least denoised updating slot).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from baselines.cadence import Cadence, check_interval, own_steps, within
from baselines.memory import Memory
from engine.knob import Knob
from engine.method import Decision, Method, Mode, Probe, Row, Site

if TYPE_CHECKING:
    from engine.backbone import Backbone


@dataclass
class CfgCache(Method):
    interval: int = 5  # both branches every so many steps; raising it: faster, and drifts more
    begin: float = 0.33  # of a slot's steps, where it begins; raising it: slower, safer start
    switch: float = 0.6  # of a slot's steps, from where high frequencies are boosted instead of low ones
    boost: float = 0.1  # of the boosted band; raising it: stronger guidance in that band; 0: plain reuse of D
    band: float = 0.2  # radius of the low band, of the sampling frequency; raising it: more counts as low

    knobs = (Knob("interval", 1, 10, whole=True), Knob("begin", 1.0, 0.02))

    def __post_init__(self) -> None:
        within("interval", self.interval, 1, float("inf"))
        for name in ("begin", "switch"):
            within(name, getattr(self, name), 0, 1)
        within("boost", self.boost, -1, float("inf"))
        within("band", self.band, 0, 0.75)
        self.reset()

    @property
    def branchwise(self) -> bool:
        return True

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"guidance"})

    def check(self, model: Backbone) -> None:
        super().check(model)
        check_interval(model, "interval", self.interval)
        if len(model.branches) < 2:
            raise ValueError(
                f"{model.name} runs without guidance, so there is no branch to save; set model.guidance > 1"
            )

    def reset(self) -> None:
        self.cadence, self.apart = Cadence(), Memory(dtype=torch.float32)
        self.cond: Tensor | None = None

    def decide(self, part: Row, probe: Probe, branch: str = "") -> Decision:
        if branch == "cond":
            return Decision(Mode.RECOMPUTE, why="conditional")
        if not self.apart.knows(part, branch=branch):
            return Decision(Mode.RECOMPUTE, why="no history")
        if own_steps(part)[0] < self.begin * part.steps:
            return Decision(Mode.RECOMPUTE, why="warm-up")
        if self.cadence.waited(part) + 1 >= self.interval:
            return Decision(Mode.RECOMPUTE, why="interval")
        return Decision(Mode.CACHE)

    def settle(self, part: Row, decision: Decision, branch: str = "") -> None:
        if branch != "cond":
            self.cadence.settle(part, decision)

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
        early = part.progress < self.switch * part.steps
        return self.cond + apart + self.boost * (low if early else apart - low)

    def state(self) -> Iterable[Tensor]:
        return (*self.apart.tensors(), *(() if self.cond is None else (self.cond,)))


def low_frequencies(x: Tensor, radius: float) -> Tensor:
    """The part of (..., H, W) within `radius` of frequency zero, in cycles per sample (at most 0.5 along a side)."""
    rows = torch.fft.fftfreq(x.shape[-2], device=x.device)[:, None]
    columns = torch.fft.rfftfreq(x.shape[-1], device=x.device)[None]
    keep = (rows**2 + columns**2).sqrt() <= radius
    return torch.fft.irfft2(torch.fft.rfft2(x) * keep, s=x.shape[-2:])
