"""Marks of a line of the main table: limits of its numbers that a reader must know."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

DEFAULTS = "default settings, not the paper's point"


class Kind(Enum):
    """The kinds of marks; the value is the printed text, with a place for each detail."""

    ESTIMATED = "estimated point"
    RANDOM = "random weights"
    DEFAULTS = DEFAULTS
    PAPER = "the paper's numbers"
    TUNED = "tuned: {}"  # names of settings
    DEVICES = "speeds of {} devices: {}"  # how many, their names
    ATTENTION = "{} attention against an Original of {} attention"
    APART = "records differ in {}"  # what, with its values
    BESIDE = "made with {} {}, its Originals with {}"  # what, ours, theirs
    ACROSS = "made with {} {}, other lines with {}"  # what, ours, theirs; reports/across.py
    PROMPTS = "has {} of the prompts that other lines have"  # reports/common_prompts.py
    REPEAT = "= repeat"  # reports/reference_lines.py
    PREVIEW = "= mp4"
    SEED = "= other seed"
    REPEAT_SPEED = "speedup within the spread of the Original run twice"


@dataclass(frozen=True)
class Mark:
    """A kind, and the details that fill the places in its text."""

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
    Kind.PROMPTS: "◊",
}


def signs(marks: Iterable[Mark]) -> str:
    """The signs of some marks.

    >>> signs([Mark(Kind.TUNED, ("decay",)), Mark(Kind.ESTIMATED)])
    '†¶'
    """
    kinds = {mark.kind for mark in marks}
    return "".join(sign for kind, sign in SIGNS.items() if kind in kinds)
