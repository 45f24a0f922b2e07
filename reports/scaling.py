"""The effect of a setting: time over video length (Figure 8), memory (9), skipped steps (7); a panel per model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports import style
from reports.metric import BY_NAME
from reports.records import CONTROLS, IDENTITY, Study, label
from reports.video import settings

LENGTH, SKIP = "model.frames", "method.max_skip"
SHOWN = (("original", ""), ("scope", "fast"))


def series(study: Study, frame: pd.DataFrame, model: str, cell: tuple[str, str], setting: str) -> pd.DataFrame:
    """The lines of the main table in which only `setting` differs from the operating point, sorted by its value.

    The column `at` holds the value. Empty if there are fewer than two values.
    """
    group, _, name = setting.partition(".")
    lines = frame.set_index(IDENTITY, drop=False)
    found = []
    for identity, videos in study.varied(model, *cell):
        valid = videos[videos["status"] == "ok"]
        if len(valid) and set(valid["changed"].iloc[0]) <= {setting}:
            value = (settings(study.record(valid.iloc[0])).get(group) or {}).get(name)
            if value is not None:
                found.append(lines.loc[tuple(identity.values())].to_dict() | {"at": value})
    table = pd.DataFrame(found, columns=[*frame.columns, "at"]).drop_duplicates("at").sort_values("at")
    return table if len(table) > 1 else table.iloc[:0]


def length(study: Study, frame: pd.DataFrame) -> Figure | None:
    """Time over the number of frames, with a fitted line per method and the speedup at both ends."""
    found = []
    for model in study.models:
        lines = {cell: series(study, frame, model, cell, LENGTH) for cell in SHOWN}
        if any(len(part) for part in lines.values()):
            found.append((model, lines))
    if not found:
        return None
    with rc_context(style.SETTINGS):
        figure = Figure((4.6 * len(found), 3.3))
        for axes, (model, lines) in zip(np.ravel(figure.subplots(1, len(found))), found, strict=True):
            axes.set(xlabel="length (frames)", ylabel="time per video (s)", title=model)
            ends = []
            for (method, _), part in lines.items():
                if len(part):
                    ends.append(_fitted(axes, part, method))
            axes.set_ylim(bottom=0)
            longest = max(part["at"].max() for part in lines.values() if len(part))
            style.lay_out(figure)
            style.label_lines(axes, ends, float(longest), points=23)
            scope = lines["scope", "fast"]
            for n in (0, -1) if len(scope) else ():
                line = scope.iloc[n]
                axes.annotate(
                    f"{line['speedup']:.2f}×",
                    (line["at"], line["time_s"]),
                    (0, -14),
                    fontsize=7.5,
                    textcoords="offset points",
                    ha="right" if n else "left",
                    color=style.colour("scope"),
                )
    return figure


def _fitted(axes: Axes, part: pd.DataFrame, method: str) -> tuple[float, str, str]:
    """Draw points with intervals and a fitted line; return the end of the line, its label and its colour."""
    ink, x, y = style.colour(method), part["at"].to_numpy(float), part["time_s"].to_numpy(float)
    slope, base = np.polyfit(x, y, 1)
    _points(axes, part, "time_s", ink)
    axes.plot(x, base + slope * x, color=ink, lw=1.2, ls=(0, (4, 1.5)))
    name = label({"method": method, "speed": part["speed"].iloc[0], "variant": ""})
    return float(base + slope * x[-1]), f"{name}\n{base:.3g} s + {1000 * slope:.3g} ms a frame", ink


def _points(axes: Axes, part: pd.DataFrame, name: str, ink: str, line: str = "") -> None:
    """Draw values over `at`, with their intervals if there are any."""
    x, y = part["at"].to_numpy(float), part[name].to_numpy(float)
    ends = np.abs(part[[f"{name}_low", f"{name}_high"]].to_numpy(float) - y[:, None]).T
    ends = np.nan_to_num(ends, posinf=0.0)  # no bar for an end without a bound
    axes.errorbar(x, y, yerr=ends, color=ink, ls=line, marker="o", ms=4.5, elinewidth=0.8, lw=1.3)


def skips(study: Study, frame: pd.DataFrame) -> Figure | None:
    """Time, SSIM and PSNR over the maximum number of consecutive skipped steps; the operating point is ringed."""
    found = [
        (model, part) for model in study.models if len(part := series(study, frame, model, ("scope", "fast"), SKIP))
    ]
    if not found:
        return None
    names = ["time_s", *(name for name in ("ssim", "psnr") if any(part[name].notna().any() for _, part in found))]
    with rc_context(style.SETTINGS):
        figure = Figure((3.1 * len(names), 2.7 * len(found)))
        grid = figure.subplots(len(found), len(names), squeeze=False)
        for panels, (model, part) in zip(grid, found, strict=True):
            for axes, name in zip(panels, names, strict=True):
                metric = BY_NAME[name]
                known = part[np.isfinite(part[name])]
                _points(axes, known, name, style.colour("scope"), "-")
                own = known[known["variant"] == ""]
                axes.plot(own["at"], own[name], "o", ms=10, mfc="none", mec=style.INK, mew=1)
                axes.set(title=f"{model}: {metric.title}", ylabel=metric.title, xlabel="max. consecutive skipped steps")
                axes.set_xticks(part["at"].to_numpy(float))
                if known.empty:
                    axes.text(0.5, 0.5, "not scored", transform=axes.transAxes, ha="center", color=style.SOFT)
    return figure


def memory(study: Study) -> Figure | None:
    """Peak memory of the shortest and the longest video of each method: denoising, and the whole with decoding."""
    found = [(model, bars) for model in study.models if (bars := list(_bars(study, model)))]
    if not found:
        return None
    with rc_context(style.SETTINGS):
        figure = Figure((7.2, sum(0.55 + 0.27 * len(bars) for _, bars in found)))
        grid = figure.subplots(len(found), 1, squeeze=False, height_ratios=[0.6 + len(bars) for _, bars in found])
        for axes, (model, bars) in zip(grid[:, 0], found, strict=True):
            for place, bar in enumerate(reversed(bars)):
                axes.barh(place, bar["whole"], 0.7, color="white", edgecolor=style.SOFT, lw=0.8)
                axes.barh(place, bar["denoise"], 0.7, color=style.colour(bar["method"]))
                axes.annotate(
                    f"{bar['whole']:.3g}",
                    (bar["whole"], place),
                    (3, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=7.5,
                    color=style.SOFT,
                )
            axes.set_yticks(range(len(bars)), [style.short(bar["name"]) for bar in reversed(bars)])
            axes.set(title=model, xlabel="peak memory (GB): filled while denoising, outlined with decoding")
            axes.grid(axis="y", visible=False)
            axes.tick_params(axis="y", length=0)
            axes.margins(x=0.08)
    return figure


def _bars(study: Study, model: str) -> Iterator[dict[str, Any]]:
    """A bar per method and length: the model's own length, and the longest one if it was run."""
    shown = [
        (identity, videos[videos["status"] == "ok"])
        for identity, videos in study.lines(model)
        if identity["speed"] in ("", "fast") and identity["method"] not in CONTROLS[1:]
    ]
    shown = [
        (identity, valid)
        for identity, valid in shown
        if valid["memory"].notna().any() and set(valid["changed"].iloc[0]) <= {LENGTH}
    ]
    longest = max((valid["frames"].iloc[0] for identity, valid in shown if identity["variant"]), default=None)
    long = {identity["method"] for identity, valid in shown if valid["frames"].iloc[0] == longest}
    for identity, valid in shown:
        frames = valid["frames"].iloc[0]
        if (identity["variant"] and frames != longest) or (long and identity["method"] not in long):
            continue
        whole, denoise = (float(valid[name].mean()) / 1e9 for name in ("memory", "memory_denoise"))
        name = label({**identity, "variant": ""})
        yield {
            "name": f"{name}, {frames:.0f} frames",
            "method": identity["method"],
            "whole": whole,
            "denoise": whole if np.isnan(denoise) else denoise,
        }
