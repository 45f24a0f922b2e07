"""The style of all figures: readable in print and for colour-blind readers, and the same bytes at every run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.patheffects import withStroke

from reports.contrast import GROUNDS, TEXT, legible
from store import writing

INK, SOFT, FAINT = "#22262b", "#69717b", "#e4e7eb"  # SOFT is also text: contrast of 4.5 and more on white
MODES = {"cache": "#868f99", "predict": "#b26a00", "recompute": "#2f6fa8"}  # contrast of 3 with a light and a dark page
_COLOURS = {  # Okabe and Ito's palette
    "original": INK,
    "original_repeat": SOFT,
    "original_seed": "#b3bac2",
    "reduced_steps": "#8c6d1f",
    "uniform": "#999999",
    "delta_dit": "#56b4e9",
    "teacache": "#0072b2",
    "taylorseer": "#cc79a7",
    "flowcache": "#009e73",
    "scope": "#d55e00",
}
_SPARE = ("#5d3a9b", "#40b0a6", "#994f00", "#e1be6a", "#dc3220", "#006cd1")
MARKERS = {"": "o", "slow": "s", "fast": "^"}
NEUTRAL_IN_THE_DARK = {INK: "#e6e8eb", SOFT: "#a3abb5", FAINT: "#30363d", "#ffffff": GROUNDS["dark"]}
HALO = (withStroke(linewidth=2, foreground="white"),)  # keeps a name readable on top of a line
LINES = {"": "-", "slow": "-", "fast": (0, (4, 1.5))}

SETTINGS: Any = {
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "savefig.bbox": "tight",
    "savefig.pad_inches": 0.06,
    "figure.constrained_layout.use": True,
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.labelsize": 8.5,
    "axes.labelcolor": INK,
    "axes.edgecolor": SOFT,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "lines.linewidth": 1.5,
    "legend.frameon": False,
    "svg.hashsalt": "scope",
    "svg.fonttype": "path",
    "axes.unicode_minus": True,
    "axes.formatter.useoffset": False,
}
LAID_OUT: Any = {"figure.constrained_layout.use": False}  # with any engine, each file is drawn twice to be laid out


def colour(method: str) -> str:
    """The colour of a method in every figure and on the page; an unknown method gets one of a few spare colours."""
    return _COLOURS.get(method) or _SPARE[sum(map(ord, method)) % len(_SPARE)]


def save(fig: Figure, folder: Path, name: str) -> list[str]:
    """Write `name`.svg and .png atomically, without dates or versions in them; return the names."""
    with matplotlib.rc_context(SETTINGS):
        lay_out(fig)
        frame = fig.get_tightbbox().padded(matplotlib.rcParams["savefig.pad_inches"])
    with matplotlib.rc_context(SETTINGS | LAID_OUT):
        fig.set_layout_engine(None)
        for suffix, clean in (("svg", {"Date": None, "Creator": None}), ("png", {"Software": None})):
            with writing(folder / f"{name}.{suffix}") as draft:
                fig.savefig(draft, metadata=clean, bbox_inches=frame)
                if suffix == "svg":
                    draft.write_text(_for_the_dark(draft.read_text(encoding="utf-8")), encoding="utf-8")
    return [f"{name}.svg", f"{name}.png"]


def lay_out(fig: FigureBase) -> None:
    """Give the panels of a figure their places, which takes half the time of drawing it."""
    if isinstance(fig, Figure) and (engine := fig.get_layout_engine()) is not None:
        engine.execute(fig)


def _for_the_dark(svg: str) -> str:
    """The same svg, with a rule for each of its colours that browsers apply on a dark page. Pictures keep theirs."""
    keep = set(MODES.values())
    rules = []
    for colour in sorted(set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", svg)) - keep):
        other = NEUTRAL_IN_THE_DARK.get(colour) or legible(colour, GROUNDS["dark"], TEXT)
        rules += [f'[style*="{kind}: {colour}"] {{ {kind}: {other} !important }}' for kind in ("fill", "stroke")]
    style = f"@media (prefers-color-scheme: dark) {{\n{chr(10).join(rules)}\n}}"
    return svg.replace("</style>", f"\n{style}\n</style>", 1)


def spread(positions: list[float], gap: float) -> list[float]:
    """Positions moved apart by the least amount that puts neighbours at least `gap` from each other.

    >>> spread([0.0, 0.0, 10.0], 2.0)
    [-1.0, 1.0, 10.0]
    """
    order = sorted(range(len(positions)), key=positions.__getitem__)
    groups: list[list[int]] = []
    centre: list[float] = []
    for n in order:
        groups.append([n])
        centre.append(positions[n])
        while len(groups) > 1 and centre[-1] - centre[-2] < gap * (len(groups[-1]) + len(groups[-2])) / 2 - 1e-9:
            last, before = groups.pop(), groups.pop()
            total = centre.pop() * len(last) + centre.pop() * len(before)
            groups.append(before + last)
            centre.append(total / len(groups[-1]))
    moved = [0.0] * len(positions)
    for group, middle in zip(groups, centre, strict=True):
        for place, n in enumerate(group):
            moved[n] = middle + gap * (place - (len(group) - 1) / 2)
    return moved


LONGEST_NAME = 44  # letters of a name in a figure; longer ones leave no room for the plot


def short(name: str, most: int = LONGEST_NAME) -> str:
    """A name for a figure, without its middle if it is too long; the tables have the full name.

    >>> short("SCOPE fast (max_skip=1)", 15)
    'SCOPE f…skip=1)'
    """
    return "\n".join(_cut(line, most) for line in name.split("\n"))


def _cut(line: str, most: int) -> str:
    keep = most // 2
    return line if len(line) <= most else f"{line[:keep]}…{line[len(line) - (most - keep - 1) :]}"


def label_lines(axes: Axes, ends: list[tuple[float, str, str]], x: float, points: float = 10.5) -> None:
    """Labels right of `x` for lines that end at (y, text, colour), moved apart so that they do not overlap.

    The figure has been laid out (`lay_out`): the labels need the heights of its panels.
    """
    gap = points * axes.figure.dpi / 72
    heights = [axes.transData.transform((x, y))[1] for y, _, _ in ends]
    for (y, text, ink), height in zip(ends, spread(heights, gap), strict=True):
        offset = (height - axes.transData.transform((x, y))[1]) * 72 / axes.figure.dpi
        axes.annotate(
            short(text),
            (x, y),
            (6, offset),
            textcoords="offset points",
            color=ink,
            va="center",
            fontsize=8,
            annotation_clip=False,
        )
