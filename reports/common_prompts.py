"""Lines of one table are compared on common prompts; a line without them is marked, and has no rank.

The common prompts of a model are those of one of its lines: of the candidates the one with the most videos, which is
its number of prompts times the number of lines that have all of them. A sweep that is not finished is so compared on
the prompts that every method has, and one line with few prompts does not take the others away.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from reports.line import Line
from reports.marks import Kind, Mark
from reports.records import Study


def common(study: Study) -> dict[str, frozenset[str]]:
    """The common prompts of the lines of each model."""
    return {model: _of(sorted(_sets(study, model), key=sorted)) for model in study.models}


def restricted(records: pd.DataFrame, prompts: frozenset[str]) -> pd.DataFrame:
    """The videos of a line with the common prompts; all of them, if it lacks one of these."""
    return records[records["prompt"].isin(prompts)] if prompts <= set(records["prompt"]) else records


def marks(records: pd.DataFrame, prompts: frozenset[str]) -> list[Mark]:
    """A mark if a line lacks one of the common prompts."""
    own = set(records["prompt"])
    return [] if prompts <= own else [Mark(Kind.PROMPTS, (f"{len(own & prompts)} of {len(prompts)}",))]


def notes(study: Study, lines: Sequence[Line]) -> list[str]:
    """What was left out of the numbers, and which lines have no rank."""
    found, prompts = [], common(study)
    for model in study.models:
        most = max(map(len, _sets(study, model)), default=0)
        if most > len(prompts[model]):
            found.append(
                f"On {model} lines are compared on their {len(prompts[model])} common prompts; of lines with more, up "
                f"to {most}, the others are left out."
            )
    found += [
        f"{line.name} on {line.model}: {mark}; it is compared with no other line."
        for line in lines
        for mark in line.marked(Kind.PROMPTS)
    ]
    return found


def _sets(study: Study, model: str) -> Iterator[frozenset[str]]:
    """The prompts of each line of a model."""
    return (frozenset(records["prompt"]) for _, records in study.lines(model))


def _of(sets: Sequence[frozenset[str]]) -> frozenset[str]:
    """The set with the most videos in common.

    >>> sorted(_of([frozenset("abc"), frozenset("abc"), frozenset("a")]))
    ['a', 'b', 'c']
    >>> sorted(_of([frozenset("abcd"), frozenset("abc")]))
    ['a', 'b', 'c']
    """
    return max(sets, key=lambda one: (len(one) * sum(one <= other for other in sets), len(one)), default=frozenset())
