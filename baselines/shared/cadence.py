"""Counting steps for methods that compute every N-th step, per slot, because slots start at different rows."""

from __future__ import annotations

import math
from collections.abc import Iterable

from engine.method import Capabilities
from engine.row import Decision, Mode, Row

TIMESTEPS = 1000


class Cadence:
    """The steps since each slot was last computed, and the rows of the segment."""

    def __init__(self) -> None:
        self.since: dict[int, int] = {}
        self.row: int | None = None  # iteration of the last call
        self.calls = -1
        self.rows: dict[str, int] = {}  # number of decisions, by branch and part
        self.owed: dict[int, float] = {}  # per slot, steps by which its gaps exceed the interval so far

    def count(self, part: Row, branch: str = "") -> int:
        """Count a decision. Returns the number of earlier ones in this segment for this part and branch."""
        key = f"{branch}/{part.slots.start}" if len(part.slots) == part.unit else branch
        self.rows[key] = self.rows.get(key, -1) + 1
        return self.rows[key]

    def call(self, part: Row) -> int:
        """The index of the row among the rows of its segment that were decided, those forwarded in part included.

        A row that updates nothing (a clean pass) is not decided, so it does not count.
        """
        if part.iteration != self.row:
            self.row, self.calls = part.iteration, self.calls + 1
        return self.calls

    def waited(self, part: Row) -> int:
        """The largest number of steps since an updating slot was computed."""
        return max((self.since.get(slot, 0) for slot in part.updating), default=0)

    def due(self, part: Row, interval: float) -> bool:
        """Whether the gap of an updating slot reaches `interval` at this step. The gaps of 2.5 alternate 3 and 2."""
        gaps = (self.since.get(slot, 0) + 1 + self.owed.get(slot, 0.0) for slot in part.updating)
        return max(gaps, default=0.0) >= interval

    def settle(self, part: Row, decision: Decision, interval: float = math.inf) -> None:
        """Update the counts with the decision for `part`. Give `interval` if it may not be a whole number."""
        fresh = decision.mode is Mode.RECOMPUTE
        for slot in part.slots:
            late = self.since.get(slot, 0) + 1 + self.owed.get(slot, 0.0) - interval
            if fresh:
                self.owed[slot] = late if late > 0 else 0.0
            self.since[slot] = 0 if fresh else self.since.get(slot, 0) + 1


def own_steps(part: Row) -> tuple[int, int]:
    """The steps done by the least denoised updating slot, and the steps left for the most denoised one."""
    own = [k for k, on in zip(part.step, part.active, strict=True) if on]
    return (min(own), part.steps - max(own)) if own else (part.steps, 0)


def timesteps(part: Row) -> list[int]:
    """The integer timestep of every updating slot as in training, from 1000 (noise) to 0 (clean).

    The direction in which `sigma` changes shows which end is noise.
    """
    moves = zip(part.sigma, part.sigma_next, part.active, strict=True)
    noise = [before if after < before else 1 - before for before, after, on in moves if on]
    return [int(TIMESTEPS * level + 1e-6) for level in noise]


def asks(changes: Iterable[float], threshold: float) -> str:
    """The reason why measured `changes` require a computed step; "" if each is a finite number below `threshold`.

    A value that is not finite always requires one, and so does a threshold of 0.

    >>> [asks([0.1, 0.2], 0.3), asks([0.1, 0.3], 0.3), asks([0.1, math.nan], 0.3), asks([-0.1], 0.0)]
    ['', 'score', 'signal not finite', 'score']
    """
    changes = list(changes)
    if not all(math.isfinite(change) for change in changes):  # max() may ignore a NaN, and -inf is below all
        return "signal not finite"
    return "" if threshold > 0 and all(change < threshold for change in changes) else "score"


def within(name: str, value: float, low: float, high: float) -> None:
    """Raise ValueError unless low <= value <= high."""
    if not low <= value <= high:
        raise ValueError(f"{name} must lie in [{low}, {high}], got {value}")


def one_of(name: str, value: str, *allowed: str) -> None:
    """Raise ValueError unless `value` is one of `allowed`."""
    if value not in allowed:
        raise ValueError(f"{name} is one of {', '.join(allowed)}, got {value!r}")


def check_interval(model: Capabilities, name: str, interval: float) -> None:
    """Raise ValueError if the interval is longer than the steps of a slot."""
    steps = model.schedule()[0].steps
    if interval > steps:
        raise ValueError(
            f"{name}={interval:g} is longer than the run: a slot of {model.name} has {steps} step{'s'[: steps != 1]}; "
            f"lower it, or give at least {math.ceil(interval)} steps"
        )


def check_order(model: Capabilities, order: int, interval: float, warmup: int = 1, unused: int = 0) -> None:
    """Raise ValueError if a slot gets fewer computed steps than an extrapolation of `order` needs.

    The first `unused` of the `warmup` computed steps are not used for extrapolation.
    """
    steps = model.schedule()[0].steps
    computed = max(0, min(warmup, steps) - unused) + max(0, int((steps - warmup) / interval))
    if order + 1 > computed:
        raise ValueError(
            f"order={order} needs {order + 1} computed steps, but with interval={interval:g} a slot of {model.name} "
            f"has {computed} of {steps}; lower the order or the interval"
        )
