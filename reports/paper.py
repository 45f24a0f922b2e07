"""RESULTS/report/paper.html and tables/table1.csv, table2.csv, table12.csv: the paper's cells, ours, and verdicts."""

from __future__ import annotations

from pathlib import Path

import jinja2
import pandas as pd

from reports import published, verdicts
from reports.page import TEMPLATES
from reports.records import Study
from reports.tables import BY_NAME, Metric
from store import writing

TITLES = {
    "table1": "Table 1: the main comparison",
    "table2": "Table 2: the threshold sweep of SCOPE",
    "table12": "Table 12: fewer steps in the same time",
}
OTHER = {  # the numbers that the paper gives in figures and text
    "peak_mem_short_skyreels_original_GB": "SkyReels-V2, 257 frames, Original: peak memory (GB)",
    "peak_mem_short_skyreels_scope_GB": "SkyReels-V2, 257 frames, SCOPE: peak memory (GB)",
    "peak_mem_short_magi_original_GB": "MAGI-1, 240 frames, Original: peak memory (GB)",
    "peak_mem_short_magi_scope_GB": "MAGI-1, 240 frames, SCOPE: peak memory (GB)",
    "peak_mem_long_skyreels_range_GB": "SkyReels-V2, long videos: peak memory (GB)",
    "peak_mem_long_magi_range_GB": "MAGI-1, long videos: peak memory (GB)",
    "lpips_skyreels_fast_with_selective": "SCOPE-fast on SkyReels-V2 with selective computation: LPIPS",
    "lpips_skyreels_fast_without_selective": "SCOPE-fast on SkyReels-V2 without it: LPIPS",
    "fig2_mean_abs_dev_reduction_pct": "Prediction against reuse, Figure 2: mean absolute deviation lower by (%)",
    "fig6_totals": "Decisions in Figure 6 (MAGI-1; SkyReels-V2)",
    "predictor_lpips_spread_skyreels": "Predictors on SkyReels-V2: spread of LPIPS",
}
ODD = (
    "Figure 6 counts 70 decisions for MAGI-1 and 594 for SkyReels-V2. MAGI-1 has 208 forwards and 640 chunk-steps at "
    "this length, SkyReels-V2 200 iterations and 400 forwards; 70 is SkyReels-V2's first segment. No setting gives the "
    "printed totals, so our own are recorded.",
    "The text ranks SCOPE above the reduced-step MAGI-1, yet the 20-step row has the higher SSIM and PSNR.",
    "FlowCache-fast executes fewer FLOPs than SCOPE-fast on SkyReels-V2 (42.56 against 46.45 PFLOP) and takes longer.",
    "TeaCache-slow on MAGI-1 has a VBench total above the Original's (76.94 against 76.65).",
    "SCOPE's first row on MAGI-1 takes 361.83 s in Table 1 and 362.34 s in Table 2.",
    "Of the nine threshold pairs of Table 2 three are stated. The others, and every setting of the rival methods, are "
    "estimated here and marked.",
)


def write(study: Study, frame: pd.DataFrame, report: Path) -> pd.DataFrame:
    """Write the page and the tables under `report`; the verdicts, a line per published row."""
    judged = verdicts.judge(study, frame)
    for name, part in judged.groupby("table", sort=False):
        with writing(report / "tables" / f"{name}.csv") as draft:
            draft.write_text(part.dropna(axis=1, how="all").to_csv(index=False, float_format="%.6g"), encoding="utf-8")
    with writing(report / "paper.html") as draft:
        draft.write_text(render(judged), encoding="utf-8")
    return judged


def render(judged: pd.DataFrame) -> str:
    """The page as text."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True,
                                     lstrip_blocks=True, undefined=jinja2.StrictUndefined)  # fmt: skip
    parts = []
    for name, part in judged.groupby("table", sort=False):
        columns = [metric for metric in BY_NAME.values() if part.get(f"paper_{metric.name}", pd.Series()).notna().any()]
        rows = [{"name": line["row"], "model": line["model"], "reproduced": line["reproduced"],
                 "verdict": line["verdict"], "why": line["why"], "cells": [_cell(line, m) for m in columns]}
                for _, line in part.iterrows()]  # fmt: skip
        parts.append({"title": TITLES[str(name)], "columns": columns, "rows": rows})
    other = [(OTHER[line["key"]], line["value"]) for line in published.table("other").to_dict("records")]
    tolerances = [f"{BY_NAME[name].title} ± {amount:.3g}{' of the printed value' if relative else ''}"
                  for name, (amount, relative) in verdicts.TOLERANCE.items()]  # fmt: skip
    css = jinja2.utils.markupsafe.Markup((TEMPLATES / "page.css").read_text(encoding="utf-8"))
    return environment.get_template("paper.html").render(
        parts=parts, other=other, odd=ODD, summary=verdicts.summary(judged), tolerances=tolerances, css=css
    )


def _cell(line: pd.Series, metric: Metric) -> dict[str, str]:
    """A printed number, ours beside it, and the verdict."""
    printed, ours = line.get(f"paper_{metric.name}"), line.get(metric.name)
    if pd.isna(printed):
        return {"printed": "", "ours": "", "verdict": "", "kind": ""}
    verdict = line[f"verdict_{metric.name}"]
    shown = "" if pd.isna(ours) else metric.show(ours)
    return {"printed": metric.show(printed), "ours": shown, "verdict": verdict, "kind": verdict.split(":")[0]}
