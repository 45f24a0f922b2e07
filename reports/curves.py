"""Figures along a run: decisions over iterations, drift over the video's time, memory per line."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from reports import style
from reports.records import CONTROLS, Study, headline, label
from reports.statistics import band

Curve = tuple[dict[str, str], str, np.ndarray, np.ndarray]  # identity, label, seconds (T,), values (n, T)
MODES = tuple(style.MODES)  # cache, predict, recompute: by rising cost


def decisions(trace: list[dict]) -> np.ndarray:
    """The ledger as (slots, iterations): an index into MODES if the iteration updates the slot, else -1.

    If several guidance branches decide, the most expensive decision counts.
    """
    if not trace:
        return np.empty((0, 0), int)
    spans = [entry.get("active") or entry["slots"] for entry in trace]
    grid = np.full((max(stop for _, stop in spans), 1 + max(entry["iteration"] for entry in trace)), -1)
    for entry, (start, stop) in zip(trace, spans, strict=True):
        cells = grid[start:stop, entry["iteration"]]
        np.maximum(cells, MODES.index(entry["mode"]), out=cells)
    return grid


def timeline(study: Study, model: str) -> Figure | None:
    """Which latent slots each iteration cached, predicted or recomputed: a panel per line, for its first prompt."""
    panels = []
    for identity, group in study.lines(model, headline):
        valid = group[group["status"] == "ok"]
        trace = study.record(valid.iloc[0]).trace() if len(valid) and identity["method"] not in CONTROLS[1:] else []
        if trace:
            panels.append((label({**identity, "label": valid["label"].iloc[0]}), identity["method"], trace))
    if not panels:
        return None
    with rc_context(style.SETTINGS):
        figure = Figure((7.2, 0.5 + 0.78 * len(panels)))
        grid = np.ravel(figure.subplots(len(panels), 1, sharex=True))
        for axes, (name, method, trace) in zip(grid, panels, strict=True):
            _decided(axes, trace, last=axes is grid[-1])
            axes.set_ylabel(
                style.short(name.replace(" ", "\n", 1), 28),
                rotation=0,
                ha="right",
                va="center",
                fontweight="bold",
                color=style.colour(method),
            )
        grid[-1].set_xlabel("AR iteration; vertical axis: latent slot, i.e. time in the video")
        keys = [figure.axes[0].scatter([], [], marker="s", s=40, color=style.MODES[mode], label=mode) for mode in MODES]
        figure.legend(handles=keys, loc="outside upper center", ncols=3, fontsize=8, handletextpad=0.2)
    return figure


def _decided(axes: Axes, trace: list[dict], last: bool) -> None:
    """Draw one panel: the decisions as colours, and their counts beside it."""
    grid = decisions(trace)
    axes.imshow(
        grid,
        cmap=ListedColormap(["#ffffff00", *style.MODES.values()]),
        vmin=-1,
        vmax=2,
        aspect="auto",
        interpolation="nearest",
        origin="lower",
        extent=(-0.5, grid.shape[1] - 0.5, 0, grid.shape[0]),
    )
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set_yticks([0, grid.shape[0]])
    axes.tick_params(axis="y", length=0, labelsize=7)
    axes.tick_params(axis="x", length=3 if last else 0)
    counts = Counter(entry["mode"] for entry in trace)
    axes.text(
        1.01,
        0.5,
        "\n".join(f"{counts[mode]:>4} {mode}" for mode in MODES[::-1] if counts[mode]),
        transform=axes.transAxes,
        va="center",
        fontsize=7.5,
        color=style.SOFT,
    )


def drift(study: Study, model: str) -> Figure | None:
    """Distance from the Original over the video's time: mean over videos with a 95 % band, a panel per metric."""
    curves = {name: _curves(study, model, name) for name in ("lpips", "psnr")}
    curves = {name: found for name, found in curves.items() if found}
    if not curves:
        return None
    with rc_context(style.SETTINGS):
        figure = Figure((4.9 * len(curves), 3.2))
        panels = list(zip(np.ravel(figure.subplots(1, len(curves))), curves.items(), strict=True))
        for axes, (name, found) in panels:
            _drifts(axes, found)
            title = {"lpips": "LPIPS", "psnr": "PSNR (dB)"}[name]
            axes.set(xlabel="time in the video (s)", ylabel=title, title=f"{title} per frame")
        style.lay_out(figure)  # once for all panels, whose heights the labels need
        for axes, (_, found) in panels:
            ends = [
                (float(values.mean(0)[-1]), text, style.colour(identity["method"]))
                for identity, text, _, values in found
            ]
            style.label_lines(axes, ends, x=float(found[-1][2][-1]))
    return figure


def _drifts(axes: Axes, found: list[Curve]) -> None:
    """Draw the means of one metric, and the bands that fit: with few videos a band can be wider than the panel."""
    bands = [band(values) for _, _, _, values in found]
    low, high = min(middle.min() for middle, _, _ in bands), max(middle.max() for middle, _, _ in bands)
    room, wide = 0.15 * (high - low) or 0.1, 0
    for (identity, _, seconds, _), (middle, lower, upper) in zip(found, bands, strict=True):
        ink = style.colour(identity["method"])
        axes.plot(seconds, middle, color=ink, ls=style.LINES.get(identity["speed"], "-"))
        if np.median(upper - lower) > 0.6 * (high - low) > 0:
            wide += 1
        else:
            axes.fill_between(seconds, lower, upper, color=ink, alpha=0.15, lw=0)
    axes.set_ylim(low - room, high + room)
    axes.margins(x=0)
    if wide:
        axes.text(
            0.99,
            0.98,
            f"left out, as wider than this panel: {wide} band{'s' if wide != 1 else ''}",
            transform=axes.transAxes,
            ha="right",
            va="top",
            fontsize=7.5,
            color=style.SOFT,
            path_effects=style.HALO,
        )


def _curves(study: Study, model: str, name: str) -> list[Curve]:
    """(identity, label, seconds (T,), values (n, T)) of every line with per-frame values, without the Original.

    A frame identical to the Original's has infinite PSNR; it gets the highest finite value of all frames.
    """
    found: list[Curve] = []
    collected = []
    for identity, group in study.lines(model, headline):
        valid = group[(group["status"] == "ok") & (group["weights"] != "random")]
        scored = [study.record(video).quality or {} for _, video in valid.iterrows()]
        lists = [(quality.get("per_frame") or {}).get(name) for quality in scored]
        kept = [values for values in lists if values]
        if identity["method"] != "original" and kept:
            collected.append((identity, valid, kept))
    finite = [value for _, _, kept in collected for values in kept for value in values if value is not None]
    for identity, valid, kept in collected if finite else ():
        shortest = min(map(len, kept))
        values = np.array([[max(finite) if v is None else v for v in values[:shortest]] for values in kept], float)
        fps = valid["fps"].iloc[0]
        seconds = np.arange(shortest) / (fps if fps > 0 else 1)
        found.append((identity, label({**identity, "label": valid["label"].iloc[0]}), seconds, values))
    return found


def memory(frame: pd.DataFrame, model: str) -> Figure | None:
    """Peak memory of each line: allocated, and reserved by the allocator."""
    lines = frame[(frame["model"] == model) & frame["peak_memory_gb"].notna() & ~frame["method"].isin(CONTROLS[1:])]
    lines = headline(lines)
    if lines.empty:
        return None
    with rc_context(style.SETTINGS):
        figure = Figure((5.6, 0.6 + 0.3 * len(lines)))
        axes = figure.subplots()
        places = np.arange(len(lines))[::-1]
        axes.barh(places, lines["peak_reserved_gb"].fillna(0), 0.62, color="white", edgecolor=style.SOFT, lw=0.7)
        axes.barh(places, lines["peak_memory_gb"], 0.62, color=[style.colour(method) for method in lines["method"]])
        ends = lines[["peak_memory_gb", "peak_reserved_gb"]].max(axis=1)
        for place, end, value in zip(places, ends, lines["peak_memory_gb"], strict=True):
            axes.annotate(
                f"{value:.3g}",
                (end, place),
                (3, 0),
                textcoords="offset points",
                va="center",
                color=style.SOFT,
                fontsize=7.5,
            )
        axes.set_yticks(places, lines["name"].map(style.short))
        axes.set_xlabel("peak memory (GB): filled allocated, outlined reserved")
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        axes.set_xlim(0, ends.max() * 1.1)
    return figure
