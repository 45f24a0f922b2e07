"""The figure of drift without a reference: sharpness, colour, saturation and motion over the chunks of a video."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports import style
from reports.records import Study, headline, label
from reports.statistics import band

PANELS = {
    "sharpness": "sharpness",
    "colour": "distance from the first colour",
    "saturation": "saturation",
    "motion": "change between frames",
}
CAPTION = (
    "The same measures over the chunks of a video, without a reference: mean over prompts, in levels of 0–255. A video "
    "that does not drift stays level; what it shows may also change. Dashed: fast points."
)
Curve = tuple[dict[str, str], str, np.ndarray, np.ndarray]  # identity, label, seconds (parts,), values (n, parts)


def figure(study: Study, model: str) -> Figure | None:
    """A panel per measure; None if no video has been measured, or all have one part only."""
    found = {name: _curves(study, model, name) for name in PANELS}
    found = {name: curves for name, curves in found.items() if curves}
    if not found:
        return None
    with rc_context(style.SETTINGS):
        drawn = Figure((9.8, 2.9 * -(-len(found) // 2)))
        grid = np.ravel(drawn.subplots(-(-len(found) // 2), 2, squeeze=False))
        for axes in grid[len(found) :]:
            axes.remove()
        for axes, (name, curves) in zip(grid, found.items(), strict=False):
            _panel(axes, curves)
            axes.set(xlabel="time in the video (s)", title=PANELS[name])
        style.lay_out(drawn)  # once for all panels, whose heights the labels need
        for axes, curves in zip(grid, found.values(), strict=False):
            ends = [(float(values.mean(0)[-1]), text, _ink(identity)) for identity, text, _, values in curves]
            style.label_lines(axes, ends, x=float(max(seconds[-1] for _, _, seconds, _ in curves)))
    return drawn


def _panel(axes: Axes, curves: list[Curve]) -> None:
    for identity, _, seconds, values in curves:
        axes.plot(seconds, values.mean(0), color=_ink(identity), ls=style.LINES.get(identity["speed"], "-"))
        if len(values) > 1 and len(curves) == 1:
            _, low, high = band(values)
            axes.fill_between(seconds, low, high, color=_ink(identity), alpha=0.15, lw=0)
    axes.margins(x=0)


def _ink(identity: dict[str, str]) -> Any:
    return style.colour(identity["method"])


def _curves(study: Study, model: str, name: str) -> list[Curve]:
    """The curves of every line whose videos have the same parts; a part without a value is left out."""
    found: list[Curve] = []
    for identity, group in study.lines(model, headline):
        valid = group[(group["status"] == "ok") & (group["weights"] != "random")]
        measured = [(video, (study.record(video).quality or {}).get("alone")) for _, video in valid.iterrows()]
        kept = [(video, alone) for video, alone in measured if alone and len(alone["starts"]) > 1]
        if not kept:
            continue
        first, starts = kept[0][0], kept[0][1]["starts"]
        same = [alone["parts"][name] for _, alone in kept if alone["starts"] == starts]
        values = np.array(same, float)  # None becomes NaN
        known = ~np.isnan(values).any(0)
        if known.sum() > 1:
            found.append((identity, _name(identity, first), _middles(starts, first)[known], values[:, known]))
    return found


def _name(identity: dict[str, str], video: pd.Series) -> str:
    return label({**identity, "label": video["label"]})


def _middles(starts: list[int], video: pd.Series) -> np.ndarray:
    """The middle of every part, in seconds of the video (frames, if the rate is not known)."""
    stops = [*starts[1:], max(float(video["frames"]), starts[-1] + 1)]
    fps = float(video["fps"]) if video["fps"] > 0 else 1.0
    return (np.array(starts) + np.array(stops)) / 2 / fps
