"""FlowCache (ICLR 2026, arXiv 2602.10825): every chunk decides for itself whether to reuse.

    r_i = mean|m_i - m_{i-1}| / mean|m_{i-1}|      m: the signal of one chunk, at successive steps of that chunk
    A  += p(r_i);  A < threshold: reuse;  else compute the chunk and A = 0

A forward covers only the chunks that compute. Their attention uses the stored keys and values of the other chunks, from
the last computation of each. The released code also changes the model (`function: released`), so a threshold of 0 is
not the Original. On SkyReels-V2 a chunk then attends only to itself and earlier chunks, while the model attends to all.
On MAGI-1 finished chunks are not refreshed, and the duplicate of the oldest chunk is left out unless `nearly_clean`.
`prune` leaves out the chunks that a row does not update: waiting ones, and finished ones, whose keys stay those of
their last noisy step. `function: stock` with `prune: false` does not change the model; a threshold of 0 is then the
Original, bit for bit. The Original may have either attention; in SCOPE's tables it has full attention.

The reused quantity is that of the released code. On SkyReels-V2 it is the residual of the block stack (`reuse:
residual`), with Wan's polynomial on the time projection. On MAGI-1 it is the last increment of the latent, v dt
(`increment`), with the patch embedding and no polynomial. The increment is not rescaled to the present step, so it is
too small if steps grow. `velocity` rescales it.

On MAGI-1 `capacity` limits the stored keys and values to that number of chunks; 0 keeps all. If the cache is full and a
new chunk enters, finished chunks drop as many keys as one chunk has: in each head those with the lowest score. The
score is the importance to the newest chunk's last queries minus the redundancy among keys
(baselines/shared/kv_compression.py, after R-KV).

Site: velocity, or the whole block stack.
Signal: the patch embedding on MAGI-1 depends on the content; the time projection on SkyReels-V2 does not.
Memory: 1 latent (1 hidden tensor per guidance branch with `residual`) and the last signal of every chunk; on
SkyReels-V2 also the keys and values of every slot, block and branch.
Released: decisions of a chunk on MAGI-1, yes; shown by
tests/test_releases.py::test_flowcache_decides_as_its_release_for_magi1.
Changed: chunks that compute in the same row share one forward, which gives the same numbers as separate forwards; one
decision for both guidance branches, whose signal is the same; keys are compressed on MAGI-1 only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from baselines.shared.cadence import asks, one_of, own_steps, within
from baselines.shared.kv_compression import score
from baselines.shared.model_settings import by_name
from baselines.shared.residual_cache import QUANTITIES, Reused
from baselines.teacache import COEFFICIENTS, polynomial
from engine.discrepancy import Discrepancy
from engine.knob import Knob
from engine.method import Method, Probe
from engine.row import Decision, Mode, Row, Site

if TYPE_CHECKING:
    from torch import Tensor

RELEASED = {"attention": "block_causal", "clean_refresh": False}  # applied if the model has the setting


@dataclass
class FlowCache(Method):
    """Decides for every chunk, and forwards only the chunks that compute."""

    threshold: float  # raising it: more chunk-steps reuse; faster, larger errors
    reuse: str = "increment"  # increment of the latent, as released on MAGI-1 | velocity | residual of the block stack
    signal: str = "patch_embedding"  # "patch_embedding" (released on MAGI-1), "time_projection" (on SkyReels-V2)
    fit: str = "none"  # polynomial p: none (p(r) = r) | wan_retention | wan | own (see `coefficients`)
    coefficients: list[float] = field(default_factory=list)  # of fit: own, highest power first
    warmup: int = 5  # first steps of a chunk that are always computed; raising it: slower, smaller errors at the start
    cooldown: int = 0  # last steps of a chunk that are computed, at least the video's last; raising it: slower, sharper
    function: str = "released"  # "released": the model is changed as in the release; "stock": it is not
    prune: bool = True  # True: forward only chunks that this row updates; False: waiting and finished ones as well
    nearly_clean: bool = False  # True: with `released`, keep MAGI-1's duplicate of the oldest chunk
    capacity: int = 0  # size of the key-value cache in chunks, 0 for all; raising it: more memory, fewer keys dropped
    queries: str = "frame"  # queries that rank keys in compression: the newest chunk's last token | frame | chunk
    importance: float = 0.07  # weight of importance against redundancy in compression; raising it: more importance

    least_steps = 2
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
        return replace(settings, **{name: value for name, value in wanted.items() if name in by_name(settings)})

    def reset(self) -> None:
        self.moved = Discrepancy(eps=0.0)
        self.total: dict[int, float] = {}  # A of each chunk, by its first slot
        self.reused = Reused(self.reuse)

    def narrow(self, row: Row) -> Row:
        return pruned(row) if self.prune else row

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


def pruned(row: Row) -> Row:
    """The row without waiting and finished units; attention uses the stored keys of finished ones."""
    if not row.updating:
        return row
    ahead = row.updating[0] - row.slots.start
    first = row.slots.start + ahead // row.unit * row.unit
    if (first, row.reach) == (row.slots.start, row.slots.stop):
        return row
    return replace(row.only(range(row.slots.start, row.reach)).behind(first), settled=0)
