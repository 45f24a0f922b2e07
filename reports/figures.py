"""Scatter plots of quality against speed, and radar plots."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports import style
from reports.estimates import EXACT
from reports.metric import BY_NAME, Metric
from reports.records import CONTROLS, Study, headline

MOST_OF = 0.8  # of a panel: a wider interval is not drawn; raising it: fuller panels
AXES = 5  # of a radar; raising it: more is shown, shapes are harder to compare


def speed_quality(frame: pd.DataFrame, model: str) -> Figure | None:
    """Quality against speedup, a panel per metric, with the Pareto front and the Original run twice.

    Higher is closer to the Original. A marker is hollow if another line is both faster and closer and the intervals do
    not overlap. A line with other prompts than the others is hollow too, and not on the front. None if nothing has been
    scored.
    """
    lines, names = _scored(frame, model)
    if not names:
        return None
    with rc_context(style.SETTINGS):
        figure = Figure((3.9 * len(names), 3.5))
        for axes, name in zip(np.ravel(figure.subplots(1, len(names))), names, strict=True):
            _scatter(axes, lines[np.isfinite(lines[name])], BY_NAME[name])
            _repeat(axes, frame[(frame["model"] == model) & (frame["method"] == "original_repeat")], BY_NAME[name])
        style.lay_out(figure)
        for axes, name in zip(figure.axes, names, strict=True):
            _label_points(axes, lines[np.isfinite(lines[name])], name)
    return figure


def _scored(frame: pd.DataFrame, model: str) -> tuple[pd.DataFrame, list[str]]:
    """The lines of a model that have a speedup, and the metrics that have a panel."""
    lines = headline(frame[(frame["model"] == model) & ~frame["method"].isin(CONTROLS) & frame["speedup"].notna()])
    return lines, [name for name in ("psnr", "ssim", "lpips") if np.isfinite(lines[name]).any()]


def undrawn(frame: pd.DataFrame, model: str) -> str:
    """Which intervals `speed_quality` leaves out, as the end of its caption; empty if it draws all of them."""
    lines, names = _scored(frame, model)
    found = []
    for name in names:
        known = lines[np.isfinite(lines[name])]
        limits = _limits(_points(known, BY_NAME[name]))
        wide = {
            axis: [line["name"] for _, line in known.iterrows() if _fills(line, axis, ends)]
            for axis, ends in zip(("speedup", name), limits, strict=True)
        }
        found += [f"{BY_NAME[axis].title} of {', '.join(some)}" for axis, some in wide.items() if some]
    told = "; ".join(dict.fromkeys(found))
    return f" Intervals that would fill the panel are not drawn: {told}." if told else ""


def _points(lines: pd.DataFrame, metric: Metric) -> list[tuple[float, float]]:
    """The points of a panel, the Original's among them if it has one."""
    start = [(1.0, EXACT[metric.name])] if metric.name in EXACT else []
    return [*zip(lines["speedup"], lines[metric.name], strict=True), *start]


def _fills(line: pd.Series, name: str, limits: tuple[float, float]) -> bool:
    """Whether an interval is wider than MOST_OF of the panel; without one, False."""
    return bool(line[f"{name}_high"] - line[f"{name}_low"] > MOST_OF * (limits[1] - limits[0]))


def _scatter(axes: Axes, lines: pd.DataFrame, metric: Metric) -> None:
    sign = 1 if metric.better == "higher" else -1
    limits = _limits(_points(lines, metric))
    front: list[tuple[float, float]] = []
    known = lines[lines["ranked"]]
    best = -math.inf
    for x, y in sorted(_points(known, metric), reverse=True):
        if sign * y > best:
            front, best = [*front, (x, y)], sign * y
    axes.plot([x for x, _ in front], [y for _, y in front], color=style.SOFT, lw=1, ls=(0, (1, 1.5)), zorder=1)
    for _, line in lines.iterrows():
        ink, y = style.colour(line["method"]), line[metric.name]
        spans: dict[str, Any] = {}
        for axis, name, panel in zip(("xerr", "yerr"), ("speedup", metric.name), limits, strict=True):
            ends = [abs(line[name] - line[f"{name}_{end}"]) for end in ("low", "high")]
            hidden = any(map(math.isnan, ends)) or _fills(line, name, panel)
            spans[axis] = None if hidden else [[e] for e in ends]
        axes.errorbar(line["speedup"], y, **spans, color=ink, elinewidth=0.8, lw=0, alpha=0.5, zorder=2)
        face = ink if line["ranked"] and not _dominated(line, known, metric) else "white"
        axes.plot(line["speedup"], y, style.MARKERS.get(line["speed"], "D"), color=ink, mfc=face, ms=6, zorder=3)
    axes.set(xlabel="speedup over the Original (×)", title=f"{metric.title.split(' (')[0]}, up is closer")
    axes.set_ylabel(metric.title)
    axes.set(xlim=limits[0], ylim=limits[1])
    if sign < 0:
        axes.invert_yaxis()


def _limits(points: list[tuple[float, float]]) -> tuple[tuple[float, float], tuple[float, float]]:
    """The limits of a panel by its points alone: with few videos, intervals are so wide that the points would merge."""
    (left, right), (low, high) = ((min(values), max(values)) for values in zip(*points, strict=True))
    aside, room = 0.24 * (right - left) or 0.1 * right, 0.14 * (high - low) or 0.1 * abs(high) or 0.1
    return (left - aside, right + aside), (low - room, high + room)


def _dominated(line: pd.Series, lines: pd.DataFrame, metric: Metric) -> bool:
    """Whether another line is both faster and closer to the Original, and the intervals do not overlap."""

    def ends(name: str) -> tuple[pd.Series, pd.Series]:
        low, high = (lines[f"{name}_{end}"].fillna(lines[name]) for end in ("low", "high"))
        return (low, high) if BY_NAME[name].better == "higher" else (-high, -low)

    better = [ends(name)[0] > ends(name)[1][line.name] for name in ("speedup", metric.name)]
    return bool((better[0] & better[1]).any())


def _repeat(axes: Axes, repeat: pd.DataFrame, metric: Metric) -> None:
    """A band for the Original run twice: nothing closer can be distinguished from the Original."""
    if repeat.empty or pd.isna(value := repeat[metric.name].iloc[0]):
        return
    seen = min(axes.get_ylim()) <= value <= max(axes.get_ylim())
    if math.isinf(value) or value == EXACT.get(metric.name) or not seen:
        said = metric.show(value) if math.isfinite(value) and not seen else "identical"
        axes.annotate(
            f"Original run twice: {said}",
            (1, 1),
            (0, 8),
            xycoords="axes fraction",
            ha="right",
            textcoords="offset points",
            color=style.SOFT,
            fontsize=7.5,
        )
        return
    low, high = (repeat[f"{metric.name}_{end}"].iloc[0] for end in ("low", "high"))
    low, high = (value, value) if math.isnan(low) else (low, high)
    axes.axhspan(low, high, color=style.SOFT, alpha=0.35, lw=0.8, zorder=0)
    axes.annotate(
        "Original run twice",
        (1, value),
        (-2, 3),
        xycoords=("axes fraction", "data"),
        ha="right",
        textcoords="offset points",
        color=style.SOFT,
        fontsize=7.5,
    )


def _label_points(axes: Axes, lines: pd.DataFrame, name: str) -> None:
    """Write names beside the points, moved apart so that they do not overlap."""
    scale = 72 / axes.figure.dpi
    spots = axes.transData.transform(lines[["speedup", name]].to_numpy(float)) * scale
    left, right = axes.bbox.x0 * scale, axes.bbox.x1 * scale
    heights = style.spread(list(spots[:, 1]), 9.5)
    over = max([*heights, 0.0]) - (axes.bbox.y1 * scale - 4), min(heights) - (axes.bbox.y0 * scale + 4)
    shift = max(over[0], 0.0) or min(over[1], 0.0)  # the names stay inside of the panel
    heights = [height - shift for height in heights]
    for (_, line), (x, y), height, text in zip(lines.iterrows(), spots, heights, _names(lines), strict=True):
        side = 1 if right - x > 68 or right - x > x - left else -1
        axes.annotate(
            text,
            (line["speedup"], line[name]),
            (7 * side, height - y),
            textcoords="offset points",
            ha="left" if side > 0 else "right",
            va="center",
            fontsize=7.5,
            color=style.colour(line["method"]),
            path_effects=style.HALO,
            zorder=2.5,
        )


def _names(lines: pd.DataFrame) -> list[str]:
    """The names of lines in a figure, without a setting that all of them share."""
    shared = lines["variant"].iloc[0] if lines["variant"].nunique() == 1 else ""
    return [style.short(name.replace(f" ({shared})", "")) if shared else style.short(name) for name in lines["signed"]]


def radar(study: Study, frame: pd.DataFrame, model: str, streaming: bool = False) -> Figure | None:
    """Each line over speed, memory and quality; farther out is better. None with fewer than three axes or no line.

    At most `AXES` axes, in this order as far as they are known: speedup over that of the fastest line; the Original's
    memory over the line's, at most 1; 1 − LPIPS; PSNR over 50 dB; prompt adherence; VBench's dimensions; SSIM; FLOPs
    speedup over the largest; the earliest first chunk over the line's. streaming: the last one comes second.
    """
    lines = headline(frame[(frame["model"] == model) & (frame["videos"] > 0) & (frame["method"] != "original_repeat")])
    values = _radar_values(study, lines, model, streaming)
    if values.shape[1] < 3 or values.empty:
        return None
    with rc_context(style.SETTINGS):
        figure = Figure((5.6, 4.6))
        _spokes(figure.add_subplot(projection="polar", theta_offset=np.pi / 2, theta_direction=-1), lines, values)
    return figure


def radars(study: Study, frame: pd.DataFrame) -> Figure | None:
    """The Original and the fast points of every model, side by side."""
    plain = frame[(frame["variant"] == "") & (frame["videos"] > 0)]
    fast = plain[(plain["method"] == "original") | (plain["speed"] == "fast")]
    found = [(model, lines, _radar_values(study, lines, model)) for model, lines in fast.groupby("model", sort=False)]
    found = [part for part in found if part[2].shape[1] >= 3 and len(part[1]) > 1]
    if not found:
        return None
    with rc_context(style.SETTINGS):
        figure = Figure((5.8 * len(found), 4.8))
        for n, (model, lines, values) in enumerate(found):
            axes = figure.add_subplot(
                1, len(found), n + 1, projection="polar", theta_offset=np.pi / 2, theta_direction=-1
            )
            _spokes(axes, lines, values)
            axes.set_title(str(model), pad=10, loc="center")
    return figure


def _spokes(axes: Any, lines: pd.DataFrame, values: pd.DataFrame) -> None:
    angles = np.linspace(0, 2 * np.pi, values.shape[1], endpoint=False)
    for (n, line), name in zip(lines.loc[values.index].iterrows(), _names(lines.loc[values.index]), strict=True):
        known = values.loc[n].notna().to_numpy()
        theta, r = angles[known], values.loc[n].to_numpy(float)[known]
        ink = style.colour(line["method"])
        axes.plot(
            [*theta, theta[0]],
            [*r, r[0]],
            color=ink,
            ls=style.LINES.get(line["speed"], ":"),
            marker=".",
            ms=4,
            lw=2 if line["method"] == "scope" else 1.2,
            label=name,
        )
        if line["method"] == "scope":
            axes.fill(theta, r, color=ink, alpha=0.06, lw=0)
    axes.set_xticks(angles, values.columns)
    axes.set_yticks([0.25, 0.5, 0.75, 1.0], ["", "0.5", "", "1"], color=style.SOFT, fontsize=7)
    axes.set_ylim(0, 1.05)
    axes.spines["polar"].set_visible(False)
    axes.tick_params(axis="x", pad=8)
    axes.legend(loc="center left", bbox_to_anchor=(1.16, 0.5), fontsize=8, handlelength=2.4)


def _radar_values(study: Study, lines: pd.DataFrame, model: str, streaming: bool = False) -> pd.DataFrame:
    """One column for each of at most `AXES` axes, in [0, 1]; an axis that only the Original has is left out.

    Speed and memory come first, then the one similarity that people follow best, then what a video shows.
    """
    top, memory = lines["speedup"].max(), lines.loc[lines["method"] == "original", "peak_memory_gb"]
    psnr = lines["psnr"].where(lines["method"] != "original", np.inf)
    values = pd.DataFrame(
        {
            f"speedup\n/ {top:.2f}×": lines["speedup"] / top,
            "memory": np.minimum(memory.iloc[0] / lines["peak_memory_gb"], 1) if len(memory) else np.nan,
            "1 − LPIPS": 1 - lines["lpips"],
            "PSNR\n/ 50 dB": np.minimum(psnr / 50, 1),
        }
    )
    groups = {tuple(identity.values()): group for identity, group in study.lines(model)}
    for n, line in lines.iterrows():
        identity = {name: line[name] for name in ("model", "method", "speed", "variant")}
        values.loc[n, "adherence"] = _adherence(study, groups[tuple(identity.values())])
        for name, fact in study.cell_file("vbench", identity).get("dimensions", {}).items():
            if fact.get("score") is not None:
                values.loc[n, name.replace("_", "\n")] = fact["score"]
    values["SSIM"] = lines["ssim"]
    values[f"FLOPs speedup\n/ {lines['flops_speedup'].max():.2f}×"] = (
        lines["flops_speedup"] / lines["flops_speedup"].max()
    )
    first = lines["first_chunk_s"]
    values.insert(1 if streaming else values.shape[1], f"first chunk\n{first.min():.2g} s /", first.min() / first)
    others = (lines["method"] != "original").to_numpy()
    known = values.loc[:, values[others].notna().any() if others.any() else values.notna().any()]
    return known.iloc[:, :AXES]


def _adherence(study: Study, group: pd.DataFrame) -> float:
    """The share of the prompts' properties that the valid videos show (colour, shape, direction); NaN if unknown."""
    valid = group[group["status"] == "ok"]
    found = [(study.record(video).quality or {}).get("adherence") or {} for _, video in valid.iterrows()]
    kept = [
        float(facts[name])
        for facts in found
        for name in ("colour", "shape", "direction")
        if isinstance(facts.get(name), (bool, int, float))
    ]
    return float(np.mean(kept)) if kept else math.nan
