"""One report: RESULTS/report with tables, figures and the page."""

from __future__ import annotations

import os
from pathlib import Path

from reports import formats, tables
from reports.records import load


def build(results: str | os.PathLike) -> Path:
    """Write RESULTS/report from the records under `results`, and return that folder.

    Raises:
        StoreError: there is no such folder.
    """
    study = load(Path(results))
    report = study.root / "report"
    frame = tables.main(study)
    formats.write(study, frame, report / "tables")
    return report
