"""The figures of the SCOPE paper, drawn from records, plans and measurements: figures/fig2.svg and so on."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from reports import figures, intervals, scaling, strips, trajectory
from reports.records import Study


class Artefact(NamedTuple):
    """One figure of the paper."""

    name: str  # of its file and of its experiment
    title: str
    experiment: str  # whose records it is drawn from
    draw: Callable[[Study, pd.DataFrame], Figure | None]
    like: str = ""  # the figure of each model that shows the same, so the page only links to this one


ARTEFACTS = (
    Artefact(
        "fig2",
        "Figure 2: predicted, reused and computed velocity along the denoising trajectory",
        "fig2",
        lambda study, _: trajectory.figure(trajectory.measured(study.root)),
    ),
    Artefact(
        "fig3",
        "Figure 3: the frames that each iteration forwards and updates",
        "fig3",
        lambda study, _: intervals.intervals(intervals.plans(study.root)),
    ),
    Artefact(
        "fig5",
        "Figure 5: the same prompt and noise under every method",
        "fig5",
        lambda study, _: strips.strips(study, strips.methods),
    ),
    Artefact(
        "fig6",
        "Figure 6: decisions of SCOPE over the iterations",
        "fig6",
        lambda study, _: intervals.decided(study),
        "timeline",
    ),
    Artefact(
        "fig7",
        "Figure 7: maximum number of consecutive skipped steps (ringed: the operating point)",
        "fig7",
        scaling.skips,
    ),
    Artefact("fig8", "Figure 8: time against the length of the video", "fig8", scaling.length),
    Artefact(
        "fig9",
        "Figure 9: peak memory of short and long videos",
        "fig9",
        lambda study, _: scaling.memory(study),
        "memory",
    ),
    Artefact("fig12", "Figure 12: radar of speed and quality, fast points", "fig12", figures.radars, "radar"),
    Artefact(
        "reduced_steps",
        "Table 12, film strips: fewer steps in about the same time",
        "table12",
        lambda study, _: strips.strips(study, strips.fewer_steps, needs="reduced_steps"),
    ),
)
