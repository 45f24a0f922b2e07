"""A table as csv to compute with, as markdown to read, as LaTeX (booktabs) to paste."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from reports import floor, paired
from reports.metric import METRICS, Metric
from reports.records import Study
from reports.tables import CONVENTIONS, best, blanks, dagger, notes, protocol, shown
from store import writing

FITTED = "\\resizebox{\\ifdim\\width>\\textwidth\\textwidth\\else\\width\\fi}{!}"  # as wide as the page at the most
ARROWS = {"higher": "↑", "lower": "↓"}


def write(study: Study, frame: pd.DataFrame, folder: Path, name: str = "main") -> list[Path]:
    """Write `name`.csv, .md and .tex into `folder`; the same frame gives the same bytes.

    Beside them `name`_paired.csv (reports/paired.py), and `name`_protocol.txt: what a csv has no footer for.
    """
    pairs = paired.compare(study, frame, METRICS)
    texts = {
        f"{name}.csv": frame.to_csv(index=False, float_format="%.6g"),
        f"{name}.md": markdown(study, frame),
        f"{name}.tex": latex(study, frame),
        f"{name}_paired.csv": pairs.to_csv(index=False, float_format="%.6g"),
        f"{name}_protocol.txt": "\n".join([*protocol(study), *CONVENTIONS]) + "\n",
    }
    for file, text in texts.items():
        with writing(folder / file) as draft:
            draft.write_text(text, encoding="utf-8")
    return [folder / file for file in texts]


def markdown(study: Study, frame: pd.DataFrame) -> str:
    """A table per model with intervals, the published values under it, then the notes and the reasons for blanks."""
    parts = []
    for model, rows in frame.groupby("model", sort=False):
        ours = _display(frame, rows, "**{}**".format, interval=True)
        parts += [f"## {model}", pipes(ours)]
        paper = rows[[f"paper_{m.name}" for m in METRICS]].dropna(how="all")
        if len(paper):
            printed = {"published": rows["name"][paper.index]}
            printed |= {
                _title(m): [m.show(v) if pd.notna(v) else "–" for v in paper[f"paper_{m.name}"]]
                for m in METRICS
                if paper[f"paper_{m.name}"].notna().any()
            }
            printed["comparable"] = rows["paper_comparable"][paper.index]
            parts.append(pipes(pd.DataFrame(printed)))
    return "\n\n".join([*parts, *notes(study, frame), *blanks(frame)]) + "\n"


def latex(study: Study, frame: pd.DataFrame) -> str:
    """A booktabs table of all models, the best values bold, arrows for what is better."""
    blocks = {
        model: _display(frame, rows, "\\textbf{{{}}}".format, latex=True)
        for model, rows in frame.groupby("model", sort=False)
    }
    if not blocks:
        return "% no record to report\n"
    table = pd.concat(blocks).fillna("--").reset_index(level=0, names="model")
    table["model"] = table["model"].map(escape)
    return tabular(table, "main", " ".join(notes(study, frame)), escaped=True)


def tabular(table: pd.DataFrame, label: str, caption: str, left: int = 2, escaped: bool = False) -> str:
    """A booktabs table that floats across both columns, made smaller if wider than the page (graphicx).

    A rule between models, each named once; the first `left` columns flush left.
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
    frame: pd.DataFrame, rows: pd.DataFrame, bold, interval: bool = False, latex: bool = False
) -> pd.DataFrame:
    """What is printed of some rows: name, counts of videos, every metric with a value, the marks."""
    text = escape if latex else str
    columns = {
        "method": [text(line["name"] + dagger(line)) for _, line in rows.iterrows()],
        "videos": rows["videos"],
        "invalid": rows["invalid"],
    } | {kind: rows[kind] for kind in ("failed", "diverged") if frame[kind].any()}
    for metric in METRICS:
        if rows[metric.name].notna().any():
            top = best(frame, metric)
            cells = {n: text(shown(line, metric, interval)) for n, line in rows.iterrows()}
            columns[_title(metric)] = [bold(cell) if n in top else cell for n, cell in cells.items()]
    reached = [floor.shown(marks) for marks in rows["marks"]]
    return pd.DataFrame(columns | ({"note": reached} if any(reached) else {}), index=rows.index)


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
    "⁹": "$^9$",
}


def escape(text: str) -> str:
    """Text as LaTeX prints it; a letter outside of ASCII that has no command becomes `?`."""
    return "".join(_LATEX.get(letter, letter if letter.isascii() else "?") for letter in text)
