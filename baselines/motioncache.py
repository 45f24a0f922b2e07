"""MotionCache (arXiv 2605.01725): every token accumulates a change weighted by its motion, and computes when it is due.

    A[i, p] += W[i, p] f(r)       for each token p of each frame i of a unit, at each step
    r = mean|m - m'| / mean|m'|   m: the time projection of the unit, m': a step before; f: the polynomial of Wan
    W = floor + (1 - floor) minmax_p(D[i, p]),   D[i, p] = mean|y[i, p] - y[i-1, p]| / mean|y[i-1, p]|      after
    W = 1                         until `uniform` steps of the unit were computed after the warm-up
    p is due  if  A[i, p] >= threshold for more than half of the frames i
    no p due, or a share below `least`:  x_out = x_in + R                            R: residual of the block stack
    otherwise:  the p that are due run through the blocks, for all frames; their R is renewed and their A = 0

y is the output of the block stack, x_in + R where nothing was computed. The frame before the first one of a unit is the
last one of the unit before. The tokens that run attend to the stored keys and values of the others, from the last
computation of each. The release also changes the model (`function: released`): a unit then attends to itself and
earlier units only, and a forward covers the units that a row updates. `function: stock` with `prune: false` does not
change the model. Every guidance branch decides for itself, since its y is its own.

Site: the whole block stack, for some of the tokens.
Signal: the time projection, the same for every prompt; the weights depend on the content.
Memory: 1 hidden tensor and 2 numbers per token for each guidance branch, 1 frame of a hidden tensor per unit and
branch, the last signal, and the keys and values of every slot, block and branch.
Released: the rule on SkyReels-V2, yes; shown by
tests/test_motioncache.py::test_a_run_by_hand.
Changed: where a unit has no unit before it, its first frame has the weights of the second, as in the release for the
first group; in a continued segment the release gives it equal weights. Units of a row share one forward, which gives
the same numbers as separate forwards; the frame before a computed unit is one row old if that frame's unit reuses. A
threshold of 0 computes all. `cooldown` is ours. The setting for MAGI-1 (no polynomial, 20 steps with a decision per
chunk) is not included, since that backbone does not forward single tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import TYPE_CHECKING, Any

import torch

from baselines.flowcache import pruned
from baselines.shared.cadence import one_of, own_steps, within
from baselines.shared.model_settings import by_name
from baselines.shared.site_memory import Memory
from baselines.teacache import COEFFICIENTS
from engine.discrepancy import relative_l1
from engine.history import History
from engine.knob import Knob
from engine.method import Method, Probe
from engine.row import Decision, Mode, Row, Site
from engine.to_device import sent

if TYPE_CHECKING:
    from torch import Tensor

SIGNAL = "time_projection"
HALF = 0.5  # the share of a unit's frames beyond which a position is due
TINY = 1e-8  # added to divisors, as released


@dataclass
class MotionCache(Method):
    """Decides for every token position of a unit, and forwards the tokens that are due."""

    threshold: float  # limit of A; raising it: tokens compute less often; faster, larger errors
    floor: float = 0.6  # weight of the token that moves least; raising it: slower, weights more equal
    least: float = 0.4  # smallest share of tokens that runs; raising it: fewer, larger forwards
    uniform: int = 6  # computed steps after the warm-up with equal weights; raising it: slower at the start
    fit: str = "wan_retention"  # polynomial f: wan_retention | wan | none (f(r) = r) | own (see `coefficients`)
    coefficients: list[float] = field(default_factory=list)  # of fit: own, highest power first
    warmup: int = 5  # first steps of a unit that are computed (released: 4 and the next one); raising it: slower, safer
    cooldown: int = 0  # last steps of a unit that are computed; raising it: slower, sharper
    function: str = "released"  # "released": the model is changed as in the release; "stock": it is not
    prune: bool = True  # True: forward only units that this row updates; False: waiting and finished ones as well

    least_steps = 2
    knobs = (Knob("threshold", 1e-4, 10.0), Knob("warmup", 12, 1, whole=True))

    def __post_init__(self) -> None:
        for name in ("threshold", "uniform", "cooldown"):
            within(name, getattr(self, name), 0, math.inf)
        within("warmup", self.warmup, 1, math.inf)
        within("floor", self.floor, 0, 1)
        within("least", self.least, 0, 1)
        one_of("function", self.function, "released", "stock")
        one_of("fit", self.fit, *COEFFICIENTS, "own")
        if self.fit == "own" and not self.coefficients:
            raise ValueError("fit=own needs coefficients, highest power first")
        self.reset()

    @property
    def grain(self) -> str:
        return "unit"

    @property
    def branchwise(self) -> bool:
        return True

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"blocks", "partial", "tokens", SIGNAL})

    def reschedule(self, settings: Any) -> Any:
        causal = self.function == "released" and "attention" in by_name(settings)
        return replace(settings, attention="block_causal") if causal else settings

    def narrow(self, row: Row) -> Row:
        return pruned(row) if self.prune else row

    def reset(self) -> None:
        self.signal = History(1, None)
        self.measured: dict[int, tuple[int, Tensor | float]] = {}  # by unit: iteration and f(r)
        self.residual = Memory()
        self.sum: dict[tuple[str, int], Tensor] = {}  # A (slots, tokens), by branch and the unit's first slot
        self.weight: dict[tuple[str, int], Tensor] = {}  # W
        self.frame: dict[tuple[str, int], Tensor] = {}  # the last frame of y (tokens, width)
        self.updates: dict[tuple[str, int], int] = {}  # computed steps after the warm-up

    def decide(self, part: Row, probe: Probe, branch: str = "") -> Decision:
        key, (done, left) = (branch, part.slots.start), own_steps(part)
        change = self._change(part, probe)
        if not self.residual.knows(part, branch=branch):
            return Decision(Mode.RECOMPUTE, why="no history")
        if done < self.warmup:
            return Decision(Mode.RECOMPUTE, why="warm-up")
        if left <= self.cooldown:
            return Decision(Mode.RECOMPUTE, why="cool-down")
        self.sum[key] += change * self.weight.get(key, 1.0)
        return self._due(self.sum[key])

    def _change(self, part: Row, probe: Probe) -> Tensor | float:
        """f(r) of the unit, on the device, which all guidance branches share; 0 at its first step."""
        first = part.slots.start
        if self.measured.get(first, (-1, 0.0))[0] != part.iteration:
            slots, now = list(part.slots), probe(SIGNAL)
            change: Tensor | float = 0.0
            if all(self.signal.count(slot) for slot in slots):
                r = relative_l1(now.flatten()[None], self.signal.last(slots).flatten()[None], TINY)
                fit = self.coefficients if self.fit == "own" else COEFFICIENTS[self.fit]
                change = reduce(lambda total, c: total * r + c, fit, torch.zeros_like(r))
            self.signal.push(slots, [0.0] * len(slots), now, part.settled)
            self.measured[first] = part.iteration, change
        return self.measured[first][1]

    def _due(self, total: Tensor) -> Decision:
        votes = (total >= self.threshold).float().mean(0) > HALF
        *due, most, least = torch.cat([votes.float(), total.max()[None], total.min()[None]]).tolist()
        if not (math.isfinite(most) and math.isfinite(least)):
            return Decision(Mode.RECOMPUTE, None, "signal not finite")
        tokens = tuple(p for p, on in enumerate(due) if on)
        if self.threshold == 0 or len(tokens) == len(due):
            return Decision(Mode.RECOMPUTE, most, "score")
        if not tokens or len(tokens) < self.least * len(due):
            return Decision(Mode.CACHE, most)
        return Decision(Mode.RECOMPUTE, most, "tokens", tokens)

    def settle(self, part: Row, decision: Decision, branch: str = "") -> None:
        key = branch, part.slots.start
        if decision.mode is not Mode.RECOMPUTE:
            return
        if own_steps(part)[0] >= self.warmup:
            self.updates[key] = self.updates.get(key, 0) + 1
        if key in self.sum:
            where = sent(list(decision.tokens), self.sum[key].device) if decision.tokens else slice(None)
            self.sum[key][:, where] = 0.0

    def sites(self, depth: int, row: Row) -> Sequence[Site]:
        return (Site("blocks", range(depth)),)

    def keep(self, site: Site, part: Row, x: Tensor, out: Tensor) -> None:
        key, fresh = (site.branch, part.slots.start), out - x
        if part.tokens:
            where = sent(list(part.tokens), x.device)
            fresh = self.residual.last(site, part).index_copy(1, where, fresh[:, where])
        if key not in self.sum:
            self.sum[key] = torch.zeros(x.shape[:2], device=x.device)
        self.residual.push(site, part, fresh)
        self._weigh(key, part, x + fresh)

    def fill(self, site: Site, part: Row, mode: Mode, x: Tensor) -> Tensor:
        out = x + self.residual.last(site, part)
        if not part.tokens:  # else `keep` has seen this row
            self._weigh((site.branch, part.slots.start), part, out)
        return out

    def _weigh(self, key: tuple[str, int], part: Row, y: Tensor) -> None:
        """Renew the weights of a unit from the output `y` of its block stack, once it has had its equal ones."""
        past_warmup = own_steps(part)[0] >= self.warmup - 1  # the last step of the warm-up gives the first weights
        if past_warmup and self.updates.get(key, 0) >= self.uniform:
            before = self.frame.get((key[0], key[1] - part.unit))
            self.weight[key] = weights(y, before, self.floor)
            self.frame[key] = y[-1].clone()

    def state(self) -> Iterable[Tensor]:
        kept = (*self.sum.values(), *self.weight.values(), *self.frame.values())
        return (*kept, *self.residual.tensors(), *self.signal.tensors())


def weights(y: Tensor, before: Tensor | None, floor: float) -> Tensor:
    """W (frames, tokens) from outputs `y` (frames, tokens, width) and the frame before them (tokens, width), if any.

    Without one, the first frame has the second one's weights. Where all tokens move alike, W is `floor`.
    """
    frames = y if before is None else torch.cat([before[None], y])
    if len(frames) < 2:
        return torch.full(y.shape[:2], floor, device=y.device)
    pairs = relative_l1(frames[1:].flatten(0, 1), frames[:-1].flatten(0, 1), TINY).view(len(frames) - 1, -1)
    motion = torch.cat([pairs[:1], pairs]) if before is None else pairs
    low, high = motion.amin(1, keepdim=True), motion.amax(1, keepdim=True)
    return floor + (1 - floor) * (motion - low) / (high - low + TINY)
