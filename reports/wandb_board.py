"""`python -m reports wandb PROJECT [RESULTS ...]`: a report as runs on W&B, to look at and to filter.

Per model it makes one overview run and one run per prompt (reports/dashboard.py). Plain `wandb` has no function that
saves the layout of a workspace or a report (the package wandb-workspaces has). So the layout comes from names: W&B
makes one section of panels per prefix (`main/`, `charts/`, `speedup/`, ...), and groups runs by `group` and `config`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from reports import wandb_run
from reports.dashboard import Board, Clip, boards
from reports.report import read
from store import StoreError

PROMPTS = 16  # prompts of a model that are sent with videos; raising it: a longer upload
CHARTS = {"speed_quality": ("speedup", "lpips"), "flops_quality": ("flops_speedup", "psnr")}  # scatter plots: x, y
DPI = 150  # of figures
BARS = ("speedup", "flops_speedup")


def main(arguments: Sequence[str]) -> int:
    """The command line. Returns 0, or 1 for a name that W&B refuses, or for a folder or bundle that is none."""
    options = _parser().parse_args(arguments)
    wrong = wandb_run.refused(options.project, options.mode)
    if options.prompts < 0:
        wrong = f"--prompts {options.prompts}: want 0 (only the overviews) or more"
    if wrong:
        print(f"error: {wrong}", file=sys.stderr)
        return 1
    places = [Path(word).expanduser().absolute() for word in options.results]
    try:
        report = read(*places)
    except StoreError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    made = list(boards(report, options.prompts))
    wrong = wandb_run.refused(options.project, options.mode, names=[board.name for board in made])
    if wrong:
        print(f"error: {wrong}", file=sys.stderr)
        return 1
    folder = report.study.root / ".logs" / "wandb"
    where = send(made, options.project, options.entity, options.mode, folder)
    print(f"{len(made)} runs: {where}")
    return 0


def send(made: Sequence[Board], project: str, entity: str, wanted: str, folder: Path) -> str:
    """Send the boards, each as one run. Returns where they are: an address, or the folder of offline runs."""
    now = wandb_run.mode(wanted)
    wandb = wandb_run.package(now)
    folder.mkdir(parents=True, exist_ok=True)
    where = ""
    try:
        for board in made:
            run = wandb_run.start(
                wandb,
                folder,
                now,
                board.id,
                project=project,
                entity=entity or None,
                group=board.model,
                job_type=board.kind,
                name=board.name,
                tags=[board.kind],
                config=board.config,
            )
            try:
                run.log(media(wandb, board))
                run.summary.update(board.summary)
                offline = bool(run.settings._offline)
                where = f"{folder}, offline; send them with: wandb sync {folder}/wandb/offline-run-*"
                where = where if offline else str(run.project_url)
            finally:
                run.finish()
    finally:
        wandb.teardown()  # waits until the offline files are complete
    return where


def media(wandb: Any, board: Board) -> dict[str, Any]:
    """What a run shows: the table with videos and timelines, a panel for each of these, charts and figures."""
    found: dict[str, Any] = {f"main/{board.kind}": table(wandb, board.table)}
    for name, drawn in board.pictures.items():
        found[name] = wandb.Image(_pixels(drawn)) if isinstance(drawn, Figure) else _cell(wandb, drawn)
    if board.kind != "overview":
        return found
    for name, (x, y) in CHARTS.items():
        points = board.table[["line", x, y]].dropna()
        if len(points):
            title = f"{y} against {x}, {board.model}"
            found[f"charts/{name}"] = wandb.plot.scatter(table(wandb, points), x, y, title=title)
    for name in BARS:
        bars = board.table[["line", name]].dropna()
        if len(bars):
            found[f"charts/{name}"] = wandb.plot.bar(table(wandb, bars), "line", name, title=f"{name}, {board.model}")
    return found


def table(wandb: Any, frame: pd.DataFrame) -> Any:
    """A W&B table; videos and pictures become media, and what is unknown stays empty."""
    rows = [[_cell(wandb, value) for value in row] for row in frame.astype(object).itertuples(index=False, name=None)]
    return wandb.Table(columns=list(frame.columns), data=rows, allow_mixed_types=True)


def _cell(wandb: Any, value: Any) -> Any:
    if isinstance(value, Clip):
        return wandb.Video(str(value.path), format="mp4")
    if isinstance(value, np.ndarray):
        return wandb.Image(value)
    return None if isinstance(value, float) and pd.isna(value) else value


def _pixels(figure: Figure) -> Image.Image:
    """A figure as a picture. wandb takes figures too, but only where pyplot was imported before."""
    png = BytesIO()
    figure.savefig(png, format="png", dpi=DPI)
    return Image.open(png)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m reports wandb", description="send a report to Weights & Biases; offline without a key"
    )
    parser.add_argument("project", help="name of the project on W&B")
    parser.add_argument("results", nargs="*", default=["results"], help="results folders and bundles")
    parser.add_argument("--entity", default="", help="user or team; default: that of the key")
    parser.add_argument("--mode", default="auto", choices=("auto", "online", "offline"), help="auto: online with a key")
    parser.add_argument("--prompts", type=int, default=PROMPTS, help=f"prompts sent with videos; default {PROMPTS}")
    return parser
