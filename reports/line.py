"""A line of the main table: its videos, numbers, marks and reasons for empty cells."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from reports import marks
from reports.marks import Kind, Mark
from reports.metric import ALSO, BY_NAME, EVERY, METRICS, Metric
from reports.published import PRINTED
from reports.records import CONTROLS, IDENTITY
from reports.statistics import NONE, Estimate

ENDS = ("low", "high")
INTERVALS = "intervals"  # key of `Line.blanks`: why no number has an interval


@dataclass(frozen=True)
class Line:
    """The videos of one model, method, operating point and settings, and their numbers."""

    model: str
    method: str
    speed: str
    variant: str
    name: str  # as printed
    records: pd.DataFrame  # its lines of Study.videos, of every status
    estimates: Mapping[str, Estimate]  # by metric; NaN where there is none
    also: Mapping[str, float]  # `ALSO`
    published: Mapping[str, float]  # by metric; the paper's numbers for this line
    comparable: str  # whether the paper's numbers can be compared with ours, in words
    blanks: Mapping[str, str]  # by metric: why there is no value, or what the value leaves out
    marks: tuple[Mark, ...] = ()
    best: frozenset[str] = frozenset()  # metrics in which it is better than every other accelerated line

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Its `IDENTITY`, unique among lines."""
        return self.model, self.method, self.speed, self.variant

    @property
    def identity(self) -> dict[str, str]:
        return dict(zip(IDENTITY, self.key, strict=True))

    @property
    def valid(self) -> pd.DataFrame:
        """The videos that its numbers are computed from."""
        return self.records[self.records["status"] == "ok"]

    @property
    def changed(self) -> Mapping[str, Any]:
        """The settings that depart from its operating point, by dotted name."""
        return self.records["changed"].iloc[0]

    @property
    def accelerated(self) -> bool:
        return self.method not in CONTROLS

    @property
    def ranked(self) -> bool:
        """Whether it may be compared with other accelerated lines: it has the prompts that they have."""
        return self.accelerated and not self.marked(Kind.PROMPTS)

    @property
    def machine(self) -> str:
        """The devices that its videos were made on; "not recorded" if none is known."""
        return "; ".join(sorted(set(self.records["device"]) - {""})) or "not recorded"

    @property
    def signs(self) -> str:
        return marks.signs(self.marks)

    @property
    def signed(self) -> str:
        """Its name with its signs."""
        return self.name + self.signs

    def value(self, metric: str) -> float:
        """Its number of a metric or of `ALSO`; NaN where there is none."""
        return self.also[metric] if metric in ALSO else self.estimates.get(metric, NONE).value

    def known(self, metric: str) -> bool:
        """Whether it has a number of a metric."""
        return not np.isnan(self.value(metric))

    def marked(self, *kinds: Kind) -> list[Mark]:
        """Its marks of some kinds, in their order."""
        return [mark for mark in self.marks if mark.kind in kinds]

    def counts(self) -> dict[str, int]:
        """Videos that are valid, invalid, failed; and diverged, of the valid."""
        status = self.records["status"]
        found = {"videos": int((status == "ok").sum())}
        found |= {name: int((status == name).sum()) for name in ("invalid", "failed")}
        return found | {"diverged": int(self.valid["diverged"].sum())}

    def reasons(self, asked: Collection[str] = ()) -> list[str]:
        """Its blanks as printed, `LPIPS: not scored yet`; of optional columns only those that are asked for."""
        known = {metric.name: metric for metric in EVERY}
        shown = [name for name in self.blanks if name not in known or known[name].group in ("", *asked)]
        return [f"{known[name].title if name in known else name}: {self.blanks[name]}" for name in shown]


def numbers(lines: Iterable[Line]) -> pd.DataFrame:
    """The lines as a table for figures: identity, counts, and each metric with `_low`, `_high` and `paper_`."""
    ends = [f"{name}_{end}" for name in BY_NAME for end in ENDS]
    paper = [f"paper_{name}" for name in PRINTED]
    columns = [
        *IDENTITY,
        "name",
        "signed",
        "ranked",
        "videos",
        "invalid",
        "failed",
        "diverged",
        *BY_NAME,
        *ends,
        *paper,
        *ALSO,
    ]
    return pd.DataFrame([_numbers(line) for line in lines], columns=columns)


def _numbers(line: Line) -> dict[str, Any]:
    found: dict[str, Any] = {
        **line.identity,
        "name": line.name,
        "signed": line.signed,
        "ranked": line.ranked,
        **line.counts(),
        **line.also,
    }
    for metric in METRICS:
        estimate = line.estimates.get(metric.name, NONE)
        found |= dict(zip((metric.name, *(f"{metric.name}_{end}" for end in ENDS)), estimate, strict=True))
    return found | {f"paper_{name}": value for name, value in line.published.items()}


def status(line: Line) -> str:
    """The numbers of valid, invalid, failed and diverged videos, in words."""
    counts = line.counts()
    diverged = f", diverged {counts['diverged']}" * bool(counts["diverged"])
    return f"{counts['videos']} videos, invalid {counts['invalid']}, failed {counts['failed']}{diverged}"


def shown(line: Line, metric: Metric, interval: bool = False) -> str:
    """A number for print, `1.52× [1.48, 1.56]` with its interval; an en dash if there is none."""
    value, low, high = line.estimates.get(metric.name, NONE)
    if pd.isna(value):
        return "–"
    text = "∞" if np.isinf(value) else metric.show(value)
    ends = [metric.show(low), "∞" if np.isinf(high) else metric.show(high)]
    if not interval or pd.isna(low) or ends == [text, text]:
        return text
    return f"{text} [{', '.join(end.rstrip('×') for end in ends)}]"
