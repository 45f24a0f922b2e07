"""A report as data: built once from a store, then written as csv, markdown, LaTeX, HTML and terminal table."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from reports import line, tables, verdicts
from reports.line import Line
from reports.paired import Pair
from reports.records import Study, load
from reports.verdicts import Judged


@dataclass(frozen=True)
class Report:
    """A store, the lines of the main table, their paired differences, and the verdicts on the paper's lines."""

    study: Study
    lines: tuple[Line, ...]
    pairs: tuple[Pair, ...]
    verdicts: tuple[Judged, ...]
    asked: tuple[str, ...] = ()  # groups of optional columns (reports/metric.py) that the tables have

    @cached_property
    def numbers(self) -> pd.DataFrame:
        """The lines as a table for figures (reports/line.py)."""
        return line.numbers(self.lines)

    def by_model(self) -> Iterator[tuple[str, list[Line]]]:
        """The lines of each model."""
        for model in self.study.models:
            yield model, [one for one in self.lines if one.model == model]


def read(*places: str | os.PathLike, into: str | os.PathLike | None = None, asked: tuple[str, ...] = ()) -> Report:
    """Load results folders and bundles, and build one report of them.

    Its files go into `into`; default: the first results folder, else a folder beside the first bundle. `asked`: groups
    of optional columns for its tables.

    Raises:
        StoreError: there is no such folder or bundle, or it is of a newer version.
    """
    return make(load(*map(Path, places), into=None if into is None else Path(into)), asked)


def make(study: Study, asked: tuple[str, ...] = ()) -> Report:
    """The report of a loaded store."""
    lines, pairs = tables.main(study)
    return Report(study, lines, pairs, tuple(verdicts.judge(study, lines)), asked)
