"""Marks of a line of the main table: what a reader must know before comparing its numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

DEFAULTS = "default settings, not the paper's point"


class Kind(Enum):
    """What a mark says; the value is its text, with a place for each of its details."""

    ESTIMATED = "estimated point"
    RANDOM = "random weights"
    DEFAULTS = DEFAULTS
    PAPER = "the paper's numbers"
    TUNED = "tuned: {}"  # names of settings
    DEVICES = "speeds of {} devices: {}"  # how many, their names
    ATTENTION = "{} attention against an Original of {} attention"
    APART = "records differ in {}"  # what, with its values
    BESIDE = "made with {} {}, its Originals with {}"  # what, ours, theirs
    FLOOR = "= floor"  # the floors of reports/floor.py
    PREVIEW = "= mp4"
    SEED = "= other seed"
    REPEAT_SPEED = "speedup within the spread of the Original run twice"


@dataclass(frozen=True)
class Mark:
    """A kind with the details that its text has places for."""

    kind: Kind
    details: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.kind.value.format(*self.details)


SIGNS = {  # what follows the name of a line, in this order
    Kind.ESTIMATED: "†",
    Kind.DEFAULTS: "†",
    Kind.RANDOM: "‡",
    Kind.PAPER: "§",
    Kind.TUNED: "¶",
}


def signs(marks: Iterable[Mark]) -> str:
    """The signs of some marks.

    >>> signs([Mark(Kind.TUNED, ("decay",)), Mark(Kind.ESTIMATED)])
    '†¶'
    """
    kinds = {mark.kind for mark in marks}
    return "".join(sign for kind, sign in SIGNS.items() if kind in kinds)
