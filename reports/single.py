"""RESULTS/report/NAME.zip: the page with its videos, figures and tables, to send; unpacked anywhere, it plays."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from reports import previews
from reports.page import Drawn, render
from reports.players import prompts
from reports.report import Report
from store import writing

PARTS = ("paper.html", "figures", "tables", previews.FOLDER)  # of RESULTS/report, besides the page
VIDEOS = "videos"  # the folder for videos inside the zip
PACKED = (".mp4", ".png")  # not compressed again
DATE = (1980, 1, 1, 0, 0, 0)  # the same report gives the same bytes


def path(results: Path) -> Path:
    """Where the zip of a results folder is written."""
    return results / "report" / f"{results.absolute().name or 'results'}.zip"


def write(report: Report, drawn: list[Drawn]) -> Path:
    """Write the zip of a report that is already built, and return its path.

    It holds one folder: index.html, what the page links to, and the videos that it shows.
    """
    target = path(report.study.root)
    with writing(target) as draft, zipfile.ZipFile(draft, "w") as archive:
        _add(archive, f"{target.stem}/index.html", render(report, drawn, videos=VIDEOS).encode())
        for name, file in _files(report, target.parent):
            _add(archive, f"{target.stem}/{name}", file.read_bytes())
    return target


def _files(report: Report, folder: Path) -> Iterator[tuple[str, Path]]:
    """(name inside the zip, file) of all but the page, in a fixed order."""
    for part in PARTS:
        whole = folder / part
        for file in [whole] if whole.is_file() else sorted(whole.rglob("*")):
            if file.is_file():
                yield file.relative_to(folder).as_posix(), file
    shown, _ = prompts(report.study, VIDEOS)
    for name in dict.fromkeys(player["video"] for prompt in shown for player in prompt["players"] if player["video"]):
        inside = unquote(name)
        if inside.startswith(f"{previews.FOLDER}/"):
            continue
        yield inside, report.study.root / inside.removeprefix(f"{VIDEOS}/")


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, DATE)
    entry.compress_type = zipfile.ZIP_STORED if name.endswith(PACKED) else zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, content)
