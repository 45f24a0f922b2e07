"""TeaCache (Liu et al., CVPR 2025): reuse the block stack's residual while its estimated change stays small.

    r_i = mean|m_i - m_{i-1}| / mean|m_{i-1}|      m: the timestep-modulated input
    A  += p(r_i)                                   p: a polynomial fitted on a model's own input and output changes
    A < threshold:  x_out = x_in + R               R = x_out - x_in of the last full step
    else:           run the blocks, refresh R, A = 0

The head always runs. On SkyReels-V2 the released code (`pool: row`) computes r over all frames of the interval, idle
ones included, and uses Wan's coefficients unchanged. On an asynchronous schedule the frames that do not change make
this mean smaller, and the maintainers call the combination unsupported. `pool: slot` is our version: an accumulator per
latent slot, and warm-up and cool-down by a slot's own steps. It computes the row if any active slot requires it. Both
sets of Wan's coefficients give negative values in a part of their range, so A may fall; `nonnegative` prevents this.
The released counter counts the calls of both guidance branches but restarts at the number of rows. So the warm-up
happens a second time in the middle of a segment, and the cool-down is never reached (`counter: calls`). `counter: rows`
corrects this.

On MAGI-1 the released port computes r over all chunks in flight and adds the latent's last increment (`reuse:
increment`, not rescaled to the present step; `velocity` is rescaled). The operating points on MAGI-1 do the same. The
port's other changes are defects that we do not copy: chunks miss a step when a new chunk enters, it crashes if the last
step of a stage was reused, and it reads keys of the first chunk that were never written.

Site: the whole block stack, or the velocity.
Signal: the time projection or embedding, the same for every prompt; a patch embedding depends on the content.
Memory: 1 hidden tensor per guidance branch (1 latent with `velocity` and `increment`).
Released: decisions, yes, also of negative scores; shown by
tests/test_releases.py::test_teacache_decides_as_its_release.
Changed: by default the counters do not restart within a segment, unlike the released ones; `pool: slot` is ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from baselines.shared.cadence import asks
from baselines.shared.residual_cache import QUANTITIES, Reused
from engine.discrepancy import Discrepancy
from engine.knob import Knob
from engine.method import Capabilities, Method, Probe
from engine.row import Decision, Mode, Row, Site

if TYPE_CHECKING:
    from torch import Tensor

COEFFICIENTS = {  # of Wan 2.1 T2V 1.3B, which SkyReels-V2 uses for its own model of that size; highest power first
    "wan_retention": [-5.21862437e4, 9.23041404e3, -5.28275948e2, 1.36987616e1, -4.99875664e-2],
    "wan": [2.39676752e3, -1.31110545e3, 2.01331979e2, -8.29855975, 1.37887774e-1],
    "none": [1.0, 0.0],
}


@dataclass
class TeaCache(Method):
    """Reuses the residual, velocity or increment while the accumulated estimate is below the threshold."""

    threshold: float  # raising it: more rows reuse; faster, larger errors
    fit: str = "wan_retention"  # polynomial: wan_retention | wan | none (p(r) = r) | own (see `coefficients`)
    coefficients: list[float] = field(default_factory=list)  # of fit: own, highest power first
    signal: str = "time_projection"  # wan_retention is fitted on "time_projection", wan on "time_embedding"
    warmup: int = 5  # first steps that are always computed (5 with retention, 1 without); raising it: slower, safer
    cooldown: int = 0  # last steps that are always computed (0 with retention, 1 without); raising it: slower, sharper
    pool: str = "row"  # "row": one accumulator over all frames, as released; "slot": one per latent slot
    per_branch: bool = False  # True: an accumulator per guidance branch, as released; same decisions, twice the state
    nonnegative: bool = False  # True: p below 0 counts as 0
    reuse: str = "residual"  # of the block stack, as released on SkyReels-V2 | velocity | increment, as on MAGI-1
    counter: str = "rows"  # "calls", as released: counts all branches, restarts at the number of rows; needs per_branch

    least_steps = 2
    knobs = (Knob("threshold", 1e-4, 10.0), Knob("warmup", 12, 1, whole=True))

    def __post_init__(self) -> None:
        if not self.threshold >= 0:
            raise ValueError(f"threshold must be at least 0 (0 never reuses), got {self.threshold}")
        if self.fit not in (*COEFFICIENTS, "own"):
            raise ValueError(f"fit is one of {', '.join((*COEFFICIENTS, 'own'))}, got {self.fit!r}")
        if self.fit == "own" and not self.coefficients:
            raise ValueError("fit=own needs coefficients, highest power first; see benchmarks/fit_teacache.py")
        if self.pool not in ("row", "slot"):
            raise ValueError(f"pool is row or slot, got {self.pool!r}")
        if self.warmup < 1 or self.cooldown < 0:
            raise ValueError(f"want warmup >= 1 and cooldown >= 0, got {self.warmup} and {self.cooldown}")
        if self.reuse not in QUANTITIES:
            raise ValueError(f"reuse is one of {', '.join(QUANTITIES)}, got {self.reuse!r}")
        if self.per_branch and self.reuse != "residual":
            raise ValueError(f"per_branch=true needs reuse=residual, got reuse={self.reuse}; change one of them")
        if self.counter not in ("rows", "calls"):
            raise ValueError(f"counter is rows or calls, got {self.counter!r}")
        if self.counter == "calls" and not (self.per_branch and self.pool == "row"):
            raise ValueError("counter=calls counts the calls of every branch; set per_branch=true and pool=row")
        self.polynomial = self.coefficients if self.fit == "own" else COEFFICIENTS[self.fit]
        self.reset()

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"blocks", self.signal} if self.reuse == "residual" else {self.signal})

    @property
    def branchwise(self) -> bool:
        return self.per_branch

    def reset(self) -> None:
        self.rows: dict[str, int] = {}  # decisions in this segment, per branch
        self.calls = -1  # decisions in this segment
        self.moved: dict[str, Discrepancy] = {}
        self.total: dict[tuple[str, int], float] = {}  # A, per branch and slot (slot -1 for the whole row)
        self.reused = Reused(self.reuse)

    def attached(self, model: Capabilities) -> AbstractContextManager[object]:
        self.lengths, self.branches = Counter(row.segment for row in model.schedule()), len(model.branches)
        return super().attached(model)

    def decide(self, part: Row, probe: Probe, branch: str = "") -> Decision:
        self.rows[branch], self.calls = self.rows.get(branch, -1) + 1, self.calls + 1
        moved = self.moved.setdefault(branch, Discrepancy(eps=0.0))
        changes = self._changes(part, probe(self.signal), moved)
        for slot, r in changes.items():
            self.total[branch, slot] = self.total.get((branch, slot), 0.0) + (0.0 if r is None else self._estimate(r))
        score = max(self.total[branch, slot] for slot in changes)
        if any(r is None for r in changes.values()):
            return Decision(Mode.RECOMPUTE, score, "no history")
        done, left = self._place(part, branch)
        if done < self.warmup:
            return Decision(Mode.RECOMPUTE, score, "warm-up")
        if left <= self.cooldown:
            return Decision(Mode.RECOMPUTE, score, "cool-down")
        why = asks((self.total[branch, slot] for slot in changes), self.threshold)
        return Decision(Mode.RECOMPUTE if why else Mode.CACHE, score, why)

    def _place(self, part: Row, branch: str) -> tuple[int, float]:
        """The number of steps since the start, and to the end."""
        if self.pool == "slot":
            return _own_steps(part)
        if self.counter == "calls":
            return self.calls % self.lengths[part.segment] // self.branches, float("inf")
        return self.rows[branch], part.steps - min(part.step)

    def _changes(self, part: Row, signal: Tensor, moved: Discrepancy) -> dict[int, float | None]:
        """r of every accumulator; None if there is no earlier signal."""
        if self.pool == "row":
            slots = list(part.slots)
            pooled = moved.pooled(slots, signal)
            moved.remember(slots, signal, part.settled)
            return {-1: pooled}
        slots = part.updating
        a = slots[0] - part.slots.start
        own = signal[a : a + len(slots)]
        measured = moved.measure(slots, own)
        moved.remember(slots, own, part.settled)
        return dict(zip(slots, measured, strict=True))

    def _estimate(self, r: float) -> float:
        estimate = polynomial(self.polynomial, r)
        return max(estimate, 0.0) if self.nonnegative else estimate

    def settle(self, part: Row, decision: Decision, branch: str = "") -> None:
        if decision.mode is Mode.RECOMPUTE:
            for slot in [-1] if self.pool == "row" else part.updating:
                self.total[branch, slot] = 0.0

    def sites(self, depth: int, row: Row) -> Sequence[Site]:
        return (self.reused.site(depth),)

    def keep(self, site: Site, part: Row, x: Tensor, out: Tensor) -> None:
        self.reused.keep(site, part, x, out)

    def fill(self, site: Site, part: Row, mode: Mode, x: Tensor) -> Tensor:
        return self.reused.fill(site, part, x)

    def state(self) -> Iterable[Tensor]:
        yield from self.reused.tensors()
        for moved in self.moved.values():
            yield from moved.tensors()


def polynomial(coefficients: Sequence[float], r: float) -> float:
    """p(r) for `coefficients` with the highest power first."""
    total = 0.0
    for c in coefficients:
        total = total * r + c
    return total


def _own_steps(part: Row) -> tuple[int, int]:
    """The steps done by the least denoised active slot, and the steps left for the most denoised one."""
    own = [k for k, on in zip(part.step, part.active, strict=True) if on]
    return min(own), part.steps - max(own)
