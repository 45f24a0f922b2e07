"""The FLOPs speedup of every method at equal PSNR, as tables: csv, markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from reports.formats import pipes, tabular
from reports.frontier import LEVELS, Curve, Panel, of_the_model, panels, reading
from reports.line import Line
from reports.report import Report
from reports.statistics import LEVEL
from store import writing

TITLE = "FLOPs speedup at equal PSNR"
LEGEND = (
    f"Interpolated between settings of a method; brackets: {100 * LEVEL:.0f} % bootstrap interval over prompts. "
    "< and >: all settings of the method are below, or above, this PSNR at the given speedup."
)


def table(found: Sequence[Curve]) -> pd.DataFrame:
    """A line per curve, the fastest at the middle levels first: its name, how many settings, a speedup per level.

    A curve that does not reach a level counts there as the Original.
    """
    lines = []
    for curve in found:
        read = {f"{level:g} dB": reading(curve, level) for level in LEVELS}
        place = sum(np.log(one.value) for one in list(read.values())[1:3] if one.bound != "<")
        told = {name: str(one) for name, one in read.items()}
        lines.append((place, {"method": curve.name, "settings": curve.psnr.shape[1], **told}))
    return pd.DataFrame([line for _, line in sorted(lines, key=lambda pair: -pair[0])])


def write(report: Report, folder: Path) -> None:
    """Write a table as csv, markdown and LaTeX for every panel with two curves."""
    for panel in panels(report):
        found = panel.curves
        if len(found) < 2:
            continue
        under = [f"{TITLE}, {panel.name}, {len(found[0].psnr)} prompts.", LEGEND, *left_out(panel)]
        numbers = pd.DataFrame([
            {"curve": curve.name, "flops_speedup": speedup, "psnr": psnr}
            for curve in found
            for speedup, psnr in curve.points
        ])  # fmt: skip
        shown, name = table(found), f"{panel.kind}_{panel.model}"
        texts = {
            "csv": numbers.to_csv(index=False, float_format="%.6g"),
            "md": "\n\n".join([f"## {under[0]}", pipes(shown), *under[1:]]) + "\n",
            "tex": tabular(shown.assign(model=panel.model)[["model", *shown]], name, " ".join(under), left=2),
        }
        for suffix, text in texts.items():
            with writing(folder / f"{name}.{suffix}") as draft:
                draft.write_text(text, encoding="utf-8")


def left_out(panel: Panel) -> list[str]:
    """A sentence about the lines on no curve, if there are any."""
    most = len(panel.curves[0].psnr) if panel.curves else 0
    named = [f"{short_name(line)} ({count} of {most})" for line, count in panel.partial]
    why = "On no curve, since videos are missing, not scored or equal to the Original"
    return [f"{why}: {', '.join(named)}."] if named else []


def short_name(line: Line) -> str:
    """The name of a line without the settings of the model, which the whole panel shares."""
    shared = {f"{name.rpartition('.')[2]}={value}" for name, value in of_the_model(line)}
    own = ", ".join(part for part in line.variant.split(", ") if part not in shared)
    return line.name.replace(f" ({line.variant})", f" ({own})" if own else "")
