"""BWCache (ICLR 2026, arXiv 2509.13789): after blocks change little, reuse in a fixed pattern until near the end.

    I_k = mean over blocks l of  mean|h_l(k) - h_l(k-1)| / mean|h_l(k-1)|           h_l: the input of block l
    first I_k < threshold:  from step k + 1 on  R steps reuse, one is computed, R reuse, ...;  I is not measured again
    last k / 2 steps:       computed                                                R = `reuse` * steps
    a reused step:          x_out = x_in + (x_out - x_in of the last computed step), over the whole block stack

The changes of block features are large at the start and the end of the denoising and small in between, where the method
reuses. Published thresholds are 0.15, 0.20 and 0.25 for slow, middle and fast, with R = 10 % of the steps.

Site: every block, for its input; the whole stack is reused.
Signal: block inputs of the last two computed steps, until the trigger; depends on the content.
Memory: 1 hidden tensor per block for the indicator and 1 for the residual, per guidance branch.
Released: no code was found; the rule as described; shown by
tests/test_probing_methods.py::test_bwcache_triggers_once_and_then_repeats_a_fixed_pattern_until_the_last_half_k_steps.
Changed: no code was found; the rule is from notes about the paper. The paper compares the modulated attention input of
each block; here the hidden state before norm and modulation is compared, since a forward computes these inside the
site. The trigger is kept per latent slot. A row is
reused if every updating slot has triggered and is before its last k / 2 steps. The pattern counts rows. There is one
decision for both guidance branches.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from baselines.shared.cadence import Cadence, asks, own_steps, within
from baselines.shared.site_memory import Memory
from engine.discrepancy import relative_l1
from engine.knob import Knob
from engine.method import Method, Probe
from engine.row import Decision, Mode, Row, Site
from engine.to_device import picked

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class BWCache(Method):
    """Measures the blocks until they change little, then reuses the whole stack in a fixed pattern."""

    threshold: float  # limit of the indicator; raising it: reuse starts earlier and ends later; faster, larger errors
    reuse: float = 0.1  # number of consecutive reused steps, as a share of all; raising it: faster, larger errors
    warmup: int = 0  # first steps of a slot that are always computed; raising it: slower, smaller errors
    cooldown: int = 0  # last steps of a slot that are always computed, if more than k / 2; raising it: slower, sharper

    least_steps = 3
    knobs = (Knob("threshold", 1e-4, 10.0), Knob("reuse", 0.1, 0.9))

    def __post_init__(self) -> None:
        for name in ("threshold", "warmup", "cooldown"):
            within(name, getattr(self, name), 0, float("inf"))
        within("reuse", self.reuse, 0, 1)
        self.reset()

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"blocks"})

    def reset(self) -> None:
        self.cadence, self.inputs, self.residual = Cadence(), Memory(), Memory()
        self.entered: dict[str, Tensor] = {}  # input of the block stack in this row, by branch
        self.moved: dict[int, list[Tensor]] = {}  # per slot, the change of each block's input in its last computed row
        self.trigger: dict[int, int] = {}  # per slot, the step k
        self.row, self.depth = -1, 0

    def decide(self, part: Row, probe: Probe, branch: str = "") -> Decision:
        score = self._measure(part)
        done, left = own_steps(part)
        if not self.residual.knows(part):
            return Decision(Mode.RECOMPUTE, score, "no history")
        if done < self.warmup:
            return Decision(Mode.RECOMPUTE, score, "warm-up")
        if not all(slot in self.trigger for slot in part.updating):
            return Decision(Mode.RECOMPUTE, score, "score")
        ends = max((part.steps - k - self.trigger[s] / 2 <= 0 for s, k in self._own(part)), default=False)
        if ends or left <= self.cooldown:
            return Decision(Mode.RECOMPUTE, score, "cool-down")
        if self.cadence.waited(part) >= round(self.reuse * part.steps):
            return Decision(Mode.RECOMPUTE, score, "reuse is over")
        return Decision(Mode.CACHE, score)

    def _measure(self, part: Row) -> float | None:
        """The largest indicator of the slots that have not triggered. Those below the threshold trigger."""
        waiting = [(slot, k) for slot, k in self._own(part) if slot not in self.trigger and self.moved.get(slot)]
        if not waiting:
            return None
        found = torch.stack([torch.stack(self.moved[slot]).mean() for slot, _ in waiting]).tolist()
        for (slot, k), change in zip(waiting, found, strict=True):
            if k > self.warmup and not asks([change], self.threshold):
                self.trigger[slot] = k - 1
        return float(max(found))

    def _own(self, part: Row) -> list[tuple[int, int]]:
        """(slot, its step) of the updating slots."""
        return [(s, k) for s, k, on in zip(part.slots, part.step, part.active, strict=True) if on]

    def settle(self, part: Row, decision: Decision, branch: str = "") -> None:
        self.cadence.settle(part, decision)

    def sites(self, depth: int, row: Row) -> Sequence[Site]:
        self.depth = depth
        return tuple(Site("blocks", range(i, i + 1)) for i in range(depth))

    def keep(self, site: Site, part: Row, x: Tensor, out: Tensor) -> None:
        if part.iteration != self.row:
            self.row, self.moved = part.iteration, {}
        if site.span.start == 0:
            self.entered[site.branch] = x.clone()
        if site in self.inputs.at and "+" not in site.branch:
            self._compare(site, part, x)
        self.inputs.push(site, part, x)
        if site.span.stop == self.depth:
            self.residual.push(site._replace(span=range(0)), part, out - self.entered.pop(site.branch))

    def _compare(self, site: Site, part: Row, x: Tensor) -> None:
        known = [
            (i, s)
            for i, s in enumerate(part.slots)
            if self.inputs.at[site].count(s) and s in part.updating and s not in self.trigger
        ]
        if known:
            where, slots = [i for i, _ in known], [s for _, s in known]
            changes = relative_l1(picked(x, where), self.inputs.at[site].last(slots), 0.0)
            for slot, change in zip(slots, changes, strict=True):
                self.moved.setdefault(slot, []).append(change)

    def fill(self, site: Site, part: Row, mode: Mode, x: Tensor) -> Tensor:
        return x + self.residual.last(site._replace(span=range(0)), part) if site.span.start == 0 else x

    def state(self) -> Iterable[Tensor]:
        return (*self.inputs.tensors(), *self.residual.tensors())
