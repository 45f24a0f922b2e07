"""ARCache (Nan et al., CVPR 2026): history tokens say when to compute, the first unit's residuals how to reuse.

    D  = mean|h - h'| / mean|h'|           h: history tokens of a unit; h': the same one step before
    A += D;  A < threshold: reuse;  else compute the unit and A = 0
    x_out = x_in + r_b + l (r_a - r_b)     r_b, r_a: residuals of the block stack, last two computed steps b < a
    l  = mean|q_t - q_b| / mean|q_a - q_b|           q: residuals of the video's first unit at the steps t, a and b

No code is public, and the rule is from notes of third parties. They define D, the sum, the threshold (0.1 to 0.3) and l
with its norms, whose relative parts cancel. They take l from the first segment of a video, since it holds no error of
earlier ones, and use it in all later segments. On other points they are silent, or speak of other models:

* A segment of the notes is an AR unit here (a block of SkyReels-V2, a chunk of MAGI-1). With the models' own segments a
  video of one segment would never be accelerated, and that is every video of MAGI-1.
* The first unit is computed at every step, so q is known at every step. One of the notes calls the first segment
  unaccelerated, another one says that it is accelerated too. Distances are measured between each step and the `span`
  steps before it, with the anchors of the later unit. So that unit need not compute the same steps as the first one.
* History tokens are those of earlier units that the same row updates and that have had more steps. Finished units do
  not change, and given frames change only by noise that is added to them. They are not counted: they would make D
  smaller the more there are, and on MAGI-1 they are not in the forward. A unit without such history is computed: the
  first of every row, hence also the first of every segment, and the last steps of each unit, after the one before it
  has finished.
* h is read after the patch embedding, before any block, so a decision costs no forward. With `signal: latent` it is the
  latent itself.
* l is not defined before two steps of a unit are computed, so its first two are. `warmup` steps are, as many as
  TeaCache's release computes on SkyReels-V2. Where q did not move between the anchors, l is 1 and r_a is reused.
* l has no upper limit. It is large where the two anchors are close to each other and many steps are skipped after them:
  on one calibration prompt at the default settings up to 48 on `magi1_tiny`, and up to 6.6 on `skyreels_tiny` (97
  frames, block-causal). `most` limits it, as DiCache limits its coefficient (to 2).

Where all units denoise together (`model.ar_step=0`), or one after the other, no unit has such history, so the method is
refused. A forward covers only the units that compute; attention uses the stored keys and values of the others.

Site: the whole block stack.
Signal: the patch embedding of the history tokens; depends on the content.
Memory: 2 hidden tensors per guidance branch and the last signal of every slot; until the first unit is finished, also
`span` + 1 hidden tensors of that unit per guidance branch.
Changed: everything in the list above is our choice. `selective` and `most` are ours. So is `learned: segment`, which
measures l anew on the first unit of every segment. There is one decision for both guidance branches, whose signal is
the same; each branch has its own l. A threshold of 0 computes every step, also where the history stands still.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from baselines.dicache import LastTwo
from baselines.shared.cadence import asks, one_of, within
from baselines.shared.schedule import NEEDS, active, check_selective, narrowed
from engine.history import History
from engine.knob import Knob
from engine.method import Capabilities, Method, Probe
from engine.row import Decision, Mode, Row, Site

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class ARCache(Method):
    """Decides for a unit by the change of the units before it, and moves its residual as far as the first unit's."""

    threshold: float  # limit of A; raising it: more steps reuse; faster, larger errors
    warmup: int = 5  # first steps of a unit that are always computed; raising it: slower, smaller errors
    span: int = 12  # longest distance from a step to its older anchor; raising it: longer reuse, more memory
    most: float = 0.0  # upper limit of l, 0 for none; raising it: follows the first unit farther; 1: mostly reuses r_a
    learned: str = "video"  # where l is measured: on the first unit of the "video" or of every "segment"
    signal: str = "patch_embedding"  # what is compared: "patch_embedding" | "latent"
    selective: str = "none"  # what a forward covers: none | prefix (no waiting frames) | exact (block-causal only)

    least_steps = 3
    knobs = (Knob("threshold", 1e-4, 10.0),)

    def __post_init__(self) -> None:
        within("threshold", self.threshold, 0, math.inf)
        within("warmup", self.warmup, 0, math.inf)
        within("span", self.span, 2, math.inf)
        within("most", self.most, 0, math.inf)
        one_of("learned", self.learned, "video", "segment")
        one_of("signal", self.signal, "patch_embedding", "latent")
        check_selective(self.selective)
        self._forget()
        self.reset()

    @property
    def grain(self) -> str:
        return "unit"

    @property
    def requires(self) -> frozenset[str]:
        return NEEDS[self.selective] | {"blocks", "partial", self.signal}

    def check(self, model: Capabilities) -> None:
        super().check(model)
        if not any(mixed(row) for row in model.schedule()):
            raise ValueError(
                f"ARCache needs rows with units at different steps, which {model.name} does not offer at these "
                "settings: its units are denoised one after the other or all together. Set model.ar_step above 0 on "
                "SkyReels-V2, or choose another method"
            )

    def attached(self, model: Capabilities) -> AbstractContextManager[object]:
        """A video begins. `reset` alone keeps what was learned, since it is also called at every later segment."""
        self._forget()
        return super().attached(model)

    def _forget(self) -> None:
        self.first: int | None = None  # first slot of the unit on which l is measured
        self.ways: dict[str, Way] = {}  # its residuals, by guidance branch

    def reset(self) -> None:
        if self.learned == "segment":
            self._forget()
        self.before = History(1, None)  # the last signal of every slot
        self.iteration = -1  # of the row that is being decided
        self.moved: list[tuple[int, Tensor]] = []  # of the units of that row so far: step, sums of |h - h'| and of |h'|
        self.total: dict[int, float] = {}  # A of each unit, by its first slot
        self.anchors: dict[int, tuple[int, ...]] = {}  # last two computed steps of each unit, the newest last
        self.stacks: dict[str, LastTwo] = {}  # their residuals, by guidance branch

    def narrow(self, row: Row) -> Row:
        return narrowed(row, self.selective)

    def decide(self, part: Row, probe: Probe, branch: str = "") -> Decision:
        unit, step = part.slots.start, part.progress
        self.first = unit if self.first is None else self.first
        if part.iteration != self.iteration:
            self.iteration, self.moved = part.iteration, []
        history = [sizes for other, sizes in self.moved if other > step]
        self._watch(part, probe(self.signal))
        if not history:
            return Decision(Mode.RECOMPUTE, why="no history tokens")
        change, size = torch.stack(history).sum(0).tolist()
        score = self.total[unit] = self.total.get(unit, 0.0) + (change / size if size else math.nan)
        steps = self.anchors.get(unit, ())
        if len(steps) < 2:
            return Decision(Mode.RECOMPUTE, score, "no history")
        if not all(way.knows(step, *steps) for way in self.ways.values()):
            return Decision(Mode.RECOMPUTE, score, "no coefficient")
        if step < self.warmup:
            return Decision(Mode.RECOMPUTE, score, "warm-up")
        why = asks([score], self.threshold)
        return Decision(Mode.RECOMPUTE if why else Mode.PREDICT, score, why)

    def _watch(self, part: Row, signal: Tensor) -> None:
        """Measure how far the unit moved since the last row, for the units after it, and store its signal."""
        (a, b), slots = active(part), part.updating
        now = signal[a:b]
        if all(self.before.count(slot) for slot in slots):
            was = self.before.last(slots).float()
            self.moved.append((part.progress, torch.stack([(now.float() - was).abs().sum(), was.abs().sum()])))
        self.before.push(slots, part.sigma[a:b], now, part.settled)

    def settle(self, part: Row, decision: Decision, branch: str = "") -> None:
        if decision.mode is Mode.RECOMPUTE:
            unit = part.slots.start
            self.total[unit] = 0.0
            self.anchors[unit] = (*self.anchors.get(unit, ()), part.progress)[-2:]

    def sites(self, depth: int, row: Row) -> Sequence[Site]:
        return (Site("blocks", range(depth)),)

    def keep(self, site: Site, part: Row, x: Tensor, out: Tensor) -> None:
        if "+" in site.branch:  # the second pass of a row's first unit, which always computes
            return
        residual = out - x
        self.stacks.setdefault(site.branch, LastTwo()).push(list(part.slots), residual, part.settled)
        if part.slots.start == self.first:
            a, b = active(part)
            way = self.ways.setdefault(site.branch, Way(min(self.span + 1, part.steps), part.steps))
            way.add(part.progress, residual[a:b])

    def fill(self, site: Site, part: Row, mode: Mode, x: Tensor) -> Tensor:
        branch = site.branch.partition("+")[0]
        reach = self.ways[branch].coefficient(part.progress, *self.anchors[part.slots.start])
        reach = reach.clamp(max=self.most) if self.most else reach
        newer, older = self.stacks[branch].of(list(part.slots))
        return x + older + reach.to(x.dtype) * (newer - older)

    def state(self) -> Iterable[Tensor]:
        yield from self.before.tensors()
        for two in self.stacks.values():
            for history in two.histories:
                yield from history.tensors()
        for way in self.ways.values():
            yield from way.tensors()


class Way:
    """How far the residual of one unit moved between its steps: mean|q_i - q_j| for steps fewer than `held` apart."""

    def __init__(self, held: int, steps: int) -> None:
        self.held, self.steps = held, steps
        self.seen = range(0)  # the steps that were added
        self.recent: Tensor | None = None  # the last `held` residuals; step i at the place i % held
        # From step i to the step at place p, when i was added, at i * held + p. One dimension, since a forecast of the
        # memory tells other tensors by the size of their last dimension (sweep/peaks.py).
        self.apart: Tensor | None = None

    def add(self, step: int, residual: Tensor) -> None:
        """The residual at the next step. After the last one only distances are kept."""
        if self.recent is None or self.apart is None:
            self.recent = residual.new_zeros((self.held, *residual.shape))
            self.apart = residual.new_zeros(self.steps * self.held, dtype=torch.float32)
        self.seen = range(self.seen.start if self.seen else step, step + 1)
        self.recent[step % self.held] = residual
        apart = torch.stack([(residual - other).abs().mean(dtype=torch.float32) for other in self.recent])
        self.apart[step * self.held : (step + 1) * self.held] = apart
        if step == self.steps - 1:
            self.recent = None

    def knows(self, step: int, older: int, newer: int) -> bool:
        """Whether l is known for `step` between the anchors `older` and `newer`."""
        return older in self.seen and step in self.seen and step - older < self.held

    def coefficient(self, step: int, older: int, newer: int) -> Tensor:
        """l, a number on the device. 1 where it is not finite: the residual did not move between the anchors."""
        if self.apart is None:
            raise RuntimeError("no coefficient yet: no residual was added")
        place = older % self.held
        ratio = self.apart[step * self.held + place] / self.apart[newer * self.held + place]
        return torch.where(torch.isfinite(ratio), ratio, 1.0)

    def tensors(self) -> list[Tensor]:
        """The stored tensors, for the account of a method's memory."""
        return [tensor for tensor in (self.recent, self.apart) if tensor is not None]


def mixed(row: Row) -> bool:
    """Whether units at different steps are updated together, so that a later one has history in the row.

    >>> row = Row(9, 0, range(4), 8, (3, 3, 1, 1), (0.5,) * 4, (0.4,) * 4, (True,) * 4, unit=2)
    >>> [mixed(row), mixed(row.only(range(2)))]
    [True, False]
    """
    steps = [part.progress for part in row.units()]
    return any(other < step for place, step in enumerate(steps) for other in steps[place + 1 :])
