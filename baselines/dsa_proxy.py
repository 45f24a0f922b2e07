"""DSA-proxy: a training-free substitute for DSA (arXiv 2606.04432), which gives each AR unit the steps that it needs.

    x0_k = x_k + (s_clean - s_k) v_k                            the clean estimate at step k
    doubt_k = mean|x0_k - x0_{k-1}| / mean|x0_{k-1}|            1 - confidence
    doubt_k < threshold, after `least` of the steps:  the slot is done; its velocity stays v_k to the end

With a constant velocity an Euler sampler ends at x0_k, so a slot that is done needs no further forward. A row is
skipped if all its updating slots are done. DSA itself trains a confidence head together with a few-step generator; its
code is not public, and this is not DSA. With `head: PATH`, a small head estimates doubt as the distance to the final
clean estimate. The head is fitted offline on runs of the frozen model.

On SkyReels-V2 the units of a row attend to each other. A row is skipped only if its least denoised unit is done too, so
few rows are skipped. The method suits models whose chunks decide separately (`decide_per: unit`).

Site: velocity.
Signal: the change of the clean estimate, or a head on its pooled features; depends on the content.
Memory: 2 latents (a velocity, a clean estimate).
Changed: only the abstract was available; the confidence, early exit on a fixed schedule and the head are ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from baselines.shared.cadence import asks, one_of, within
from baselines.shared.confidence_head import features, read_head
from engine.discrepancy import relative_l1
from engine.history import History, column
from engine.knob import Knob
from engine.method import Method, Probe
from engine.row import VELOCITY, Decision, Mode, Row, Site
from engine.to_device import picked, sent
from engine.weights import digest

if TYPE_CHECKING:
    from torch import Tensor

NONE = "none"


@dataclass
class DSAProxy(Method):
    """Stops computing a slot once its clean estimate changes little, and keeps its velocity."""

    least_steps = 3
    knobs = (Knob("threshold", 1e-4, 10.0), Knob("least", 1.0, 0.02))

    threshold: float  # doubt below which a slot is done; raising it: fewer steps, larger errors
    least: float = 0.2  # share of the steps that every slot gets; raising it: slower, smaller errors
    most: float = 1.0  # share of the steps after which a slot is done in any case; lowering it: faster, larger errors
    head: str = "none"  # "none": doubt as above; or a file of benchmarks.fit_dsa_head, which then computes doubt
    decide_per: str = "row"  # "row"; "unit": a decision per chunk, if the backbone can forward a part of a row

    def __post_init__(self) -> None:
        within("threshold", self.threshold, 0, float("inf"))
        within("least", self.least, 0, 1)
        within("most", self.most, self.least, 1)
        one_of("decide_per", self.decide_per, "row", "unit")
        self.judge = None if self.head == NONE else read_head(Path(self.head))
        if self.judge:
            self.head = f"head {digest([Path(self.head)])}"  # the record's key has the content, not the path
        self.reset()

    @property
    def grain(self) -> str:
        return self.decide_per

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"partial"} if self.decide_per == "unit" else ())

    def reset(self) -> None:
        self.velocity, self.clean = History(1), History(1)
        self.doubt: dict[int, Tensor] = {}  # doubt of each slot at its last computed step, on the device
        self.done: set[int] = set()

    def decide(self, part: Row, probe: Probe, branch: str = "") -> Decision:
        slots = part.updating
        if any(slot not in self.doubt for slot in slots):
            return Decision(Mode.RECOMPUTE, why="no history")
        doubts = torch.stack([self.doubt[slot] for slot in slots]).tolist()
        for slot, doubt in zip(slots, doubts, strict=True):
            steps = part.step[slot - part.slots.start]
            sure = steps >= self.least * part.steps and not asks([doubt], self.threshold)
            if sure or (self.most < 1 and steps >= self.most * part.steps):
                self.done.add(slot)
        if self.done.issuperset(slots):
            return Decision(Mode.CACHE, max(doubts))
        return Decision(Mode.RECOMPUTE, max(doubts), "doubt")

    def sites(self, depth: int, row: Row) -> Sequence[Site]:
        return (VELOCITY,)

    def keep(self, site: Site, part: Row, x: Tensor, out: Tensor) -> None:
        slots, cut = part.updating, _active(part)
        v, levels = out[cut], part.sigma[cut]
        end = 0.0 if part.sigma_next[cut][0] < levels[0] else 1.0  # noise level of a clean slot
        clean = x[cut] + column([end - level for level in levels], x) * v
        known = [i for i, slot in enumerate(slots) if self.clean.count(slot)]
        if known:
            before, now = self.clean.last([slots[i] for i in known]), picked(clean, known)
            share = sent([part.step[cut][i] / part.steps for i in known], x.device)
            for i, doubt in zip(known, self._judged(share, before, now, picked(v, known)), strict=True):
                self.doubt[slots[i]] = doubt
        self.clean.push(slots, levels, clean, part.settled)
        self.velocity.push(slots, levels, v, part.settled)

    def _judged(self, share: Tensor, before: Tensor, now: Tensor, velocity: Tensor) -> Tensor:
        if self.judge is None:
            return relative_l1(now, before, 1e-12)
        self.judge = self.judge.to(now.device)
        return self.judge(features(share, before, now, velocity))

    def fill(self, site: Site, part: Row, mode: Mode, x: Tensor) -> Tensor:
        out = torch.zeros_like(x)  # idle frames are not stepped, so their velocity is never read
        out[_active(part)] = self.velocity.last(part.updating)
        return out

    def state(self) -> Iterable[Tensor]:
        return (*self.velocity.tensors(), *self.clean.tensors(), *self.doubt.values())


def _active(part: Row) -> slice:
    """The position of the updating slots, which are contiguous, in the part's tensors."""
    return slice(part.updating[0] - part.slots.start, part.updating[-1] + 1 - part.slots.start)
