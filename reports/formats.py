"""Tables as csv for computing, as markdown for reading, and as LaTeX (booktabs) for a paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from reports import reference_lines
from reports.line import ENDS, Line, numbers, shown, status
from reports.metric import ALSO, BY_NAME, METRICS, OPTIONAL, Metric, chosen
from reports.notes import CONVENTIONS, blanks, notes, protocol
from reports.paired import Pair
from reports.published import PRINTED
from reports.report import Report
from store import writing

FITTED = "\\resizebox{\\ifdim\\width>\\textwidth\\textwidth\\else\\width\\fi}{!}"  # at most as wide as the page
ARROWS = {"higher": "↑", "lower": "↓"}


def write(report: Report, folder: Path, name: str = "main") -> list[Path]:
    """Write `name`.csv, .md and .tex into `folder`; the same report gives the same bytes.

    Also `name`_paired.csv (reports/paired.py) and `name`_protocol.txt, the notes that a csv cannot hold.
    """
    texts = {
        f"{name}.csv": table(report).to_csv(index=False, float_format="%.6g"),
        f"{name}.md": markdown(report),
        f"{name}.tex": latex(report),
        f"{name}_paired.csv": differences(report.pairs).to_csv(index=False, float_format="%.6g"),
        f"{name}_protocol.txt": "\n".join([*protocol(report.study), *CONVENTIONS]) + "\n",
    }
    for file, text in texts.items():
        with writing(folder / file) as draft:
            draft.write_text(text, encoding="utf-8")
    return [folder / file for file in texts]


def table(report: Report) -> pd.DataFrame:
    """The main table for the csv: the numbers of the lines, and as text their counts, marks and reasons for blanks."""
    found = numbers(report.lines).assign(
        status=[status(line) for line in report.lines],
        paper_comparable=[line.comparable for line in report.lines],
        marks=["; ".join(map(str, line.marks)) for line in report.lines],
        missing=["; ".join(line.reasons(OPTIONAL)) for line in report.lines],
        best=["; ".join(metric.name for metric in METRICS if metric.name in line.best) for line in report.lines],
        machine=[line.machine for line in report.lines],
    )
    ends = [f"{metric}_{end}" for metric in BY_NAME for end in ENDS]
    paper = [*(f"paper_{metric}" for metric in PRINTED), "paper_comparable"]
    who, counts = ["model", "method", "speed"], ["invalid", "failed", "diverged"]
    texts = ["name", "variant", "marks", "missing", "best", "machine"]
    return found[[*who, "videos", *BY_NAME, "status", *ends, *paper, *ALSO, *counts, *texts]]


def differences(pairs: Sequence[Pair]) -> pd.DataFrame:
    """The paired differences for the csv."""
    columns = {
        "model": [pair.model for pair in pairs],
        "metric": [pair.metric.name for pair in pairs],
        "row": [pair.first.name for pair in pairs],
        "against": [pair.other.name for pair in pairs],
        "pairs": [pair.pairs for pair in pairs],
        "prompts": [pair.prompts for pair in pairs],
        "difference": [pair.difference.value for pair in pairs],
        "difference_low": [pair.difference.low for pair in pairs],
        "difference_high": [pair.difference.high for pair in pairs],
        "verdict": [pair.finding.value for pair in pairs],
        "videos_needed": [pair.videos_needed for pair in pairs],
    }
    return pd.DataFrame(columns)


def markdown(report: Report) -> str:
    """A table per model with intervals, the published values under it, then the notes and the reasons for blanks."""
    parts = []
    for model, lines in report.by_model():
        parts += [f"## {model}", pipes(_display(report, lines, "**{}**".format, interval=True))]
        if any(line.published for line in lines):
            parts.append(pipes(_published([line for line in lines if line.published])))
    return "\n\n".join([*parts, *notes(report), *blanks(report)]) + "\n"


def _published(lines: Sequence[Line]) -> pd.DataFrame:
    """The paper's numbers for some lines."""
    printed = {"published": [line.name for line in lines]}
    for metric in METRICS:
        values = [line.published.get(metric.name) for line in lines]
        if any(value is not None for value in values):
            printed[_title(metric)] = ["–" if value is None else metric.show(value) for value in values]
    return pd.DataFrame(printed | {"comparable": [line.comparable for line in lines]})


def latex(report: Report) -> str:
    """A booktabs table of all models, the best values bold, arrows for what is better."""
    blocks = {model: _display(report, lines, "\\textbf{{{}}}".format, latex=True) for model, lines in report.by_model()}
    if not blocks:
        return "% no record to report\n"
    table = pd.concat(blocks).fillna("--").reset_index(level=0, names="model")
    table["model"] = table["model"].map(escape)
    return tabular(table, "main", " ".join(notes(report)), escaped=True)


def tabular(table: pd.DataFrame, label: str, caption: str, left: int = 2, escaped: bool = False) -> str:
    """A booktabs table across both columns of the page, scaled down if it is wider than the page (graphicx).

    There is a rule between models, and each model is named once. The first `left` columns are flush left.
    """
    text = table.rename(columns=escape)
    text = text if escaped else text.astype(str).map(escape)
    first = ~text["model"].duplicated()
    text["model"] = text["model"].where(first, "")
    styler = text.style.hide(axis="index")
    columns = "l" * left + "r" * (table.shape[1] - left)
    made = styler.to_latex(
        hrules=True,
        column_format=columns,
        position="t",
        caption=escape(caption),
        position_float="centering",
        label=f"tab:{label}",
    )
    made = made.replace("{table}", "{table*}").replace("\\begin{tabular}", f"\\small\n{FITTED}{{\\begin{{tabular}}")
    head, body = made.replace("\\end{tabular}", "\\end{tabular}}").split("\\midrule\n")
    lines = body.splitlines()
    ruled = [f"\\midrule\n{line}" if n and n < len(first) and first.iloc[n] else line for n, line in enumerate(lines)]
    return "\n".join([head + "\\midrule", *ruled]) + "\n"


def _display(
    report: Report, lines: Sequence[Line], bold: Callable[[str], str], interval: bool = False, latex: bool = False
) -> pd.DataFrame:
    """Some lines for print: name, counts of videos, every metric with a value, and the reference line they reach."""
    text = escape if latex else str
    counts = [line.counts() for line in lines]
    shown_counts = [kind for kind in ("failed", "diverged") if any(line.counts()[kind] for line in report.lines)]
    columns: dict[str, list] = {"method": [text(line.signed) for line in lines]}
    columns |= {"machine": [text(line.machine) for line in lines]} if report.study.several else {}
    columns |= {kind: [count[kind] for count in counts] for kind in ("videos", "invalid", *shown_counts)}
    for metric in chosen(report.asked):
        if any(line.known(metric.name) for line in lines):
            cells = [(line, text(shown(line, metric, interval))) for line in lines]
            columns[_title(metric)] = [bold(cell) if metric.name in line.best else cell for line, cell in cells]
    reached = [reference_lines.reached(line) for line in lines]
    return pd.DataFrame(columns | ({"note": reached} if any(reached) else {}))


def _title(metric: Metric) -> str:
    return f"{metric.title} {ARROWS[metric.better]}"


def pipes(table: pd.DataFrame) -> str:
    """A table as markdown, text to the left and numbers to the right."""
    texts = table.astype(str).map(lambda cell: cell.replace("|", "\\|"))
    aligns = ["left", *["right"] * (texts.shape[1] - 1)]
    return texts.to_markdown(index=False, disable_numparse=True, colalign=aligns)


_LATEX = {
    "&": "\\&",
    "%": "\\%",
    "$": "\\$",
    "#": "\\#",
    "_": "\\_",
    "{": "\\{",
    "}": "\\}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "\\": "\\textbackslash{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "Δ": "$\\Delta$",
    "×": "$\\times$",
    "↑": "$\\uparrow$",
    "↓": "$\\downarrow$",
    "–": "--",
    "∞": "$\\infty$",
    "†": "$^\\dagger$",
    "‡": "$^\\ddagger$",
    "§": "\\S{}",
    "¶": "\\P{}",
    "◊": "$^\\diamond$",
    "⁹": "$^9$",
}


def escape(text: str) -> str:
    """Text escaped for LaTeX; a letter outside ASCII without a command becomes `?`."""
    return "".join(_LATEX.get(letter, letter if letter.isascii() else "?") for letter in text)
