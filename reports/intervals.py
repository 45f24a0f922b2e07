"""Figures over the iterations: which frames are forwarded (Figure 3), and what SCOPE decided (Figure 6)."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from reports import style
from reports.curves import MODES
from reports.records import MODELS, Study, label

IDLE, FORWARDED, UPDATED = "#ffffff", "#cfd9e2", "#1f5a8a"


def plans(root: Path) -> list[dict[str, Any]]:
    """The plans of `task=plan` that have a step matrix; full-size models first, the Original before SCOPE."""
    found = [json.loads(path.read_text()) for path in sorted((root / "plan").glob("*/*.json"))]
    order = {name: n for n, name in enumerate(MODELS)}
    known = [plan for plan in found if plan.get("matrix")]
    known = list({(plan["model"], plan["method"]): plan for plan in known}.values())  # operating points forward alike
    return sorted(known, key=lambda plan: (order.get(plan["model"], len(order)), plan["model"], plan["method"]))


def matrix(plan: dict[str, Any]) -> np.ndarray:
    """(slots, iterations): 0 not forwarded, 1 forwarded as context, 2 updated."""
    rows = plan["matrix"]
    grid = np.zeros((max(stop for _, stop, _, _ in rows), len(rows)), int)
    for n, (start, stop, first, last) in enumerate(rows):
        grid[start:stop, n] = 1
        grid[first:last, n] = 2
    return grid


def intervals(found: list[dict[str, Any]]) -> Figure | None:
    """The step matrix of every plan."""
    if not found:
        return None
    columns = 2 if len(found) > 1 else 1
    lines = -(-len(found) // columns)
    with rc_context(style.SETTINGS):
        figure = Figure((4.7 * columns, 2.3 * lines + 0.4))
        grid = np.ravel(figure.subplots(lines, columns, squeeze=False))
        for axes in grid[len(found) :]:
            axes.set_axis_off()
        for axes, plan in zip(grid, found, strict=False):
            cells = matrix(plan)
            axes.imshow(
                cells,
                cmap=ListedColormap([IDLE, FORWARDED, UPDATED]),
                vmin=0,
                vmax=2,
                aspect="auto",
                interpolation="nearest",
                origin="lower",
            )
            axes.grid(visible=False)
            name = label({"method": plan["method"], "speed": "", "variant": ""})
            axes.set_title(
                f"{plan['model']}, {name}: {(cells > 0).sum():,} slots forwarded, {(cells == 2).sum():,} updated",
                fontsize=8.5,
            )
            axes.set(xlabel="AR iteration", ylabel="latent frame")
        named = ((FORWARDED, "forwarded, not updated"), (UPDATED, "forwarded and updated"))
        keys = [grid[0].scatter([], [], marker="s", s=40, color=ink, label=text) for ink, text in named]
        figure.legend(handles=keys, loc="outside upper center", ncols=2, fontsize=8, handletextpad=0.2)
    return figure


def decided(study: Study) -> Figure | None:
    """The share of each mode at every iteration for SCOPE's fast point, mean over prompts; and totals per video."""
    found = []
    for model in study.models:
        groups = [group for identity, group in study.varied(model, "scope", "fast") if identity["variant"] == ""]
        traces = [
            study.record(video).trace() for group in groups for _, video in group[group["status"] == "ok"].iterrows()
        ]
        if traces := [trace for trace in traces if trace]:
            found.append((model, traces))
    if not found:
        return None
    with rc_context(style.SETTINGS):
        figure = Figure((7.6, 0.5 + 1.7 * len(found)))
        for axes, (model, traces) in zip(figure.subplots(len(found), 1, squeeze=False)[:, 0], found, strict=True):
            _stack(axes, traces)
            totals = Counter(entry["mode"] for trace in traces for entry in trace)
            each = ", ".join(f"{totals[mode] / len(traces):.4g} {mode}" for mode in MODES[::-1])
            total = sum(totals.values()) / len(traces)
            axes.set_title(f"{model}: {total:.4g} decisions a video ({each})", fontsize=8.5)
        axes.set_xlabel("AR iteration")
        keys = [axes.scatter([], [], marker="s", s=40, color=style.MODES[mode], label=mode) for mode in MODES]
        figure.legend(handles=keys, loc="outside upper center", ncols=3, fontsize=8, handletextpad=0.2)
    return figure


def _stack(axes: Axes, traces: list[list[dict[str, Any]]]) -> None:
    shares = np.zeros((len(MODES), 1 + max(entry["iteration"] for trace in traces for entry in trace)))
    for entry in (entry for trace in traces for entry in trace):
        shares[MODES.index(entry["mode"]), entry["iteration"]] += 1
    shares /= np.maximum(shares.sum(0), 1)
    base = np.zeros(shares.shape[1])
    for mode, share in list(zip(MODES, shares, strict=True))[::-1]:
        axes.bar(np.arange(shares.shape[1]), share, 1.0, base, color=style.MODES[mode], lw=0)
        base += share
    axes.set(ylabel="share of decisions", ylim=(0, 1), xlim=(-0.5, shares.shape[1] - 0.5))
    axes.grid(visible=False)
