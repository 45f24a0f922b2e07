"""When a method that computes every N-th step is due: counted by slot, because slots begin at different rows."""

from __future__ import annotations

import math
from collections.abc import Iterable

from engine.method import Capabilities
from engine.row import Decision, Mode, Row

TIMESTEPS = 1000


class Cadence:
    """Steps since each slot was last computed, and rows of the segment."""

    def __init__(self) -> None:
        self.since: dict[int, int] = {}
        self.first: int | None = None  # row of the segment
        self.rows: dict[str, int] = {}  # decisions so far, by what they cover
        self.owed: dict[int, float] = {}  # by how much the gaps of a slot are longer so far than the interval

    def count(self, part: Row, branch: str = "") -> int:
        """Note a decision; returns how many there were before it in this segment, for this part of the rows."""
        key = f"{branch}/{part.slots.start}" if len(part.slots) == part.unit else branch
        self.rows[key] = self.rows.get(key, -1) + 1
        return self.rows[key]

    def call(self, part: Row) -> int:
        """Rows of the segment before this one, whatever part of them is forwarded."""
        self.first = part.iteration if self.first is None else self.first
        return part.iteration - self.first

    def waited(self, part: Row) -> int:
        """Steps that the longest-waiting updating slot has gone without a fresh result."""
        return max((self.since.get(slot, 0) for slot in part.updating), default=0)

    def due(self, part: Row, interval: float) -> bool:
        """Whether a step now makes the gap of an updating slot as long as `interval`: 2.5 alternates 3 and 2."""
        gaps = (self.since.get(slot, 0) + 1 + self.owed.get(slot, 0.0) for slot in part.updating)
        return max(gaps, default=0.0) >= interval

    def settle(self, part: Row, decision: Decision, interval: float = math.inf) -> None:
        """Note what became of `part`; the `interval` is wanted where it may be no whole number."""
        fresh = decision.mode is Mode.RECOMPUTE
        for slot in part.slots:
            late = self.since.get(slot, 0) + 1 + self.owed.get(slot, 0.0) - interval
            if fresh:
                self.owed[slot] = late if late > 0 else 0.0
            self.since[slot] = 0 if fresh else self.since.get(slot, 0) + 1


def own_steps(part: Row) -> tuple[int, int]:
    """Steps done by the youngest updating slot, and steps left to the oldest."""
    own = [k for k, on in zip(part.step, part.active, strict=True) if on]
    return (min(own), part.steps - max(own)) if own else (part.steps, 0)


def timesteps(part: Row) -> list[int]:
    """The trained schedule's timestep of every updating slot, 1000 for noise and 0 for clean.

    Whole, as the pipelines hand it to the model. Which end of `sigma` is noise shows in the way it moves.
    """
    moves = zip(part.sigma, part.sigma_next, part.active, strict=True)
    noise = [before if after < before else 1 - before for before, after, on in moves if on]
    return [int(TIMESTEPS * level + 1e-6) for level in noise]


def asks(changes: Iterable[float], threshold: float) -> str:
    """Why measured `changes` ask for a step to be computed; "" if each is a number below `threshold`.

    What is no finite number computes, wherever it stands among the changes; a threshold of 0 always computes.

    >>> [asks([0.1, 0.2], 0.3), asks([0.1, 0.3], 0.3), asks([0.1, math.nan], 0.3), asks([-0.1], 0.0)]
    ['', 'score', 'signal not finite', 'score']
    """
    changes = list(changes)
    if not all(math.isfinite(change) for change in changes):  # max() may step over a NaN, and -inf is below all
        return "signal not finite"
    return "" if threshold > 0 and all(change < threshold for change in changes) else "score"


def within(name: str, value: float, low: float, high: float) -> None:
    """Raises ValueError unless low <= value <= high."""
    if not low <= value <= high:
        raise ValueError(f"{name} must lie in [{low}, {high}], got {value}")


def one_of(name: str, value: str, *allowed: str) -> None:
    """Raises ValueError unless `value` is one of `allowed`."""
    if value not in allowed:
        raise ValueError(f"{name} is one of {', '.join(allowed)}, got {value!r}")


def check_interval(model: Capabilities, name: str, interval: float) -> None:
    """Raises ValueError for an interval that no slot of the run is long enough for."""
    steps = model.schedule()[0].steps
    if interval > steps:
        raise ValueError(
            f"{name}={interval:g} is longer than the run: a slot of {model.name} has {steps} steps; lower it"
        )


def check_order(model: Capabilities, order: int, interval: float, warmup: int = 1, unused: int = 0) -> None:
    """Raises ValueError where no slot of the run gets the computed steps that `order` extrapolates from.

    The first `unused` of the `warmup` computed steps enter no extrapolation.
    """
    steps = model.schedule()[0].steps
    computed = max(0, min(warmup, steps) - unused) + max(0, int((steps - warmup) / interval))
    if order + 1 > computed:
        raise ValueError(
            f"order={order} extrapolates from {order + 1} computed steps, and interval={interval:g} leaves a slot of "
            f"{model.name} {computed} of {steps}; lower the order or the interval"
        )
