"""X-Cache (arXiv 2604.20289): a chunk reuses the residuals of the previous chunk at the same denoising step.

    x <- x + r[t, b]       r[t, b]: residual x_out - x_in of block b at step t, of the last chunk that computed it
    skip iff  c >= max(floor, E - slack)  and  d < deviation
    c = min over the fingerprint's vectors of cos(f, f[t, b]),  d = max over its tokens of |f - f[t, b]| / |f[t, b]|
    E <- (1 - alpha) E + alpha c                                      after every comparison, for each block

The fingerprint f of a block's input is 32 tokens on a grid over the chunk and the mean of all tokens. Block 0 and the
first chunk of a segment are always computed, and so is a pass that only writes keys and values (MAGI-1's refresh). The
rule is made for models of few steps, where successive steps differ too much for reuse. It needs chunks that reach the
same step one after the other: where all denoise together (`model.ar_step=0`) every chunk is computed. On `magi1_tiny`
c lies between 0.52 and 0.93 (one calibration prompt), since every chunk has its own noise. So nothing is skipped at the
paper's floor, and a floor that skips gives a very different video.

Site: every block except the first; or blocks 1 .. depth together.
Signal: the block's input, compared with the previous chunk's; depends on the content.
Memory: for every step of a slot, 1 hidden tensor per block (1 with `per: stack`) and 2 fingerprints, of one AR unit.
Changed: no code is public; the rule is from notes about the paper. The norm of the token deviation and an E per block
and guidance branch are ours. The fingerprint also has the condition in the paper; here it is the same for all chunks at
the same step. The grid is even over the tokens of the chunk, in the order frames, height, width. The second pass of
MAGI-1's oldest chunk uses the residual of the first pass. `per: stack` is ours: one decision, at the input of block 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from baselines.shared.cadence import one_of, within
from engine.knob import Knob
from engine.method import Capabilities, Method, Probe
from engine.row import Decision, Mode, Row, Site
from engine.to_device import sent

if TYPE_CHECKING:
    from torch import Tensor

    Kept = tuple[Tensor, Tensor, Tensor]  # fingerprint of a block's input, residual of the block, fingerprint of that


@dataclass
class XCache(Method):
    """Compares every block's input with the previous chunk's at the same step, and reuses its residual."""

    floor: float = 0.97  # smallest similarity that may skip; raising it: slower, smaller errors
    slack: float = 0.02  # how far a similarity may lie below its running mean; raising it: faster, larger errors
    deviation: float = 2.0  # limit of the largest token deviation; raising it: faster, larger errors; 0 computes all
    alpha: float = 0.3  # weight of the newest similarity in the running mean; raising it: forgets faster
    tokens: int = 32  # tokens in a fingerprint; raising it: notices smaller changes, slower
    per: str = "block"  # "block": every block decides and keeps a residual; "stack": one decision, less memory

    knobs = (Knob("floor", 1.0, 0.1), Knob("deviation", 0.4, 10.0))

    def __post_init__(self) -> None:
        within("floor", self.floor, -1, 1)
        within("alpha", self.alpha, 0, 1)
        within("tokens", self.tokens, 1, math.inf)
        for name in ("slack", "deviation"):
            within(name, getattr(self, name), 0, math.inf)
        one_of("per", self.per, "block", "stack")
        self.reset()

    @property
    def grain(self) -> str:
        return "unit"

    @property
    def branchwise(self) -> bool:
        return True

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"blocks", "partial"})

    def check(self, model: Capabilities) -> None:
        super().check(model)
        if model.depth < 2:
            raise ValueError(
                f"{model.name} has {model.depth} block, and the first one is always computed; want 2 or more"
            )

    def reset(self) -> None:
        self.kept: dict[tuple[str, int], dict[int, Kept]] = {}  # by branch and step; then by the site's first block
        self.mean: dict[tuple[str, int], float] = {}  # E, by branch and the site's first block
        self.entering: dict[tuple[str, int], Tensor] = {}  # fingerprint of the next site's input, by branch and part
        self.depth = 0

    def sites(self, depth: int, row: Row) -> Sequence[Site]:
        self.depth = depth
        rest = [range(1, depth)] if self.per == "stack" else [range(i, i + 1) for i in range(1, depth)]
        return tuple(Site("blocks", span) for span in (range(1), *rest))

    def decide(self, part: Row, probe: Probe, branch: str = "") -> Decision:
        """Propose CACHE if the residuals of a chunk of this length are known at this step; `revise` compares."""
        known = self.kept.get((branch, part.progress), {}) if all(part.active) else {}
        if any(len(residual) == len(part.slots) for _, residual, _ in known.values()):
            return Decision(Mode.CACHE, why="probe")
        return Decision(Mode.RECOMPUTE, why="no history")

    def revise(self, site: Site, part: Row, decision: Decision) -> Decision:
        first = site.span.start
        if first == 0:
            return Decision(Mode.RECOMPUTE)
        before, *_ = self.kept[site.branch, part.progress][first]
        near, far = compare(self.entering[site.branch, part.slots.start], before)
        mean = self.mean.get((site.branch, first), near)
        if not (math.isfinite(near) and math.isfinite(far)):
            return Decision(Mode.RECOMPUTE, near, "signal not finite")
        self.mean[site.branch, first] = (1 - self.alpha) * mean + self.alpha * near
        alike = near >= max(self.floor, mean - self.slack) and far < self.deviation
        return Decision(Mode.CACHE if alike else Mode.RECOMPUTE, near, "" if alike else "score")

    def keep(self, site: Site, part: Row, x: Tensor, out: Tensor) -> None:
        if "+" in site.branch or not all(part.active):  # "+": a second pass; slots at rest have no common step
            return
        place, after = (site.branch, part.slots.start), fingerprint(out, self.tokens)
        if site.span.start > 0:
            before = self.entering[place]
            kept = self.kept.setdefault((site.branch, part.progress), {})
            kept[site.span.start] = before, out - x, after - before
        self._enter(site, part, after)

    def fill(self, site: Site, part: Row, mode: Mode, x: Tensor) -> Tensor:
        _, residual, moved = self.kept[site.branch.partition("+")[0], part.progress][site.span.start]
        if "+" not in site.branch:  # the fingerprint is linear, so that of the sum needs no pass over the hidden state
            self._enter(site, part, self.entering[site.branch, part.slots.start] + moved)
        return x + residual

    def _enter(self, site: Site, part: Row, after: Tensor) -> None:
        """Store the fingerprint `after` of the next site's input, or forget it after the last one."""
        place = site.branch, part.slots.start
        if site.span.stop == self.depth:
            self.entering.pop(place, None)
        else:
            self.entering[place] = after

    def state(self) -> Iterable[Tensor]:
        return [tensor for blocks in self.kept.values() for kept in blocks.values() for tensor in kept]


def fingerprint(x: Tensor, tokens: int) -> Tensor:
    """`tokens` evenly spaced tokens of `x` (slots, tokens per slot, width), all if there are fewer, then the mean."""
    flat = x.flatten(0, 1)
    count = min(tokens, len(flat))
    grid = sent([i * len(flat) // count for i in range(count)], x.device)
    return torch.cat([flat[grid], flat.mean(0, keepdim=True)])


def compare(now: Tensor, before: Tensor) -> tuple[float, float]:
    """The smallest cosine of two fingerprints' vectors, and the largest relative difference of their tokens.

    Vectors of length 0 have the cosine 0, so they are never alike.
    """
    now, before = now.float(), before.float()
    cosine = torch.nn.functional.cosine_similarity(now, before, dim=1).min()
    apart = (now - before)[:-1].norm(dim=1) / before[:-1].norm(dim=1).clamp(min=1e-12)
    near, far = torch.stack([cosine, apart.max()]).tolist()
    return near, far
