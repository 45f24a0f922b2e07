"""Walks through the first hour as a user would, in a fresh folder, and prints each step's seconds and verdict.

    python -m benchmarks.first_hour [FOLDER] [--frames N] [--steps N]

Its own prompts, a typo, a dry run, a sweep that is interrupted and continued, the same again, the table for an article
compiled, one zip of the page, the page in Chromium, and W&B offline read back. A step whose program is missing is
skipped, and says which. The exit status is 1 if a step failed. `--frames` and `--steps` shorten the videos.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.browser import CHROMIUM, Browser
from terminal import tolerate

ROOT = Path(__file__).resolve().parents[1]
PROMPTS = ("a red circle moves right in front of a night background", "a blue square moves up over a desert background")
MORE = "a green triangle moves down in front of a night background"  # for the logger
METHODS = "method=original,scope,teacache"
PACKAGES = "\\documentclass[twocolumn]{article}\\usepackage{booktabs,threeparttable}"
ARTICLE = PACKAGES + "\\begin{document}\\input{%s}\\end{document}"
HEADER, BLOCK = 7, 32768  # bytes of the header of a .wandb file and of a record; its blocks are LevelDB's


class Skipped(Exception):
    """A program that a step needs is missing."""


@dataclass
class Hour:
    """The folder of the walk, and what it uses."""

    folder: Path
    short: list[str] = field(default_factory=list)  # settings that shorten the videos

    @property
    def results(self) -> Path:
        return self.folder / "results"

    def python(self, *arguments: str, status: int = 0) -> str:
        """What a command says. Raises AssertionError if it ends with another status."""
        done = subprocess.run(
            [sys.executable, *arguments], cwd=self.folder, env=self.environment, capture_output=True, text=True
        )
        said = done.stdout + done.stderr
        assert done.returncode == status, f"status {done.returncode}: {said[-300:]}"
        return said

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(self.folder), "HF_HUB_OFFLINE": "1"}

    @property
    def sweep(self) -> list[str]:
        return [str(ROOT / "run.py"), "-m", METHODS, "prompts.file=mine.txt", "results=results", *self.short]


def a_typo(hour: Hour) -> str:
    said = hour.python(str(ROOT / "run.py"), "method=scop", status=1)
    assert "did you mean scope?" in said, said
    return said.strip()


def a_dry_run(hour: Hour) -> str:
    (hour.folder / "mine.txt").write_text("\n".join(PROMPTS) + "\n", encoding="utf-8")
    said = hour.python(*hour.sweep, "dry_run=true")
    assert "2 prompts of" in said and "estimated cost" in said, said
    return said.splitlines()[0]


def interrupted(hour: Hour) -> str:
    """Ctrl-C after the first video is in the store."""
    run = subprocess.Popen(
        [sys.executable, *hour.sweep],
        cwd=hour.folder,
        env=hour.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while not _videos(hour) and run.poll() is None:
        time.sleep(0.2)
    run.send_signal(signal.SIGINT)
    _, said = run.communicate()
    assert run.returncode == 130 and "the same command continues" in said, said[-300:]
    return f"{_videos(hour)} videos are kept"


def continued(hour: Hour) -> str:
    before = _videos(hour)
    said = hour.python(*hour.sweep)
    assert _videos(hour) == 6 > before, f"{before} videos, then {_videos(hour)}"
    assert "page: " in said and "next: " in said, said[-300:]
    return f"{_videos(hour) - before} videos more"


def again(hour: Hour) -> str:
    said = hour.python(*hour.sweep)
    assert "page: " in said and _videos(hour) == 6, said[-300:]
    return "nothing is generated again"


def a_table_for_an_article(hour: Hour) -> str:
    hour.python("-m", "reports", "results", "table=paper")
    if not shutil.which("pdflatex"):
        raise Skipped("pdflatex")
    table = hour.results / "report" / "tables" / "main_paper.tex"
    (table.parent / "article.tex").write_text(ARTICLE % table.name)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "article.tex"]
    said = subprocess.run(command, cwd=table.parent, capture_output=True, text=True).stdout
    if "threeparttable.sty' not found" in said:
        raise Skipped("threeparttable.sty")
    assert "Output written" in said and "Overfull" not in said, said[-300:]
    return "compiled, no overfull box"


def a_page_to_send(hour: Hour) -> str:
    hour.python("-m", "reports", "results", "single")
    (packed,) = (hour.results / "report").glob("*.zip")
    with zipfile.ZipFile(packed) as content:
        names = content.namelist()
    videos = sum(name.endswith(".mp4") for name in names)
    assert videos >= 6 and any(name.endswith("index.html") for name in names), names[:9]
    return f"{packed.name}: {videos} videos, {packed.stat().st_size / 1e6:.1f} MB"


def the_page_in_a_browser(hour: Hour) -> str:
    if not CHROMIUM:
        raise Skipped("chromium")
    with tempfile.TemporaryDirectory() as profile:
        browser = Browser(Path(profile))
        try:
            browser.send(
                "Emulation.setDeviceMetricsOverride", width=1440, height=900, deviceScaleFactor=1, mobile=False
            )
            browser.open(hour.results / "report" / "index.html")
            playing = "[...document.querySelectorAll('video')].filter((v) => v.readyState >= 2).length"
            ready = browser.until(playing, seconds=120)
            errors = [event for event in browser.events if event.get("method") == "Runtime.exceptionThrown"]
            wide = browser.eval("document.documentElement.scrollWidth <= innerWidth")
        finally:
            browser.close()
    assert ready and wide and not errors, f"{ready} videos, fits: {wide}, errors: {errors[:1]}"
    return f"{ready} videos can play, no error, no scroll bar across"


def wandb_offline(hour: Hour) -> str:
    own = [argument for argument in hour.sweep if not argument.startswith("prompts")]  # a run is sent when it is made
    said = hour.python(*own, f'prompts.list=["{MORE}"]', "logger=wandb", "logger.mode=offline")
    assert "wandb sync" in said, said[-300:]
    files = sorted((hour.results / ".logs").rglob("*.wandb"))
    assert files, "no .wandb file"
    names = {name for file in files for name in _summary(file)}
    assert {"psnr", "executed_fraction"} <= names, sorted(names)
    return f"{len(files)} runs, {len(names)} values in their summaries"


def _summary(path: Path) -> Iterator[str]:
    """The names in the summary of a .wandb file: records in LevelDB's log of 32 KiB blocks after a header."""
    from wandb.proto import wandb_internal_pb2

    data, at, part = path.read_bytes(), HEADER, b""
    while at + HEADER <= len(data):
        if (left := BLOCK - at % BLOCK) < HEADER:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + HEADER])
        part += data[at + HEADER : at + HEADER + size]
        at += HEADER + size
        if kind in (1, 4):  # a whole record, or the last part of one
            record: Any = vars(wandb_internal_pb2)["Record"]()  # made at import
            record.ParseFromString(part)
            part = b""
            yield from (update.key or "/".join(update.nested_key) for update in record.summary.update)


def _videos(hour: Hour) -> int:
    return sum(1 for _ in hour.results.glob("*/*/*/run.json"))


STEPS: tuple[Callable[[Hour], str], ...] = (
    a_typo,
    a_dry_run,
    interrupted,
    continued,
    again,
    a_table_for_an_article,
    a_page_to_send,
    the_page_in_a_browser,
    wandb_offline,
)


def walk(hour: Hour) -> int:
    """Take every step; the number of those that failed."""
    failed = 0
    for step in STEPS:
        begin = time.perf_counter()
        try:
            verdict, said = "ok", step(hour)
        except Skipped as missing:
            verdict, said = "skipped", f"{missing} is not installed"
        except Exception as error:
            verdict, said, failed = "FAILED", f"{type(error).__name__}: {error}", failed + 1
        text = re.sub(r"\s+", " ", said)[:160]
        print(
            f"{step.__name__.replace('_', ' '):24} {time.perf_counter() - begin:7.1f} s  {verdict:8}{text}", flush=True
        )
    return failed


def main(arguments: list[str] | None = None) -> int:
    """Walk in a fresh folder; 1 if a step failed."""
    tolerate()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first_hour", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, help="a folder that is not there yet; default: a temporary one")
    parser.add_argument("--frames", type=int, help="frames of a video; default: those of the preset")
    parser.add_argument("--steps", type=int, help="denoising steps; default: those of the preset")
    options = parser.parse_args(arguments)
    short = [f"model.{name}={value}" for name in ("frames", "steps") if (value := getattr(options, name))]
    with tempfile.TemporaryDirectory() as scratch:
        folder = (options.folder or Path(scratch) / "hour").absolute()
        folder.mkdir(parents=True)
        return int(bool(walk(Hour(folder, short))))


if __name__ == "__main__":
    sys.exit(main())
