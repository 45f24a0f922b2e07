"""One report: RESULTS/report with tables, figures and the page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from matplotlib.figure import Figure

from reports import (
    ablations,
    curves,
    disagreements,
    figures,
    formats,
    frontier,
    frontier_figure,
    frontier_table,
    own_drift,
    page,
    paper,
    paper_layout,
    previews,
    single,
    style,
)
from reports.paper_figures import ARTEFACTS
from reports.report import Report
from store import writing

SPEED_QUALITY = (
    "Quality against speedup, with 95 % confidence intervals. Dotted line: Pareto front. Hollow marker: another line "
    "is both faster and closer to the Original, and the intervals do not overlap."
)
RADAR = (
    "Farther out is better. Speedup: over that of the fastest line. Memory: the Original's divided by the line's, at "
    "most 1. 1 − LPIPS and SSIM: similarity to the Original. PSNR: divided by 50 dB. Adherence: the share of a "
    "prompt's properties that the video shows. First chunk (with columns=streaming): the earliest time divided by the "
    "line's."
)
TIMELINE = "Decisions at each iteration, for the first prompt. Vertical axis: latent slots."
DRIFT = (
    "Distance from the Original over the time of the video: mean over prompts with a 95 % band. Dashed: fast points. "
    "Frames identical to the Original's have infinite PSNR and are drawn at the highest finite value."
)


def build(report: Report, send: bool = False) -> Path:
    """Write RESULTS/report, and return that folder.

    The page names figures that cannot be drawn. The same records give the same bytes.

    send: also write the zip to send (reports/single.py); otherwise an older one is removed.
    """
    folder = report.study.root / "report"
    formats.write(report, folder / "tables")
    paper_layout.write(report, folder / "tables")
    drawn: list[page.Drawn] = []
    for kind, model, caption, figure in draw(report):
        done = _save(figure, folder / "figures", f"{kind}_{model}")
        drawn.append(page.Drawn(kind, model, caption, done))
    for artefact in ARTEFACTS:
        like = artefact.like if any(one.kind == artefact.like and one.done for one in drawn) else ""
        same = like and len(report.study.models) == 1  # with one model nothing stands beside it
        figure = None if same else artefact.draw(report.study, report.numbers)
        done = _save(figure, folder / "figures", artefact.name)
        drawn.append(page.Drawn(artefact.name, "", artefact.title, done, artefact.experiment, like))
    ablations.write(report, folder / "tables")
    frontier_table.write(report, folder / "tables")
    paper.write(report, folder)
    disagreements.write(folder / "tables")
    previews.write(report.study.records, folder)
    with writing(folder / "index.html") as draft:
        draft.write_text(page.render(report, drawn), encoding="utf-8")
    if send:
        single.write(report, drawn)
    else:
        single.path(report.study.root).unlink(missing_ok=True)
    return folder


def _save(figure: Figure | None, folder: Path, name: str) -> bool:
    """Write a figure, or remove that of an earlier report if there is none now."""
    if figure is not None:
        style.save(figure, folder, name)
        return True
    for suffix in ("svg", "png"):
        (folder / f"{name}.{suffix}").unlink(missing_ok=True)
    return False


def draw(report: Report) -> Iterator[tuple[str, str, str, Figure | None]]:
    """(kind, model, caption, figure) for every model; the figure is None if the records hold nothing to draw."""
    study, frame, streams = report.study, report.numbers, "streaming" in report.asked
    for model in study.models:
        yield "speed_quality", model, SPEED_QUALITY + figures.undrawn(frame, model), figures.speed_quality(frame, model)
        yield "radar", model, RADAR, figures.radar(study, frame, model, streams)
        yield "memory", model, "Peak memory of a video.", curves.memory(frame, model)
        yield "timeline", model, TIMELINE, curves.timeline(study, model)
        yield "drift", model, DRIFT, curves.drift(study, model)
        yield "own_drift", model, own_drift.CAPTION, own_drift.figure(study, model)
    for panel in frontier.panels(report):
        caption = " ".join([frontier_figure.CAPTION, *frontier_table.left_out(panel)])
        yield panel.kind, panel.model, caption, frontier_figure.figure(panel.curves, panel.name)
