"""PSNR against FLOPs speedup: a line per method through its settings, and the Pareto front of all settings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from reports import style
from reports.frontier import LEVELS, Curve, front

CAPTION = (
    "PSNR against FLOPs speedup: every method over its main setting, mean over prompts. Up and right is better. Wide "
    "grey line: Pareto front, the settings that no other beats in both. Dotted: the levels of the table of speedups at "
    "equal PSNR."
)
TICKS = (1, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30)
OWN = ("ramp", "scope", "budget")  # drawn wider
MARKERS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "X": "✖"}  # one per method of the same colour; as text


def figure(found: Sequence[Curve], title: str) -> Figure | None:
    """The figure of the curves of one panel; None with fewer than two."""
    if len(found) < 2:
        return None
    with rc_context(style.SETTINGS):
        drawn = Figure((8.2, max(4.4, 0.8 + 0.17 * len(found))))
        axes = drawn.subplots()
        finite = [y for curve in found for _, y in curve.points if np.isfinite(y)]
        best = front(found)
        axes.plot([x for _, x, _ in best], [y for *_, y in best], color=style.FAINT, lw=7, zorder=0.5)
        ends, drawn_once, inks = [], set[str](), dict[str, list[str]]()
        for curve in found:
            points = [(x, y) for x, y in curve.points if np.isfinite(y)]
            if points:
                wide = 2.4 if curve.method in OWN else 1.2
                dash = (0, (3, 1.2)) if curve.method in drawn_once else "-"  # a method's further curves
                drawn_once.add(curve.method)
                ink = style.colour(curve.method)
                alike = inks.setdefault(ink, [])  # methods drawn in this colour
                alike += [curve.method] * (curve.method not in alike)
                marker = list(MARKERS)[alike.index(curve.method) % len(MARKERS)]
                axes.plot(*zip(*points, strict=True), marker, color=ink, lw=wide, ls=dash, ms=4)
                ends.append((points[-1][1], f"{MARKERS[marker]} {curve.name}", ink))
        for level in LEVELS:
            axes.axhline(level, color=style.SOFT, lw=0.7, ls=(0, (1, 2)), zorder=0.4)
        axes.set_xscale("log")
        right = max(x for curve in found for x, _ in curve.points)
        axes.set(xlim=(1, right * 1.04), ylim=(min(finite) - 1, min(max(finite), 65) + 1))
        axes.xaxis.set_major_locator(FixedLocator(TICKS))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticklabels([f"{tick:g}×" for tick in TICKS])
        axes.set(xlabel="FLOPs speedup over the Original", ylabel="PSNR (dB)", title=title)
        style.lay_out(drawn)
        style.label_lines(axes, ends, right * 1.04, points=9.5)
    return drawn
