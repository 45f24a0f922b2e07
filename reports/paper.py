"""RESULTS/report/paper.html and tables/table1, table2, table12: the paper's cells, ours, and verdicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from reports import formats, published, tables, verdicts
from reports.metric import BY_NAME, Metric
from reports.page import TEMPLATES
from reports.records import Study, load
from reports.tables import protocol
from reports.text_claims import counts, others
from store import writing

TITLES = {
    "table1": "Table 1: the main comparison",
    "table2": "Table 2: the threshold sweep of SCOPE",
    "table12": "Table 12: fewer steps in the same time",
}
LEGEND = "In each cell ours, and in brackets what the paper prints; a dash is what was not run or not printed."
ODD = (
    "Figure 6 counts 70 decisions for MAGI-1 and 594 for SkyReels-V2. MAGI-1 has 208 forwards and 640 chunk-steps at "
    "this length, SkyReels-V2 200 iterations and 400 forwards; 70 is SkyReels-V2's first segment. No setting gives the "
    "printed totals, so our own are recorded.",
    "The text ranks SCOPE above the reduced-step MAGI-1, yet the 20-step row has the higher SSIM and PSNR.",
    "FlowCache-fast executes fewer FLOPs than SCOPE-fast on SkyReels-V2 (42.56 against 46.45 PFLOP) and takes longer.",
    "TeaCache-slow on MAGI-1 has a VBench total above the Original's (76.94 against 76.65).",
    "On SkyReels-V2 SCOPE-slow of Table 1 is faster than Table 2's first pair and also closer to the Original "
    "(350.12 s, LPIPS 0.1676, PSNR 24.76 against 353.11 s, 0.1723, 23.17), though it should be one of the pairs.",
    "The text says up to 4.73×, yet Table 2 has a row of 5.54×.",
    "SCOPE's first row on MAGI-1 takes 361.83 s in Table 1 and 362.34 s in Table 2.",
    "Of the nine threshold pairs of Table 2 three are stated. The others, and every setting of the rival methods, are "
    "estimated here and marked.",
)


def write(study: Study, frame: pd.DataFrame, report: Path) -> pd.DataFrame:
    """Write the page and the tables under `report`; the verdicts, a line per published row."""
    judged = verdicts.judge(study, frame)
    for name, part in judged.groupby("table", sort=False):
        printed, under = beside(part), [LEGEND, _printed(str(name)), *protocol(study)]
        texts = {
            "csv": part.dropna(axis=1, how="all").to_csv(index=False, float_format="%.6g"),
            "md": "\n\n".join([f"## {TITLES[str(name)]}", formats.pipes(printed), *under]) + "\n",
            "tex": formats.tabular(printed, str(name), " ".join([f"{TITLES[str(name)]}.", *under])),
        }
        for suffix, text in texts.items():
            with writing(report / "tables" / f"{name}.{suffix}") as draft:
                draft.write_text(text, encoding="utf-8")
    with writing(report / "paper.html") as draft:
        draft.write_text(render(judged, study, frame), encoding="utf-8")
    return judged


def beside(part: pd.DataFrame) -> pd.DataFrame:
    """A published table as printed: in each cell ours and, in brackets, the paper's."""
    columns = {"model": part["model"], "row": part["row"]}
    for metric in _columns(part):
        cells = [_cell(line, metric) for _, line in part.iterrows()]
        columns[f"{metric.title} {formats.ARROWS[metric.better]}"] = [
            f"{cell['ours'] or '–'} ({cell['printed'] or '–'})" for cell in cells
        ]
    columns["verdict"] = [
        f"{line['verdict']} ({line['why']})" if line["why"] else line["verdict"] for _, line in part.iterrows()
    ]
    return pd.DataFrame(columns)


def _printed(name: str) -> str:
    """Where the printed numbers of a table are from, and how they were made."""
    source = published.source(name)
    return f"Printed: {source['source']}. Setting: {source['setting']}. Convention: {source['convention']}."


def _columns(part: pd.DataFrame) -> list[Metric]:
    return [metric for metric in BY_NAME.values() if part.get(f"paper_{metric.name}", pd.Series()).notna().any()]


def print_summary(results: Path, console: Any = None) -> None:
    """Print how much of the paper this folder reproduces."""
    study = load(results)
    frame = tables.main(study)
    found = [line for line in counts(study) if line.ours]
    say = console.print if console else print
    say(verdicts.summary(verdicts.judge(study, frame)))
    if found:
        met = sum(line.verdict == "matches" for line in found)
        say(f"Counted without weights: {met} of {len(found)} as published or as the official schedules imply.")


def render(judged: pd.DataFrame, study: Study, frame: pd.DataFrame) -> str:
    """The page as text."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    parts = []
    for name, part in judged.groupby("table", sort=False):
        columns = _columns(part)
        rows = [
            {
                "name": line["row"],
                "model": line["model"],
                "reproduced": line["reproduced"],
                "verdict": line["verdict"],
                "why": line["why"],
                "cells": [_cell(line, m) for m in columns],
            }
            for _, line in part.iterrows()
        ]
        parts.append({"title": TITLES[str(name)], "columns": columns, "rows": rows, "printed": _printed(str(name))})
    tolerances = [
        f"{BY_NAME[name].title} ± " + (f"{100 * amount:.3g} %" if relative else f"{amount:.3g}")
        for name, (amount, relative) in verdicts.TOLERANCE.items()
    ]
    css = jinja2.utils.markupsafe.Markup((TEMPLATES / "page.css").read_text(encoding="utf-8"))
    return environment.get_template("paper.html").render(
        parts=parts,
        others=others(study, frame),
        counts=counts(study),
        odd=ODD,
        elsewhere=_printed("other"),
        summary=verdicts.summary(judged),
        tolerances=tolerances,
        protocol=" ".join(protocol(study)),
        css=css,
    )


def _cell(line: pd.Series, metric: Metric) -> dict[str, str]:
    """A printed number, ours beside it, and the verdict."""
    printed, ours = line.get(f"paper_{metric.name}"), line.get(metric.name)
    if pd.isna(printed):
        return {"printed": "", "ours": "", "verdict": "", "kind": ""}
    verdict = line[f"verdict_{metric.name}"]
    shown = "" if pd.isna(ours) else metric.show(ours)
    return {"printed": metric.show(printed), "ours": shown, "verdict": verdict, "kind": verdict.split(":")[0]}
