"""One report: RESULTS/report with tables, figures and the page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from matplotlib.figure import Figure

from reports import ablations, curves, figures, formats, page, paper, style
from reports.paper_figures import ARTEFACTS
from reports.report import Report
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


def build(report: Report) -> Path:
    """Write RESULTS/report, and return that folder.

    What cannot be made is left out and said in the page; the same records give the same bytes.
    """
    folder = report.study.root / "report"
    formats.write(report, folder / "tables")
    drawn: list[page.Drawn] = []
    for kind, model, caption, figure in draw(report):
        if figure is not None:
            style.save(figure, folder / "figures", f"{kind}_{model}")
        drawn.append(page.Drawn(kind, model, caption, figure is not None))
    for artefact in ARTEFACTS:
        figure = artefact.draw(report.study, report.numbers)
        if figure is not None:
            style.save(figure, folder / "figures", artefact.name)
        drawn.append(page.Drawn(artefact.name, "", artefact.title, figure is not None, artefact.experiment))
    ablations.write(report, folder / "tables")
    paper.write(report, folder)
    with writing(folder / "index.html") as draft:
        draft.write_text(page.render(report, drawn), encoding="utf-8")
    return folder


def draw(report: Report) -> Iterator[tuple[str, str, str, Figure | None]]:
    """(kind, model, caption, figure or None where the records hold nothing to draw) for every model."""
    study, frame = report.study, report.numbers
    for model in study.models:
        yield "speed_quality", model, SPEED_QUALITY, figures.speed_quality(frame, model)
        yield "radar", model, RADAR, figures.radar(study, frame, model)
        yield "memory", model, "Peak memory of a video.", curves.memory(frame, model)
        yield "timeline", model, TIMELINE, curves.timeline(study, model)
        yield "drift", model, DRIFT, curves.drift(study, model)
