"""The best and the second best accelerated line of a table in each metric, by the values as they are printed."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from reports import paired
from reports.line import Line, shown
from reports.marks import Kind
from reports.metric import METRICS, Metric
from reports.paired import Finding

TIMED = ("time_s", "speedup")


class Rank(Enum):
    BEST = 1
    SECOND = 2


Ranks = dict[tuple[tuple[str, ...], str], Rank]  # by key of the line and metric


def places(lines: Sequence[Line]) -> Ranks:
    """The best two of some lines of one model; equal as printed, they share a rank.

    Only lines that the paired comparison takes have a rank, and an only line has none. There is no second of two, since
    it would be the worst. A time within the spread of the Original run twice has no rank.
    """
    compared = {line.key for pair in paired.compare(lines, METRICS) for line in (pair.first, pair.other)}
    found: Ranks = {}
    for metric in METRICS:
        known = [line for line in lines if line.key in compared and _may(line, metric)]
        ranked = sorted(known, key=lambda line: line.value(metric.name), reverse=metric.better == "higher")
        texts = list(dict.fromkeys(shown(line, metric) for line in ranked))
        ranks = {1: [], 2: [Rank.BEST]}.get(len(texts), list(Rank))
        for rank, text in zip(ranks, texts, strict=False):
            found |= {(line.key, metric.name): rank for line in known if shown(line, metric) == text}
    return found


def undecided(lines: Sequence[Line], metrics: Sequence[str]) -> list[Metric]:
    """The metrics in which the best of some lines of one model is not significantly better than every other.

    VBench's total has no interval, so it is always among them where two lines have one.
    """
    pairs = paired.compare(lines, METRICS)
    weak = {pair.metric.name for pair in pairs if pair.finding is not Finding.BETTER}
    weak |= {
        metric.name for metric in METRICS if not metric.source and sum(line.known(metric.name) for line in lines) > 1
    }
    return [metric for metric in METRICS if metric.name in metrics and metric.name in weak]


def _may(line: Line, metric: Metric) -> bool:
    return line.known(metric.name) and not (metric.name in TIMED and line.marked(Kind.REPEAT_SPEED))
