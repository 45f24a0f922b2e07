"""BWCache (ICLR 2026, arXiv 2509.13789): reuse every block's output while blocks barely change.

    I_t = mean over blocks l of  mean|h_l(t) - h_l(t')| / mean|h_l(t')|       t' the computed step before t
    I_t < threshold:  the next `reuse` steps hand back h_l(t),  then one step is computed and I measured again

Changes of block outputs form a U over the denoising: its flat middle is reused. The indicator needs computed outputs,
so the decision lags a step behind.

Site: every block.
Signal: block outputs of the last two computed steps; depends on the content.
Memory: 1 hidden tensor per block and guidance branch, which the indicator needs.
Changed: the length of a run of reuse was not seen and is a parameter; the indicator is taken per latent slot over the
updating ones, the largest decides, and both guidance branches decide together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from baselines.cadence import Cadence, own_steps, within
from baselines.memory import Memory
from engine.discrepancy import relative_l1
from engine.knob import Knob
from engine.method import Decision, Method, Mode, Probe, Row, Site


@dataclass
class BWCache(Method):
    threshold: float  # on the indicator; raising it: reuse begins earlier and ends later; faster, and drifts more
    reuse: int = 3  # steps of reuse after a calm computed one; raising it: faster, and drifts more
    warmup: int = 2  # first steps of a slot that are always computed; raising it: slower, safer start
    cooldown: int = 1  # last steps of a slot that are always computed; raising it: slower, sharper

    knobs = (Knob("threshold", 1e-4, 10.0), Knob("reuse", 0, 12, whole=True))

    def __post_init__(self) -> None:
        for name in ("threshold", "reuse", "warmup", "cooldown"):
            within(name, getattr(self, name), 0, float("inf"))
        self.reset()

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"blocks"})

    def reset(self) -> None:
        self.cadence, self.output = Cadence(), Memory()
        self.moved: dict[int, list[Tensor]] = {}  # per slot, what each block of its last computed step moved by
        self.row = -1

    def decide(self, part: Row, probe: Probe, branch: str = "") -> Decision:
        if not self.output.knows(part) or not all(self.moved.get(slot) for slot in part.updating):
            return Decision(Mode.RECOMPUTE, why="no history")
        score = float(torch.stack([torch.stack(self.moved[slot]).mean() for slot in part.updating]).max())
        done, left = own_steps(part)
        if done < self.warmup:
            return Decision(Mode.RECOMPUTE, score, "warm-up")
        if left <= self.cooldown:
            return Decision(Mode.RECOMPUTE, score, "cool-down")
        if self.cadence.waited(part) >= self.reuse:
            return Decision(Mode.RECOMPUTE, score, "reuse is over")
        if score < self.threshold:
            return Decision(Mode.CACHE, score)
        return Decision(Mode.RECOMPUTE, score, "score")

    def settle(self, part: Row, decision: Decision, branch: str = "") -> None:
        self.cadence.settle(part, decision)

    def sites(self, depth: int, row: Row) -> Sequence[Site]:
        return tuple(Site("blocks", range(i, i + 1)) for i in range(depth))

    def keep(self, site: Site, part: Row, x: Tensor, out: Tensor) -> None:
        if part.iteration != self.row:
            self.row, self.moved = part.iteration, {}
        if site in self.output.at and "+" not in site.branch:
            known = [i for i, s in enumerate(part.slots) if self.output.at[site].count(s) and s in part.updating]
            slots = [part.slots[i] for i in known]
            if slots:
                changes = relative_l1(out[known], self.output.at[site].last(slots), 0.0)
                for slot, change in zip(slots, changes, strict=True):
                    self.moved.setdefault(slot, []).append(change)
        self.output.push(site, part, out)

    def fill(self, site: Site, part: Row, mode: Mode, x: Tensor) -> Tensor:
        return self.output.last(site, part)

    def state(self) -> Iterable[Tensor]:
        return self.output.tensors()
