"""The layouts of the table that `python -m reports RESULTS table=...` prints as LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

LAYOUTS = ("paper", "full")
GROUPS = ("streaming", "drift")  # of optional columns, as in reports/metric.py, which imports much more
NAME = "table="
COLUMNS = "columns="
HELP = (
    "tables, figures and page from the records; "
    "table=paper only prints the main table as LaTeX in the paper's layout (tables/main_paper.tex); "
    "table=full prints the paper's Table 1 with our numbers beside theirs (tables/table1.tex); "
    "columns=streaming,drift adds these columns to the tables (docs/measuring.md)"
)


def asked(words: Sequence[str]) -> tuple[str, list[str]]:
    """The layout that a command line names, or none, and its other words.

    Raises:
        ValueError: there is no such layout, or two are named.

    >>> asked(["results", "table=paper"])
    ('paper', ['results'])
    """
    named = [word.removeprefix(NAME) for word in words if word.startswith(NAME)]
    if len(named) > 1 or not set(named) <= set(LAYOUTS):
        given = " ".join(NAME + name for name in named)
        raise ValueError(f"{given}: give one of {', '.join(NAME + name for name in LAYOUTS)}")
    return (named or [""])[0], [word for word in words if not word.startswith(NAME)]


def groups(words: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """The groups of optional columns that a command line names, and its other words.

    Raises:
        ValueError: there is no such group.

    >>> groups(["results", "columns=streaming,drift"])
    (('streaming', 'drift'), ['results'])
    """
    given = [word.removeprefix(COLUMNS).split(",") for word in words if word.startswith(COLUMNS)]
    named = tuple(dict.fromkeys(name for names in given for name in names))
    wrong = [name for name in named if name not in GROUPS]
    if wrong:
        raise ValueError(f"columns={wrong[0]} is unknown; give {COLUMNS}NAME,... with names of {', '.join(GROUPS)}")
    return named, [word for word in words if not word.startswith(COLUMNS)]


def latex(places: Sequence[Path], layout: str) -> str:
    """The table of some results folders in one of `LAYOUTS`.

    Raises:
        StoreError: a folder does not exist.
    """
    from reports import paper, paper_layout, read

    report = read(*places)
    return paper_layout.latex(report) if layout == "paper" else paper.latex(report, "table1")
