"""FlowCache (ICLR 2026, arXiv 2602.10825): every chunk decides for itself whether to reuse.

    r_i = mean|m_i - m_{i-1}| / mean|m_{i-1}|      m: the signal of one chunk, at successive steps of that chunk
    A  += p(r_i);  A < threshold: reuse;  else compute the chunk and A = 0

Chunks that compute are forwarded without the others and see the keys and values that those left when they were last
computed. As released this changes the function itself (`function: released`), so that a threshold of 0 is not the
Original. On SkyReels-V2 a chunk then sees itself and earlier ones only, where the model sees all; on MAGI-1 finished
chunks are not read again cleanly, and the duplicate of the oldest chunk is left out unless `nearly_clean`. `prune`
leaves out the chunks that a row does not update: waiting ones, and finished ones, which stay as their last noisy step
left them. `function: stock` with `prune: false` leaves the model's own function alone; a threshold of 0 is then the
Original to the last bit. Compare it with an Original of either attention: the published one of SCOPE's tables is full.

What is reused is, as released, the residual of the block stack on SkyReels-V2 (`reuse: residual`), with Wan's
polynomial on the time projection; on MAGI-1 the last increment of the latent, v dt (`increment`), with none on the
patch embedding: it is not rescaled to the present step, so that growing steps fall short. `velocity` rescales it.

On MAGI-1 the keys and values held can be bounded to `capacity` chunks' worth. As a chunk is about to enter a full
memory, finished chunks give up one chunk's worth of theirs, for each head those that score lowest: importance to the
youngest chunk's last queries against redundancy among keys (baselines/shared/kv_compression.py, after R-KV).
0 keeps all.

Site: velocity, or the whole block stack.
Signal: the patch embedding on MAGI-1 depends on the content; the time projection on SkyReels-V2 does not.
Memory: 1 latent (1 hidden tensor per guidance branch with `residual`) and the last signal of every chunk; on
SkyReels-V2 also the keys and values of every slot, block and branch.
Changed: chunks that compute together are forwarded together, which gives the same numbers as one after another; one
decision for both guidance branches, whose signal is the same; keys are compressed on MAGI-1 only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from baselines.shared.cadence import asks, one_of, own_steps, within
from baselines.shared.kv_compression import score
from baselines.shared.residual_cache import QUANTITIES, Reused
from baselines.teacache import COEFFICIENTS, polynomial
from engine.discrepancy import Discrepancy
from engine.knob import Knob
from engine.method import Method, Probe
from engine.row import Decision, Mode, Row, Site

RELEASED = {"attention": "block_causal", "clean_refresh": False}  # of a model that has such a setting


@dataclass
class FlowCache(Method):
    threshold: float  # raising it: more chunk-steps reuse; faster, and drifts more
    reuse: str = "increment"  # of the latent, as released on MAGI-1 | velocity | residual of the block stack
    signal: str = "patch_embedding"  # as released on MAGI-1; on SkyReels-V2 time_projection
    fit: str = "none"  # polynomial p: none (p(r) = r) | wan_retention | wan | own (see `coefficients`)
    coefficients: list[float] = field(default_factory=list)  # of fit: own, highest power first
    warmup: int = 5  # first steps of a chunk that are always computed; raising it: slower, safer start
    cooldown: int = 0  # last steps of a chunk that are always computed; the video's last step always is
    function: str = "released"  # "stock": the model's own function
    prune: bool = True  # forward only chunks that this row updates; without it, waiting and finished ones run along
    nearly_clean: bool = False  # with `released`: keep MAGI-1's duplicate of the oldest chunk
    capacity: int = 0  # chunks' worth of keys and values held, 0 for all; raising it: more memory, less forgotten
    queries: str = "frame"  # whose looks count in compression: the youngest chunk's last token | frame | chunk
    importance: float = 0.07  # of looks against novelty in compression; raising it: keeps what is looked at

    knobs = (Knob("threshold", 1e-4, 10.0), Knob("warmup", 12, 1, whole=True))

    def __post_init__(self) -> None:
        within("threshold", self.threshold, 0, float("inf"))
        within("warmup", self.warmup, 0, float("inf"))
        within("cooldown", self.cooldown, 0, float("inf"))
        one_of("reuse", self.reuse, *QUANTITIES)
        one_of("function", self.function, "released", "stock")
        within("capacity", self.capacity, 0, float("inf"))
        within("importance", self.importance, 0, 1)
        one_of("queries", self.queries, "token", "frame", "chunk")
        one_of("fit", self.fit, *COEFFICIENTS, "own")
        if self.fit == "own" and not self.coefficients:
            raise ValueError("fit=own needs coefficients, highest power first")
        self.reset()

    @property
    def grain(self) -> str:
        return "unit"

    @property
    def requires(self) -> frozenset[str]:
        needs = {"blocks": self.reuse == "residual", "kv_capacity": self.capacity > 0}
        return frozenset({"partial", self.signal} | {name for name, needed in needs.items() if needed})

    def reschedule(self, settings: Any) -> Any:
        wanted: dict[str, Any] = {"kv_capacity": self.capacity, "kv_queries": self.queries} if self.capacity else {}
        if self.function == "released":
            wanted |= RELEASED | ({} if self.nearly_clean else {"nearly_clean": 1.0})
        return replace(settings, **{name: value for name, value in wanted.items() if hasattr(settings, name)})

    def reset(self) -> None:
        self.moved = Discrepancy()
        self.total: dict[int, float] = {}  # A, by a chunk's first slot
        self.reused = Reused(self.reuse)

    def narrow(self, row: Row) -> Row:
        """Without the chunks that wait, and with the keys that finished ones left; a prefix is computed once."""
        if not self.prune or not row.updating:
            return row
        ahead = row.updating[0] - row.slots.start
        first = row.slots.start + ahead // row.unit * row.unit
        if (first, row.reach) == (row.slots.start, row.slots.stop):
            return row
        return replace(row.only(range(row.slots.start, row.reach)).behind(first), settled=0)

    def decide(self, part: Row, probe: Probe, branch: str = "") -> Decision:
        slots, now, chunk = list(part.slots), probe(self.signal), part.slots.start
        moved = self.moved.pooled(slots, now)
        self.moved.remember(slots, now, part.settled)
        if moved is None:
            return Decision(Mode.RECOMPUTE, why="no history")
        done, left = own_steps(part)
        if done < self.warmup:
            return Decision(Mode.RECOMPUTE, why="warm-up")
        coefficients = self.coefficients if self.fit == "own" else COEFFICIENTS[self.fit]
        score = self.total[chunk] = self.total.get(chunk, 0.0) + polynomial(coefficients, moved)
        if part.last or left <= self.cooldown:
            return Decision(Mode.RECOMPUTE, score, "cool-down")
        why = asks([score], self.threshold)
        return Decision(Mode.RECOMPUTE if why else Mode.CACHE, score, why)

    def settle(self, part: Row, decision: Decision, branch: str = "") -> None:
        if decision.mode is Mode.RECOMPUTE:
            self.total[part.slots.start] = 0.0

    def sites(self, depth: int, row: Row) -> Sequence[Site]:
        return (self.reused.site(depth),)

    def keep(self, site: Site, part: Row, x: Tensor, out: Tensor) -> None:
        self.reused.keep(site, part, x, out)

    def fill(self, site: Site, part: Row, mode: Mode, x: Tensor) -> Tensor:
        return self.reused.fill(site, part, x)

    def rank(self, keys: Tensor, queries: Tensor) -> Tensor:
        return score(keys, queries, self.importance)

    def state(self) -> Iterable[Tensor]:
        return (*self.moved.tensors(), *self.reused.tensors())
