"""The layouts of the table that `python -m reports RESULTS table=...` prints as LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

LAYOUTS = ("paper", "full")
NAME = "table="
HELP = (
    "tables, figures and page from the records; "
    "table=paper only prints the main table as LaTeX in the paper's layout (tables/main_paper.tex); "
    "table=full prints the paper's Table 1 with our numbers beside theirs (tables/table1.tex)"
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


def latex(places: Sequence[Path], layout: str) -> str:
    """The table of some results folders in one of `LAYOUTS`.

    Raises:
        StoreError: a folder does not exist.
    """
    from reports import paper, paper_layout, read

    report = read(*places)
    return paper_layout.latex(report) if layout == "paper" else paper.latex(report, "table1")
