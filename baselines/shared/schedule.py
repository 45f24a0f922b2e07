"""Fixed schedules: a method that computes fixed steps of each AR unit, and the checks of a schedule against a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch

from baselines.shared.model_settings import by_name
from engine.forecast import Formula, newton
from engine.history import History
from engine.method import Capabilities, Method, Probe
from engine.row import VELOCITY, Decision, Mode, Row, Site

if TYPE_CHECKING:
    from torch import Tensor

NEEDS = {"none": frozenset[str](), "prefix": frozenset({"narrow"}), "exact": frozenset({"narrow", "settled"})}
SCHEDULED = {**NEEDS, "stored": frozenset({"narrow"})}  # those of fixed schedules

Steps = Sequence[Sequence[int]]
"""Computed steps, one rising list per AR unit of a segment; later units use the last list. Empty: every step."""


class Scheduled(Method):
    """Computes the steps of a fixed schedule and supplies the velocity in between.

    `selective: stored` is for full attention. Once no unit waits, a finished unit is computed in one more row, together
    with the others, and later rows see it through its stored keys and values. They are not quite those of the Original,
    where a finished unit attends to what the others have become since then.

    A subclass is a dataclass with the fields `computed`, `selective` and `made_for`.
    """

    computed: list[list[int]]
    selective: str
    made_for: dict[str, Any]
    order: int = 1  # of the extrapolation
    decided_by = "schedule"
    least_steps = 2

    def __post_init__(self) -> None:
        check_steps("computed", self.computed)
        if self.order not in (0, 1, 2):
            raise ValueError(f"order is 0, 1 or 2, got {self.order}")
        check_selective(self.selective, SCHEDULED)
        self.reset()

    def formula(self, part: Row) -> Formula:
        """The extrapolation of the velocities of `part`."""
        return newton

    def levels(self, part: Row) -> Sequence[float]:
        """The coordinate of each slot in which velocities are extrapolated: the noise level."""
        return part.sigma

    @property
    def grain(self) -> str:
        return "unit"

    @property
    def requires(self) -> frozenset[str]:
        return SCHEDULED[self.selective] | {"partial"}

    def check(self, model: Capabilities) -> None:
        super().check(model)
        check_fits("computed", self.computed, self.made_for, model)

    def reset(self) -> None:
        self.history = History(self.order + 1)
        self._front = self._stored = 0  # first active slot of this row, and of the last row that was computed

    def narrow(self, row: Row) -> Row:
        if self.selective != "stored" or not row.updating:
            return narrowed(row, self.selective)
        self._front = row.updating[0]
        waiting = row.updating[-1] + 1 < row.slots.stop
        return row if waiting else replace(row, settled=0).behind(self._stored)

    def settle(self, part: Row, decision: Decision, branch: str = "") -> None:
        if decision.mode is Mode.RECOMPUTE:
            self._stored = self._front

    def decide(self, part: Row, probe: Probe, branch: str = "") -> Decision:
        if due(self.computed, part):
            return Decision(Mode.RECOMPUTE, why="schedule")
        if any(self.history.count(slot) == 0 for slot in part.updating):
            return Decision(Mode.RECOMPUTE, why="no history")
        return Decision(Mode.PREDICT if self.order else Mode.CACHE)

    def sites(self, depth: int, row: Row) -> Sequence[Site]:
        return (VELOCITY,)

    def keep(self, site: Site, part: Row, x: Tensor, out: Tensor) -> None:
        a, b = active(part)
        self.history.push(part.updating, self.levels(part)[a:b], out[a:b], part.settled)

    def fill(self, site: Site, part: Row, mode: Mode, x: Tensor) -> Tensor:
        (a, b), slots = active(part), part.updating
        orders = [min(self.order, self.history.count(slot) - 1) for slot in slots]
        velocity = self.history.predict(slots, self.formula(part), self.levels(part)[a:b], orders)
        if b - a == len(part.slots):
            return velocity
        out = torch.zeros_like(x)  # idle frames are not stepped, so their velocity is never read
        out[a:b] = velocity
        return out

    def state(self) -> Iterable[Tensor]:
        return self.history.tensors()


def place(part: Row) -> int:
    """The index of the AR unit `part` in its segment, without units that were given.

    >>> row = Row(9, 0, range(4, 6), 8, (3, 3), (0.5, 0.5), (0.4, 0.4), (True, True), unit=2, given=2)
    >>> place(row)
    1
    """
    if part.borders:
        return max(0, part.number(part.slots.start) - part.number(part.given))
    return max(0, part.slots.start - part.given) // part.unit


def own(lists: Sequence[Any], part: Row) -> Any:
    """The entry of `lists` that belongs to the unit `part`: its own, or the last one for later units."""
    return lists[min(place(part), len(lists) - 1)]


def active(part: Row) -> tuple[int, int]:
    """Where the updating slots lie in the part's tensors, [first, last + 1)."""
    return part.updating[0] - part.slots.start, part.updating[-1] + 1 - part.slots.start


def narrowed(row: Row, selective: str) -> Row:
    """What a forward of `row` covers: "none" all of it, "prefix" no waiting frames, "exact" no finished ones either."""
    if selective == "none" or not row.updating:
        return row
    return row.exact() if selective == "exact" else row.only(range(row.slots.start, row.reach))


def check_selective(selective: str, choices: Iterable[str] = tuple(NEEDS)) -> None:
    """Raises ValueError for a choice that is none."""
    if selective not in choices:
        raise ValueError(f"selective is one of {', '.join(choices)}, got {selective!r}")


def due(computed: Steps, part: Row) -> bool:
    """Whether the schedule computes this step of the unit `part`."""
    if not computed:
        return True
    steps = own(computed, part)
    return any(k in steps for k, on in zip(part.step, part.active, strict=True) if on)


def check_steps(name: str, computed: Steps) -> None:
    """Raise ValueError unless every list rises from 0: a unit's first step must be computed."""
    for steps in computed:
        if not steps or steps[0] != 0 or any(b <= a for a, b in pairwise(steps)):
            raise ValueError(f"{name} is one rising list of steps per AR unit, each from 0 on, got {list(steps)}")


def check_fits(name: str, computed: Steps, made_for: Mapping[str, Any], model: Capabilities) -> None:
    """Raise ValueError for a model, or a setting of it, for which the schedule was not made."""
    given = by_name(model.settings)
    differs = [f"{key}={given.get(key)}" for key, value in made_for.items() if given.get(key) != value]
    if differs:
        wanted = ", ".join(f"{key}={value}" for key, value in made_for.items())
        raise ValueError(
            f"this schedule was made for {wanted}; here {', '.join(differs)}. Make one for this run "
            "(experiment=search_schedule), or run what it was made for"
        )
    steps = model.schedule()[0].steps
    beyond = [step for listed in computed for step in listed if step >= steps]
    if beyond:
        raise ValueError(f"{name} names step {beyond[0]}, and a unit of {model.name} has steps 0 to {steps - 1}")
