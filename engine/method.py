"""What a method is: a few answers to the denoising loop. The default answers are the Original.

A *slot* is one latent frame of the video, counted from its start. A *row* is one AR iteration: the slots that the
stock pipeline would forward, how far each has been denoised, and which of them this iteration updates. An AR *unit*
is the group of slots that shares a noise level (a block of SkyReels-V2, a chunk of MAGI-1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from engine.knob import Knob

if TYPE_CHECKING:
    from engine.backbone import Backbone


class Mode(StrEnum):
    CACHE = "cache"  # hand back what was computed last
    PREDICT = "predict"  # extrapolate it to the present noise level
    RECOMPUTE = "recompute"  # run the backbone


@dataclass(frozen=True)
class Row:
    """One AR iteration, or the part of it that one decision covers. Tuples hold one entry per slot of `slots`.

    `sigma` is the backbone's own noise-level coordinate: it falls from 1 to 0 on SkyReels-V2 and rises from 0 to 1
    on MAGI-1, so a method may use differences of it but never its direction.
    """

    iteration: int  # counts through the whole video
    segment: int  # methods forget everything between segments
    slots: range
    steps: int  # updates that every slot gets in all
    step: tuple[int, ...]  # updates a slot has had before this row; 0 = pure noise, `steps` = finished
    sigma: tuple[float, ...]  # noise level before this row
    sigma_next: tuple[float, ...]  # and after it
    active: tuple[bool, ...]  # whether this row updates the slot
    unit: int  # slots per AR unit
    forced: str = ""  # why the forward of this row may not be skipped
    last: bool = False  # nothing of this segment comes after
    given: int = 0  # slots before this one (absolute) were clean when the segment began
    settled: int = 0  # slots before this one (absolute) are finished and see only such: they never change again
    context: range = range(0)  # slots just before `slots`, not forwarded but seen through kept keys and values

    def only(self, slots: range) -> Row:
        """The same row restricted to `slots`, a contiguous part of its own."""
        a, b = slots.start - self.slots.start, slots.stop - self.slots.start
        if a < 0 or b > len(self.slots) or a >= b:
            raise ValueError(f"slots {slots} are not a part of {self.slots}")
        cut = {name: getattr(self, name)[a:b] for name in ("step", "sigma", "sigma_next", "active")}
        return replace(self, slots=slots, **cut)

    def behind(self, slot: int) -> Row:
        """Forward only `slot` and what follows; the slots before it become context.

        Context that has settled is computed once more in its final state, and its keys and values are kept. With
        `settled=0` context is seen as the last forward that computed it left it (an approximation).
        """
        slot = max(slot, self.slots.start)
        if slot == self.slots.start:
            return self
        first = self.context.start if self.context else self.slots.start
        return replace(self.only(range(slot, self.slots.stop)), context=range(first, slot))

    @property
    def reach(self) -> int:
        """The end of the last AR unit that holds an active slot; the row's own end if none does."""
        if not self.updating:
            return self.slots.stop
        done = self.updating[-1] + 1 - self.slots.start
        return self.slots.start + -(-done // self.unit) * self.unit

    def exact(self) -> Row:
        """What this row depends on and changes, where an AR unit sees no later one: nothing settled, nothing waiting.

        Its results are those of the whole row.
        """
        return self.only(range(self.slots.start, self.reach)).behind(self.settled)

    def units(self) -> list[Row]:
        """One part per AR unit that holds an active slot."""
        starts = range(self.slots.start, self.slots.stop, self.unit)
        parts = [self.only(range(s, min(s + self.unit, self.slots.stop))) for s in starts]
        return [part for part in parts if any(part.active)]

    @property
    def updating(self) -> list[int]:
        """The active slots, absolute."""
        return [s for s, on in zip(self.slots, self.active, strict=True) if on]

    @property
    def progress(self) -> int:
        """Steps done by the least denoised active slot."""
        return min((k for k, on in zip(self.step, self.active, strict=True) if on), default=self.steps)


class Site(NamedTuple):
    """A place in the forward where a stand-in may replace the computation.

    `kind`: "velocity" (the whole model, after guidance); "blocks" (a span of transformer blocks); or one branch of
    the block `span.start`: "attention", "cross_attention", "feed_forward"; or "guidance", the velocity of one guidance
    branch before they are combined. Tensors at a site are slot-first: velocities (slots, C, H, W), hidden states
    (slots, tokens per slot, width); at a branch, the stream that enters it and its output before the gate.
    "transformer" is no such place: it asks for the forward of the model's own class, with the hooks that a library put
    on its modules, and the backbone reports what they left out.
    """

    kind: str
    span: range = range(0)
    branch: str = ""  # guidance branch, "" at the velocity site

    def __str__(self) -> str:
        return self.kind if not self.span else f"{self.kind} {self.span.start}:{self.span.stop}"


VELOCITY = Site("velocity")
TRANSFORMER = Site("transformer")


@dataclass(frozen=True)
class Decision:
    mode: Mode
    score: float | None = None  # what was compared with the thresholds
    why: str = ""


Probe = Callable[[str], Tensor]  # name of a signal -> (slots, ...) float32, costs no forward


class Method:
    """The Original pipeline. Accelerators override what they change.

    Subclasses are dataclasses whose fields are the method's parameters; running state is made in `reset`, so that it
    dies whole. `requires` names what the backbone must offer ("blocks", "branches", "cross_attention", "guidance",
    "nested", "partial", "narrow", "settled", "given", "transformer", or a signal).

    "partial": a part of a row can be forwarded without the rest, which a method of grain "unit" asks for. Parts that
    are skipped are then seen through the keys and values of their last computation, in the same guidance branch and
    block. Slots of the row that no part covers, because they wait or are finished, are computed along with the others,
    as in the stock forward, unless `narrow` leaves them out; so where every part is computed the row is the Original's.
    "settled": slots that have settled can be left out of the forward (`Row.exact`); "given": so can those that were
    clean from the start.
    """

    knobs: ClassVar[tuple[Knob, ...]] = ()  # what a calibration turns, the main one first; the others refine it

    @property
    def grain(self) -> str:
        """One decision per "row", or per AR "unit" of it."""
        return "row"

    @property
    def branchwise(self) -> bool:
        """One decision per guidance branch instead of one for all."""
        return False

    @property
    def requires(self) -> frozenset[str]:
        return frozenset()

    def check(self, model: Backbone) -> None:
        """Refuse a backbone that lacks what this method needs, before anything is built."""
        lacking = sorted(self.requires - model.offers)
        if lacking:
            offered = ", ".join(sorted(model.offers))
            raise ValueError(
                f"{type(self).__name__} needs {', '.join(lacking)}, which {model.name} does not offer (it offers: "
                f"{offered}); {model.advice(lacking[0])}"
            )

    def reschedule(self, settings: Any) -> Any:
        """The backbone settings to run with; only a method that changes the sampler itself returns others."""
        return settings

    def reseed(self, seed: int) -> int:
        """The seed of the noise; only a row that measures the spread between seeds returns another."""
        return seed

    def attached(self, model: Backbone) -> AbstractContextManager[object]:
        """Held open while one video is denoised: the place to put hooks on the model's modules and take them off."""
        return nullcontext()

    def reset(self) -> None:
        """Forget everything: a video or a segment begins."""

    def narrow(self, row: Row) -> Row:
        """The part of the row worth forwarding (selective computation)."""
        return row

    def decide(self, part: Row, probe: Probe, branch: str = "") -> Decision:
        """Propose a mode. Called once per part (and branch) of every row, whatever comes of it."""
        return Decision(Mode.RECOMPUTE)

    def settle(self, part: Row, decision: Decision, branch: str = "") -> None:
        """Take note of the mode that is carried out; a row may be forced to recompute."""

    def sites(self, depth: int, row: Row) -> Sequence[Site]:
        """Where this method stands in a backbone of `depth` blocks. Spans must not overlap."""
        return ()

    def revise(self, site: Site, part: Row, decision: Decision) -> Decision:
        """The last word at `site`, for a part that `decide` did not leave to be recomputed as a whole.

        Called as the forward arrives there, after what earlier sites kept, so a method may look at its first blocks
        before it decides on the rest, or treat kinds of site differently. One decision for all guidance branches must
        come out alike in each.
        """
        return decision

    def keep(self, site: Site, part: Row, x: Tensor, out: Tensor) -> None:
        """Remember a fresh result `out` of the input `x` at `site`; copy what is kept of a stream, it is written to."""

    def fill(self, site: Site, part: Row, mode: Mode, x: Tensor) -> Tensor:
        """Stand in for the computation in CACHE or PREDICT mode; must not write to `x`.

        What it gives may be its memory itself: to be read only, and before the next `keep`.
        """
        raise RuntimeError(f"{type(self).__name__} chose {mode} but has no stand-in at {site}")

    def rank(self, keys: Tensor, queries: Tensor) -> Tensor:
        """What each key of finished units is worth where a backbone holds only some of them ("kv_capacity").

        `keys` (tokens, groups, d) in the order of the video, `queries` (n, heads, d) of the youngest unit's last
        tokens -> (tokens, groups), float32; the highest stay. By default the newest.
        """
        return torch.arange(len(keys), dtype=torch.float32, device=keys.device)[:, None].expand(keys.shape[:2])

    def state(self) -> Iterable[Tensor]:
        """The tensors held between rows, for the memory account."""
        return ()

    def counters(self) -> dict[str, int]:
        """How often each stability control fired since `reset`."""
        return {}


@dataclass
class Original(Method):
    """The unaccelerated pipeline."""
