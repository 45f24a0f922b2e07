"""DiCache (arXiv 2508.17356): the first blocks probe the change, and two past residuals are combined by the probe.

    A += mean|y - y'| / mean|y'|            y: output of the first `probe` blocks, which always run; y': a step before
    A < threshold:  x_out = x_in + R2 + g (R1 - R2)             R1, R2: residuals of the stack, last two computed steps
                    g = mean|p - P2| / mean|P1 - P2|, clipped to [1, 2]        p, P1, P2: residuals of the probe alone
    otherwise:      the other blocks run on y, and A = 0

The line through R2 and R1 goes as far as the probe has gone between the same two steps. After only one computed step,
R1 is reused. The first `retention` of the steps are computed. Every guidance branch decides for itself.

Site: blocks probe .. depth.
Signal: the output of the first blocks; depends on the content and costs probe / depth of a forward.
Memory: 5 hidden tensors per guidance branch.
Released: the equations, yes; shown by tests/test_dicache.py::test_a_run_by_hand.
Changed: A and g are kept per latent slot. `pool: row` adds one mean over the updating slots to A of each; `pool: slot`
adds each slot's own change. The largest A of the updating slots decides. Where the probe did not move (P1 = P2), g is
1; the release divides by zero. Warm-up and cool-down count a slot's own steps. The threshold is estimated.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from baselines.shared.cadence import asks, one_of, own_steps, within
from baselines.shared.first_blocks import FirstBlocks
from engine.history import History
from engine.knob import Knob
from engine.method import Probe
from engine.row import Decision, Mode, Row, Site
from engine.to_device import index, picked

if TYPE_CHECKING:
    from torch import Tensor

MOST = 2.0  # the upper end of g


@dataclass
class DiCache(FirstBlocks):
    """Measures how far the output of the first blocks moves, and extrapolates the residual of the others by it."""

    threshold: float  # limit of A; raising it: more steps reuse; faster, larger errors
    probe: int = 1  # first blocks, which always run; raising it: a more exact decision, slower
    retention: float = 0.2  # share of the steps, from the first on, that are computed; raising it: slower, safer
    cooldown: int = 0  # last steps of a slot that are always full; raising it: slower, sharper
    pool: str = "row"  # "row": one mean over the updating slots; "slot": each slot's own change
    decide_per: str = "row"  # "row"; "unit": a decision per chunk, if the backbone can forward a part of a row

    least_steps = 2
    knobs = (Knob("threshold", 1e-4, 10.0), Knob("retention", 1.0, 0.01))

    def __post_init__(self) -> None:
        within("threshold", self.threshold, 0, float("inf"))
        within("probe", self.probe, 1, float("inf"))
        within("retention", self.retention, 0, 1)
        within("cooldown", self.cooldown, 0, float("inf"))
        one_of("pool", self.pool, "row", "slot")
        one_of("decide_per", self.decide_per, "row", "unit")
        self.reset()

    @property
    def always(self) -> dict[str, int]:
        return {"probe": self.probe}

    def reset(self) -> None:
        self.outputs: dict[str, History] = {}  # y', by branch
        self.probes: dict[str, LastTwo] = {}  # P1, P2
        self.stacks: dict[str, LastTwo] = {}  # R1, R2
        self.fresh: dict[tuple[str, int], Tensor] = {}  # p in this row, by branch and part
        self.change: dict[tuple[str, int], dict[int, Tensor]] = {}  # per slot that has a y', by branch and part
        self.sum: dict[tuple[str, int], float] = {}  # A, by branch and slot

    def decide(self, part: Row, probe: Probe, branch: str = "") -> Decision:
        done, left = own_steps(part)
        if branch not in self.stacks or not self.stacks[branch].knows(part.slots):
            return Decision(Mode.RECOMPUTE, why="no history")
        if done < int(self.retention * part.steps + 0.5):
            return Decision(Mode.RECOMPUTE, why="warm-up")
        if left <= self.cooldown:
            return Decision(Mode.RECOMPUTE, why="cool-down")
        return Decision(Mode.CACHE, why="probe")

    def revise(self, site: Site, part: Row, decision: Decision) -> Decision:
        if site.span.start == 0:
            return Decision(Mode.RECOMPUTE)
        moved = self.change[site.branch, part.slots.start]
        changes = torch.stack([moved[slot] for slot in part.updating])  # (slots, 2): of the difference, of y'
        pooled = changes.sum(0, keepdim=True).expand_as(changes) if self.pool == "row" else changes
        for slot, (now, size) in zip(part.updating, pooled.tolist(), strict=True):
            self.sum[site.branch, slot] = self.sum.get((site.branch, slot), 0.0) + (now / size if size else math.nan)
        sums = [self.sum[site.branch, slot] for slot in part.updating]
        why = asks(sums, self.threshold)
        return Decision(Mode.RECOMPUTE if why else Mode.CACHE, max(sums), why)

    def keep(self, site: Site, part: Row, x: Tensor, out: Tensor) -> None:
        key = site.branch, part.slots.start
        if site.span.start == 0:
            self.fresh[key] = out - x
            self._watch(site.branch, part, out)
            return
        probe, slots = self.fresh.pop(key), list(part.slots)
        self.stacks.setdefault(site.branch, LastTwo()).push(slots, out - x + probe, part.settled)
        self.probes.setdefault(site.branch, LastTwo()).push(slots, probe, part.settled)
        self.sum.update({(site.branch, slot): 0.0 for slot in slots})

    def _watch(self, branch: str, part: Row, out: Tensor) -> None:
        """Measure the change of the probe's output since the last row, and store the output."""
        before, slots = self.outputs.setdefault(branch, History(1, None)), list(part.slots)
        known = [i for i, slot in enumerate(slots) if before.count(slot)]
        moved: dict[int, Tensor] = {}
        self.change[branch, part.slots.start] = moved
        if known:
            was = before.last([slots[i] for i in known]).flatten(1).float()
            now = picked(out, known).flatten(1).float()
            sizes = torch.stack([(now - was).abs().mean(1), was.abs().mean(1)], 1)
            moved.update(zip((slots[i] for i in known), sizes, strict=True))
        before.push(slots, [0.0] * len(slots), out, part.settled)

    def fill(self, site: Site, part: Row, mode: Mode, x: Tensor) -> Tensor:
        probe, slots = self.fresh.pop((site.branch, part.slots.start)), list(part.slots)
        reach = gain(probe, *self.probes[site.branch].of(slots))
        newer, older = self.stacks[site.branch].of(slots)
        return x - probe + older + reach.to(x.dtype).view(-1, 1, 1) * (newer - older)

    def state(self) -> Iterable[Tensor]:
        pairs = [history for two in (*self.probes.values(), *self.stacks.values()) for history in two.histories]
        return [tensor for history in (*self.outputs.values(), *pairs) for tensor in history.tensors()]


class LastTwo:
    """The last two values of every slot. A slot with one value has it twice."""

    def __init__(self) -> None:
        self.histories = History(1, None), History(1, None)  # newest, the one before

    def push(self, slots: list[int], value: Tensor, settled: int) -> None:
        """Store `value` (len(slots), ...). Slots before `settled` will not be read again."""
        newer, older = self.histories
        before, known = value.clone(), [i for i, slot in enumerate(slots) if newer.count(slot)]
        if known:
            before[index(known, before.device)] = newer.last([slots[i] for i in known])
        older.push(slots, [0.0] * len(slots), before, settled)
        newer.push(slots, [0.0] * len(slots), value, settled)

    def knows(self, slots: Sequence[int]) -> bool:
        """Whether every slot has a value."""
        return all(self.histories[0].count(slot) for slot in slots)

    def of(self, slots: list[int]) -> tuple[Tensor, Tensor]:
        """The newest values and those before, each (len(slots), ...). Do not write to them."""
        newer, older = self.histories
        return newer.last(slots), older.last(slots)


def gain(probe: Tensor, newer: Tensor, older: Tensor) -> Tensor:
    """g of every slot, (slots,), from the probe's present residual and its last two."""
    gone, step = ((a - older).abs().flatten(1).float().mean(1) for a in (probe, newer))
    return torch.where(step > 0, gone / step, 1.0).clamp(1.0, MOST)
