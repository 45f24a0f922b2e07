"""One AR iteration as plain data, the places in a forward, and what a method decides there.

A *slot* is one latent frame of the video, counted from its start. A *row* is one AR iteration: the slots that the
stock pipeline would forward, how far each has been denoised, and which of them this iteration updates. An AR *unit*
is the group of slots that shares a noise level (a block of SkyReels-V2, a chunk of MAGI-1).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple


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
