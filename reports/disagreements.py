"""tables/published_disagreements: where papers print different numbers for the same method on the same model.

The numbers of other papers are in published/elsewhere.csv; SCOPE's are in published/table1.csv. No paper's number is
proof against another's: settings, prompts and GPUs differ. The notes under the table name them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from reports import formats, published
from reports.metric import BY_NAME
from store import writing

NAME = "published_disagreements"
TITLE = "Papers that print different numbers for the same method on the same model"
LEGEND = (
    "A dash means not printed. The last column divides the largest number by the smallest; PSNR and VBench have their "
    "difference instead. None of these numbers is independent proof, because the settings differ."
)
OURS = "SCOPE"  # the paper of table1
DIFFERENCES = ("vbench", "psnr")  # compared by difference: a ratio of dB or of percent has no meaning


def table() -> pd.DataFrame:
    """A line per model, method and metric that at least two papers report, and differently.

    Columns: model, row, metric, a text per paper ("" where it prints nothing), `apart` (the largest number over the
    smallest, or their difference for `DIFFERENCES`; NaN if only one paper has a number).
    """
    papers = [OURS, *dict.fromkeys(line["paper"] for line in published.table("elsewhere").to_dict("records"))]
    lines = []
    for model, name, metric, printed in _cells():
        told = [text for text in printed.values() if text]
        if len(told) > 1 and len(set(map(_comparable, told))) > 1:
            line = {"model": model, "row": name, "metric": metric}
            line |= {paper: printed.get(paper, "") for paper in papers}
            lines.append(line | {"apart": _apart(metric, told)})
    return pd.DataFrame(lines, columns=["model", "row", "metric", *papers, "apart"])


def write(folder: Path) -> list[Path]:
    """Write the table into `folder` as csv (with settings and sources), markdown and LaTeX."""
    found, under = table(), [f"{TITLE}.", LEGEND, *notes()]
    shown = _display(found)
    with_sources = found.assign(
        settings=[_told(line, "setting") for line in found.to_dict("records")],
        sources=[_told(line, "source") for line in found.to_dict("records")],
    )
    texts = {
        "csv": with_sources.to_csv(index=False, float_format="%.6g"),
        "md": "\n\n".join([f"## {TITLE}", formats.pipes(shown), *under[1:]]) + "\n",
        "tex": formats.tabular(shown, NAME, " ".join(under), left=3),
    }
    for suffix, text in texts.items():
        with writing(folder / f"{NAME}.{suffix}") as draft:
            draft.write_text(text, encoding="utf-8")
    return [folder / f"{NAME}.{suffix}" for suffix in texts]


def notes() -> list[str]:
    """The source, setting and convention of each paper, one line each."""
    found = []
    for paper in (column for column in table().columns if column not in ("model", "row", "metric", "apart")):
        source = published.source(_source(paper))
        found.append(f"{paper}: {source['source']}. Setting: {source['setting']}. Convention: {source['convention']}.")
    return found


def _cells() -> Iterator[tuple[str, str, str, dict[str, str]]]:
    """(model, row, metric, text by paper) of every cell of Table 1 that another paper has an entry for.

    An entry without an operating point stands beside every point of its method.
    """
    elsewhere = published.table("elsewhere").to_dict("records")
    for ours in published.table("table1").to_dict("records"):
        model, name = ours["model"], ours["method"]
        others = [o for o in elsewhere if o["model"] == model and f"{name}-".startswith(f"{o['method']}-")]
        for theirs, metric in published.COLUMNS.items():
            printed = {OURS: ours[theirs]} | {o["paper"]: str(o.get(theirs, "")) for o in others}
            if metric == "speedup":
                printed |= {o["paper"]: o["outcome"] for o in others if o["outcome"]}
            if any(text for paper, text in printed.items() if paper != OURS):
                yield model, name, metric, printed


def _comparable(text: str) -> float | str:
    """The number of a text, so that 6.7 and 6.70 are equal; the text itself if it is no number."""
    try:
        return float(text)
    except ValueError:
        return text


def _apart(metric: str, told: list[str]) -> float:
    numbers = [value for value in map(_comparable, told) if isinstance(value, float)]
    if len(numbers) < 2:
        return float("nan")
    most, least = max(numbers), min(numbers)
    return most - least if metric in DIFFERENCES else most / least


def _display(found: pd.DataFrame) -> pd.DataFrame:
    """The table for print: titles of metrics, dashes, and `apart` with × or as a difference."""
    shown = found.astype(object).replace("", "–")
    shown["metric"] = [BY_NAME[name].title for name in found["metric"]]
    shown["apart"] = [
        "–" if pd.isna(value) else f"{value:.2f}" + "×" * (metric not in DIFFERENCES)
        for metric, value in zip(found["metric"], found["apart"], strict=True)
    ]
    return shown


def _told(line: dict[str, Any], what: str) -> str:
    """The settings or sources of the papers that print something in a line."""
    papers = [name for name in line if name not in ("model", "row", "metric", "apart") and line[name]]
    return "; ".join(f"{paper}: {published.source(_source(paper))[what]}" for paper in papers)


def _source(paper: str) -> str:
    return "table1" if paper == OURS else paper
