"""Figure 2: at skipped steps, the velocity that reuse and prediction return, compared with the computed one."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports import style
from reports.records import MODELS
from reports.statistics import band

INK = {"truth": style.INK, "reuse": "#0072b2", "taylor1": "#cc79a7", "newton2": "#d55e00"}
TITLES = {"truth": "computed", "reuse": "reuse", "taylor1": "prediction, order 1", "newton2": "prediction, order 2"}
DASHES: dict[str, Any] = {"truth": "-", "reuse": (0, (1, 1.2)), "taylor1": (0, (5, 1.5)), "newton2": "-"}
SKIPPED = 5  # steps since the last forward of the right panel: SCOPE's longest run, the hardest case


def measured(root: Any) -> list[dict[str, Any]]:
    """The results of `task=trajectory`, one mapping per model, in the order of the tables."""
    found = [json.loads(path.read_text()) for path in sorted((root / "trajectory").glob("*/original.json"))]
    return sorted(found, key=lambda part: MODELS.index(part["model"]) if part["model"] in MODELS else len(MODELS))


def saving(found: dict[str, Any], name: str) -> float:
    """Relative reduction of the mean absolute deviation by prediction, against reuse, over a frame's last steps."""
    sums = {kind: sum(sum(video["course"]["deviation"][kind]) for video in found["videos"]) for kind in ("reuse", name)}
    return 1 - sums[name] / sums["reuse"] if sums["reuse"] else float("nan")


def figure(found: list[dict[str, Any]]) -> Figure | None:
    """Two panels per model: the velocity over the last steps of one frame, and the error over the noise level."""
    if not found:
        return None
    with rc_context(style.SETTINGS):
        drawn = Figure((9.4, 3.3 * len(found)))
        for (left, right), part in zip(drawn.subplots(len(found), 2, squeeze=False), found, strict=True):
            _course(left, part)
            _errors(right, part)
    return drawn


def _course(axes: Axes, found: dict[str, Any]) -> None:
    """Root mean square of the velocity over consecutive skipped steps."""
    courses = [video["course"] for video in found["videos"]]
    steps = np.array(courses[0]["step"]) + 1
    ends = []
    for name in ("truth", *found["stand_ins"]):
        middle, low, high = band(np.array([course[name] for course in courses], float))
        axes.plot(steps, middle, color=INK[name], ls=DASHES[name], marker="o", ms=3)
        axes.fill_between(steps, low, high, color=INK[name], alpha=0.13, lw=0)
        ends.append((float(middle[-1]), TITLES[name], INK[name]))
    axes.set(
        xlabel=f"step of frame {found['slot']}",
        ylabel="velocity, root mean square",
        title=f"{found['model']}: one run of skipped steps",
    )
    axes.set_xticks(steps)
    axes.margins(x=0)
    style.lay_out(axes.figure)
    style.label_lines(axes, ends, x=float(steps[-1]))


def _errors(axes: Axes, found: dict[str, Any]) -> None:
    """Relative error of reuse and prediction, five steps after the last forward, over the noise level."""
    levels = np.array(found["levels"])
    ends, least = [], float("inf")
    for name in found["stand_ins"]:
        curves = np.array([video["errors"][name][SKIPPED - 1] for video in found["videos"]], float)
        known = np.isfinite(curves).all(0)
        middle, low, high = band(curves[:, known])
        axes.plot(levels[known], middle, color=INK[name], ls=DASHES[name])
        axes.fill_between(levels[known], low, high, color=INK[name], alpha=0.15, lw=0)
        ends.append((float(middle[-1]), TITLES[name], INK[name]))
        least = min(least, middle[middle > 0].min(initial=float("inf")))
    axes.set_yscale("log", nonpositive="clip")
    if np.isfinite(least):
        axes.set_ylim(bottom=least / 4)  # room for the words; a band of few prompts reaches down to zero
    axes.margins(x=0)
    falls = levels[0] > levels[-1]
    axes.set(
        xlabel="noise level" if falls else "time, from noise (0) to video (1)",
        ylabel="relative error",
        title=f"{SKIPPED} steps after a forward",
    )
    told = [f"{TITLES[name]}: {-saving(found, name):+.0%}" for name in found["stand_ins"][1:]]
    axes.text(
        0.03,
        0.03,
        "\n".join(["mean absolute deviation (left), relative to reuse", *told]),
        transform=axes.transAxes,
        fontsize=7.5,
        color=style.SOFT,
        path_effects=style.HALO,
    )
    if falls:
        axes.invert_xaxis()
    style.lay_out(axes.figure)
    style.label_lines(axes, ends, x=float(levels[known][-1]))
