"""First-block cache (ParaAttention, diffusers) and DBCache (cache-dit): the first blocks decide about the others.

    R = x_out - x_in                         of the first `front` blocks, which always run
    change = mean|R - R'| / mean|R'|         R' at the last full step
    change <= threshold:  x <- x + T         T: the residual of blocks front .. depth - back at the last full step
    otherwise:            run them, update R' and T

The last `back` blocks always run too. front 1, back 0 is the first-block cache. The defaults of cache-dit's DBCache are
front 8, back 0, threshold 0.08, warm-up 8. Every guidance branch decides for itself, as in both libraries.

Site: blocks front .. depth - back.
Signal: the first blocks' residual; depends on the content and costs front / depth of a forward.
Memory: 2 hidden tensors per guidance branch.
Released: yes, as diffusers' hook; shown by tests/test_probing_methods.py::test_first_block_cache_is_diffusers_hook.
Changed: with `pool: slot` the change is measured per latent slot and the largest decides. The libraries take one mean
over the window, idle frames included. Warm-up and cool-down count a slot's own steps. A change that is
no number (0 / 0) computes; diffusers' hook reuses.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from baselines.shared.cadence import one_of, own_steps, within
from baselines.shared.first_blocks import FirstBlocks
from baselines.shared.site_memory import Memory
from engine.discrepancy import relative_l1
from engine.knob import Knob
from engine.method import Probe
from engine.row import Decision, Mode, Row, Site

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class FirstBlockCache(FirstBlocks):
    """Measures how much the residual of the first blocks changes, and reuses the residual of the others."""

    threshold: float  # raising it: more steps reuse; faster, larger errors
    front: int = 1  # first blocks, which always run and decide (Fn); raising it: a more exact decision, slower
    back: int = 0  # last blocks, which always run (Bn); raising it: slower, smaller errors
    warmup: int = 0  # first steps of a slot that are always full; raising it: slower, smaller errors
    cooldown: int = 0  # last steps of a slot that are always full; raising it: slower, sharper
    max_skip: int = 1000  # largest number of steps without a full forward; raising it: faster, larger errors
    pool: str = "row"  # "row": one mean over the window, as released; "slot": the largest change of an updating slot
    decide_per: str = "row"  # "row"; "unit": a decision per chunk, if the backbone can forward a part of a row

    least_steps = 2
    knobs = (Knob("threshold", 1e-4, 10.0), Knob("warmup", 20, 0, whole=True))

    def __post_init__(self) -> None:
        within("threshold", self.threshold, 0, float("inf"))
        within("front", self.front, 1, float("inf"))
        for name in ("back", "warmup", "cooldown", "max_skip"):
            within(name, getattr(self, name), 0, float("inf"))
        one_of("pool", self.pool, "row", "slot")
        one_of("decide_per", self.decide_per, "row", "unit")
        self.reset()

    @property
    def always(self) -> dict[str, int]:
        return {"front": self.front, "back": self.back}

    def reset(self) -> None:
        self.probe, self.tail = Memory(), Memory()
        self.fresh: dict[tuple[str, int], tuple[Site, Tensor]] = {}  # residual of the first blocks in this row
        self.verdict: dict[tuple[str, int], Decision] = {}
        self.skipped: dict[tuple[str, int], int] = {}

    def decide(self, part: Row, probe: Probe, branch: str = "") -> Decision:
        done, left = own_steps(part)
        if not self.tail.knows(part, branch=branch):
            return Decision(Mode.RECOMPUTE, why="no history")
        if done < self.warmup:
            return Decision(Mode.RECOMPUTE, why="warm-up")
        if left <= self.cooldown:
            return Decision(Mode.RECOMPUTE, why="cool-down")
        if max(self.skipped.get((branch, slot), 0) for slot in part.updating) >= self.max_skip:
            return Decision(Mode.RECOMPUTE, why="max_skip")
        return Decision(Mode.CACHE, why="probe")

    def revise(self, site: Site, part: Row, decision: Decision) -> Decision:
        if site.span.start == 0:
            return Decision(Mode.RECOMPUTE)
        key = site.branch.partition("+")[0], part.slots.start
        if "+" not in site.branch:  # a second pass of some slots uses the decision of their first
            head, now = self.fresh[key]
            score = self._change(part, now, self.probe.last(head, part))
            cached = score <= self.threshold and self.threshold > 0
            self.verdict[key] = Decision(Mode.CACHE if cached else Mode.RECOMPUTE, score, "" if cached else "score")
        if self.verdict[key].mode is Mode.CACHE:
            self.fresh.pop((site.branch, part.slots.start), None)
        return self.verdict[key]

    def _change(self, part: Row, now: Tensor, before: Tensor) -> float:
        if self.pool == "row":
            return float(relative_l1(now[None], before[None], 0.0))
        cut = slice(part.updating[0] - part.slots.start, part.updating[-1] + 1 - part.slots.start)
        return float(relative_l1(now[cut], before[cut], 0.0).max())

    def keep(self, site: Site, part: Row, x: Tensor, out: Tensor) -> None:
        key = site.branch, part.slots.start
        if site.span.start == 0:
            self.fresh[key] = site, out - x
            return
        head, residual = self.fresh.pop(key)
        self.probe.push(head, part, residual)
        self.tail.push(site, part, out - x)
        self.skipped.update({(site.branch, slot): 0 for slot in part.slots})

    def fill(self, site: Site, part: Row, mode: Mode, x: Tensor) -> Tensor:
        for slot in part.slots:
            self.skipped[site.branch, slot] = self.skipped.get((site.branch, slot), 0) + 1
        return x + self.tail.last(site, part)

    def state(self) -> Iterable[Tensor]:
        return (*self.probe.tensors(), *self.tail.tensors())
