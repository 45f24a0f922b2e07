"""One report: RESULTS/report with tables, figures and the page."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from reports import ablations, curves, figures, formats, page, paper, style, tables
from reports.paper_figures import ARTEFACTS
from reports.records import Study, load
from store import writing

SPEED_QUALITY = (
    "Quality against speedup, with 95 % intervals. Dotted: the Pareto front. Hollow: another row is faster and closer, "
    "intervals apart."
)
RADAR = "Speed, memory and quality, outwards is better; memory is the Original's over the row's."
TIMELINE = "What was decided, for the first prompt. Upwards: latent slots."
DRIFT = (
    "Distance from the Original over the time of the video: mean over prompts, 95 % band; dashed: fast points. "
    "A frame equal to the Original's is drawn at the highest PSNR of the others."
)


def build(results: str | os.PathLike) -> Path:
    """Write RESULTS/report from the records under `results`, and return that folder.

    What cannot be made is left out and said in the page; the same records give the same bytes.

    Raises:
        StoreError: there is no such folder.
    """
    study = load(Path(results))
    report = study.root / "report"
    frame = tables.main(study)
    formats.write(study, frame, report / "tables")
    drawn: list[page.Drawn] = []
    for kind, model, caption, figure in draw(study, frame):
        if figure is not None:
            style.save(figure, report / "figures", f"{kind}_{model}")
        drawn.append(page.Drawn(kind, model, caption, figure is not None))
    for artefact in ARTEFACTS:
        figure = artefact.draw(study, frame)
        if figure is not None:
            style.save(figure, report / "figures", artefact.name)
        drawn.append(page.Drawn(artefact.name, "", artefact.title, figure is not None, artefact.experiment))
    ablations.write(study, frame, report / "tables")
    paper.write(study, frame, report)
    with writing(report / "index.html") as draft:
        draft.write_text(page.render(study, frame, drawn), encoding="utf-8")
    return report


def draw(study: Study, frame: pd.DataFrame) -> Iterator[tuple[str, str, str, Figure | None]]:
    """(kind, model, caption, figure or None where the records hold nothing to draw) for every model."""
    for model in study.models:
        yield "speed_quality", model, SPEED_QUALITY, figures.speed_quality(frame, model)
        yield "radar", model, RADAR, figures.radar(study, frame, model)
        yield "memory", model, "Peak memory of a video.", curves.memory(frame, model)
        yield "timeline", model, TIMELINE, curves.timeline(study, model)
        yield "drift", model, DRIFT, curves.drift(study, model)
