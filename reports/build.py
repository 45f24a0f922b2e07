"""One report: RESULTS/report with tables, figures and the page."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from reports import curves, figures, formats, page, style, tables
from reports.records import Study, load
from store import writing


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
    drawn = {}
    for name, caption, figure in draw(study, frame):
        if figure is not None:
            style.save(figure, report / "figures", name)
        drawn[name] = (caption, figure is not None)
    with writing(report / "index.html") as draft:
        draft.write_text(page.render(study, frame, drawn), encoding="utf-8")
    return report


def draw(study: Study, frame: pd.DataFrame) -> Iterator[tuple[str, str, Figure | None]]:
    """(file name, caption, figure or None where the records hold nothing to draw) for every model."""
    for model in study.models:
        yield (f"speed_quality_{model}", "Quality against speedup, with 95 % intervals. Dotted: the Pareto front. Hollow: "
               "another row is faster and closer, intervals apart.", figures.speed_quality(frame, model))  # fmt: skip
        yield (f"radar_{model}", "Speed, memory and quality, outwards is better; memory is the Original's over the row's.",
               figures.radar(study, frame, model))  # fmt: skip
        yield f"memory_{model}", "Peak memory of a video.", curves.memory(frame, model)
        yield (f"timeline_{model}", "What was decided, for the first prompt. Upwards: latent slots.",
               curves.timeline(study, model))  # fmt: skip
        yield (f"drift_{model}", "Distance from the Original over the time of the video: mean over prompts, 95 % band.",
               curves.drift(study, model))  # fmt: skip
