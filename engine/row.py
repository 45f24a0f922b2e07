"""Plain data of one AR iteration: the row, the sites of a forward, and a method's decision.

A *slot* is one latent frame of the video, counted from the start of the video.
A *row* is one AR iteration. It names the slots that the unmodified pipeline forwards, the number of steps that each
slot has had, and the slots that this iteration updates.
An AR *unit* is a group of slots with the same noise level: a block of SkyReels-V2, a chunk of MAGI-1 or AnyFlow-FAR.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple


class Mode(StrEnum):
    """How the result at a site is obtained."""

    CACHE = "cache"  # reuse the last computed result
    PREDICT = "predict"  # extrapolate past results to the present noise level
    RECOMPUTE = "recompute"  # run the backbone


@dataclass(frozen=True)
class Row:
    """One AR iteration, or the part of it that one decision covers. Tuples hold one entry per slot of `slots`.

    `sigma` is the noise level as the backbone defines it. It falls from 1 to 0 on SkyReels-V2 and rises from 0 to 1
    on MAGI-1. A method may therefore use differences of `sigma`, but must not rely on their sign.
    """

    iteration: int  # counts through the whole video
    segment: int  # methods are reset at the start of each segment
    slots: range
    steps: int  # number of updates of every slot, from noise to clean
    step: tuple[int, ...]  # updates of a slot before this row; 0 = pure noise, `steps` = finished
    sigma: tuple[float, ...]  # noise level before this row
    sigma_next: tuple[float, ...]  # noise level after this row
    active: tuple[bool, ...]  # whether this row updates the slot
    unit: int  # slots per AR unit
    forced: str = ""  # the reason if the forward of this row must run; "" if a method may skip it
    last: bool = False  # whether this is the last row of its segment
    given: int = 0  # slots before this one (absolute) were clean when the segment began
    settled: int = 0  # slots before this one (absolute) are finished and attend only to finished slots: they stay fixed
    context: range = range(0)  # slots just before `slots`; not forwarded, attended to through stored keys and values
    renew: bool = False  # compute the keys of all finished slots anew first, where the model would keep them
    borders: tuple[int, ...] = ()  # the first slot of every AR unit of the video, if they differ in length
    aim: int = 0  # the step that the computed velocity leads to, of a model that is told it; 0: the next one
    tokens: tuple[int, ...] = ()  # positions in a slot of the tokens that are computed, rising; (): all of them

    def only(self, slots: range) -> Row:
        """The same row restricted to `slots`. Raises ValueError if `slots` is not a part of the row's slots."""
        a, b = slots.start - self.slots.start, slots.stop - self.slots.start
        if a < 0 or b > len(self.slots) or a >= b:
            raise ValueError(f"got slots {slots}, want a non-empty part of {self.slots}")
        cut = {name: getattr(self, name)[a:b] for name in ("step", "sigma", "sigma_next", "active")}
        return replace(self, slots=slots, **cut)

    def behind(self, slot: int) -> Row:
        """The row that forwards only `slot` and the slots after it. The slots before it become context.

        Settled context slots are computed once more in their final state, and their keys and values are stored. With
        `settled=0` the stored keys and values are those of the last forward of each context slot, an approximation.
        """
        slot = max(slot, self.slots.start)
        if slot == self.slots.start:
            return self
        first = self.context.start if self.context else self.slots.start
        return replace(self.only(range(slot, self.slots.stop)), context=range(first, slot))

    @property
    def reach(self) -> int:
        """The end of the last AR unit with an active slot. Without an active slot: the end of the row."""
        if not self.updating:
            return self.slots.stop
        done = self.updating[-1] + 1 - self.slots.start
        return self.slots.start + -(-done // self.unit) * self.unit

    def exact(self) -> Row:
        """The row without settled slots at the front and without waiting units at the end.

        Where an AR unit does not attend to later units, it gives the same results as the whole row.
        """
        return self.only(range(self.slots.start, self.reach)).behind(self.settled)

    def units(self) -> list[Row]:
        """One part per AR unit with an active slot."""
        starts = range(self.slots.start, self.slots.stop, self.unit)
        parts = [self.only(range(s, min(s + self.unit, self.slots.stop))) for s in starts]
        return [part for part in parts if any(part.active)]

    def number(self, slot: int) -> int:
        """The AR unit that `slot` belongs to, counted through the video."""
        return bisect_right(self.borders, slot) - 1 if self.borders else slot // self.unit

    @property
    def updating(self) -> list[int]:
        """The active slots, as absolute indices."""
        return [s for s, on in zip(self.slots, self.active, strict=True) if on]

    @property
    def progress(self) -> int:
        """The number of steps that the least denoised active slot has had."""
        return min((k for k, on in zip(self.step, self.active, strict=True) if on), default=self.steps)


class Site(NamedTuple):
    """A place in the forward where a method may supply the result instead of the computation.

    `kind` is one of:
    "velocity": the whole model, after guidance.
    "guidance": the velocity of one guidance branch, before the branches are combined.
    "blocks": the transformer blocks in `span`.
    "attention", "cross_attention", "feed_forward": one branch of the block `span.start`. The input is the hidden state
    that enters the branch, the output is the result before the gate.
    "transformer": no method supplies a result here. The backbone runs the forward of the model's own class with the
    hooks that a library has set on its modules, and reports which computations the hooks skipped.

    Tensors at a site are slot-first: velocities (slots, C, H, W), hidden states (slots, tokens per slot, width).
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
    """The mode that a method chooses for a part of a row."""

    mode: Mode
    score: float | None = None  # the value that was compared with the thresholds
    why: str = ""  # the reason, where the score is not the reason
    tokens: tuple[int, ...] = ()  # of RECOMPUTE: positions in every slot that are computed, rising; (): all of them
