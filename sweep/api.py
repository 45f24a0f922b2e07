"""The program as four functions: generate a video, compare two, load records as a table, plan a cost. docs/api.md.

Settings are words as on the command line of run.py, `method=scope`, `speed=fast`, and are checked in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import open_dict

from conf.schema import CONF
from conf.words import quoted, words
from eval import metrics
from eval.video import read
from reports import records
from store import Record, Store, StoreError
from sweep.cell import Cell, Order
from sweep.cost import dry_run, found, survey, totals
from sweep.make_videos import make

FRAMES = "frames.mp4"


def generate(prompt: str, *settings: str, results: str | PathLike = "results", menu: str | PathLike = "") -> Record:
    """The record of one video, generated into `results` unless the store has it; also its Original.

    Args:
        prompt: the text.
        settings: words of run.py, e.g. "model=skyreels_tiny", "method=scope", "speed=fast", "seeds=[1]".
        menu: a folder with more models and methods, as --config-dir.

    Raises ConfigError or WeightsError before anything is generated; StoreError if the video is missing afterwards.
    """
    cell = _cell([f"prompts.list=[{quoted(prompt)}]", *settings], results, menu)
    store = Store(Path(cell.run.results).expanduser().absolute())
    make([cell], store)
    record = found(store, cell.jobs()[-1])
    if record is None or record.status == "failed":
        raise StoreError(f"{cell.label}: {record.run.get('reason') if record else 'another process is generating it'}")
    return record


def frames(record: Record) -> np.ndarray:
    """The frames of a record, uint8 (T, H, W, 3) RGB. Raises StoreError if it has none, e.g. in a bundle."""
    path = record.path / FRAMES
    if not path.exists():
        raise StoreError(f"{record.path} has no {FRAMES}; frames are only in the results folder that generated them")
    return np.concatenate(list(read(path)))


def compare(reference: Record | str | PathLike, video: Record | str | PathLike, **options: Any) -> metrics.Similarity:
    """PSNR, SSIM and LPIPS of a video against a reference, each a record or a file; `options` as of metrics.compare."""
    a, b = (one.path / FRAMES if isinstance(one, Record) else Path(one) for one in (reference, video))
    return metrics.compare(a, b, **options)


def load(*places: str | PathLike) -> pd.DataFrame:
    """One line per video of results folders and bundles.

    The columns are those of reports/video.py, and: `speedup` and `flops_speedup` over the video's own Original;
    `decisions`, a dict with the number of decisions by mode; `modes`, one letter per decision (c, p, r);
    `psnr_frames`, `ssim_frames` and `lpips_frames`, lists with a value per frame, empty if not scored.

    Raises StoreError for a missing folder or bundle.
    """
    study = records.load(*map(Path, places))
    table = study.videos.copy()
    every = [study.records[n] for n in table["record"]]
    curves = [(record.quality or {}).get("per_frame") or {} for record in every]
    table["decisions"] = [dict(record.run.get("decisions") or {}) for record in every]
    table["modes"] = ["".join(entry["mode"][0] for entry in record.trace()) for record in every]
    for name in ("psnr", "ssim", "lpips"):
        table[f"{name}_frames"] = [list(curve.get(name) or ()) for curve in curves]
    return table.drop(columns=["record", "original"])


def plan(*settings: str, results: str | PathLike = "results", menu: str | PathLike = "") -> dict[str, Any]:
    """The cost of a cell, as `python run.py ... dry_run=true` prints it: forwards, FLOPs, GPU-hours, disk.

    Needs no weights and generates nothing. Raises ConfigError.
    """
    cell = _cell(settings, results, menu)
    return dry_run(cell) | totals(survey([cell]))


def cell_of(*settings: str, results: str | PathLike = "results", menu: str | PathLike = "") -> Cell:
    """The checked cell of these settings, with a plan in place of the model. Raises ConfigError."""
    return _cell(settings, results, menu, planned=True)


def _cell(settings: Sequence[str], results: str | PathLike, menu: str | PathLike, planned: bool = False) -> Cell:
    """The checked cell of a command line."""
    given = [f"results={quoted(str(results))}", *settings]
    given += [f"hydra.searchpath=[{quoted(f'file://{Path(menu).absolute()}')}]"] if menu else []
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=words(given), return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        with open_dict(config):
            del config["hydra"]
        return Cell.of(Order.of(config), planned)
