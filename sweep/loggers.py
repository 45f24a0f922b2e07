"""Sends runs to W&B, TensorBoard or trackio: one for every finished cell, and one for the report.

The store has all data, and loggers get a copy: an error of a logger is printed and stops nothing. A run has the
composed settings, the share of each mode at every iteration, the main numbers, a video and its timeline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from conf.schema import Logging
from store import Record, Store, fingerprint
from sweep.cell import Cell

COLOURS = {"cache": (134, 143, 153), "predict": (178, 106, 0), "recompute": (47, 111, 168)}  # as in the figures
PIXELS = 6  # height of a slot and width of an iteration in the timeline
BACKENDS = {"wandb": "sweep.log_wandb", "tensorboard": "sweep.log_tensorboard", "trackio": "sweep.log_trackio"}


@dataclass
class Told:
    """The content of one run, for any logger."""

    id: str  # the same for the same cell, so that a logger can continue its run
    name: str
    group: str
    job: str  # "bench" or "report"
    tags: list[str]
    config: dict[str, Any]
    history: list[dict[str, float]] = field(default_factory=list)  # one mapping per iteration
    summary: dict[str, float | str] = field(default_factory=dict)
    pictures: dict[str, Path | np.ndarray] = field(default_factory=dict)  # files, or RGB (H, W, 3) uint8
    videos: dict[str, Path] = field(default_factory=dict)
    tables: dict[str, Path] = field(default_factory=dict)  # csv files


class Backend(Protocol):
    """A module that sends one run to a logger and finishes it."""

    def send(self, told: Told, options: Logging, folder: Path) -> None: ...


def log_cell(cell: Cell, store: Store, say: Callable[[str], None]) -> None:
    """Send the run of a finished cell."""
    _send(cell.run.logger, store.root, say, lambda: of_cell(cell, store))


def log_report(options: Logging, results: Path, say: Callable[[str], None]) -> None:
    """Send the report of a results folder: the table, and the Pareto front and the radar of every model."""
    _send(options, results, say, lambda: of_report(options, results))
    runs = results.absolute() / ".logs" / "wandb" / "wandb"
    if options.name == "wandb" and any(runs.glob("offline-run-*")):
        say(f"W&B: offline in {runs}; send the runs with: wandb sync {runs}/offline-run-*")


def _send(options: Logging, results: Path, say: Callable[[str], None], told: Callable[[], Told]) -> None:
    if options.name == "none":
        return
    try:
        backend: Any = import_module(BACKENDS[options.name])
        folder = results.absolute() / ".logs" / options.name
        folder.mkdir(parents=True, exist_ok=True)
        backend.send(told(), options, folder)
    except Exception as error:
        say(f"logger={options.name} did not get this run ({type(error).__name__}: {error}); the store is complete")


def of_cell(cell: Cell, store: Store) -> Told:
    """The run of a cell: its videos without their Originals."""
    jobs = [job for job in cell.jobs() if job.name == cell.name]
    found = [store.find(cell.model.name, job.name, job.speed, job.key) for job in jobs]
    records = [record for record in found if record is not None]
    valid = [record for record in records if record.status == "ok"]
    shown = next((record for record in valid if (record.path / "video.mp4").exists()), None)
    key = fingerprint({"keys": [job.key for job in jobs]})
    tags = [cell.model.name, cell.name, *filter(None, [cell.speed]), str(cell.model.settings.weights)]
    told = Told(
        key,
        f"{cell.model.name}-{jobs[0].label}-{key}",
        _group(cell.run.logger, store.root),
        "bench",
        tags,
        cell.composed,
        history(record.trace() for record in valid),
        summary(records),
    )
    if shown is not None:
        told.videos["video"] = shown.path / "video.mp4"
        told.pictures["timeline"] = timeline(shown.trace())
    return told


def of_report(options: Logging, results: Path) -> Told:
    """The main table and the figures that RESULTS/report holds."""
    report = results / "report"
    kinds = ("speed_quality_*", "radar_*", "timeline_*", "fig[0-9]*")
    figures = {path.stem: path for kind in kinds for path in sorted((report / "figures").glob(f"{kind}.png"))}
    tables = {path.stem: path for path in sorted((report / "tables").glob("*.csv"))}
    name = f"report-{results.name}"
    return Told(
        fingerprint({"report": str(results)}),
        name,
        _group(options, results),
        "report",
        ["report"],
        {"results": str(results)},
        pictures=dict(figures),
        tables=tables,
    )


def _group(options: Logging, results: Path) -> str:
    return options.group or results.name


def history(traces: Iterable[Sequence[Mapping[str, Any]]]) -> list[dict[str, float]]:
    """One mapping per iteration: the share of each mode among its decisions, the mean score, the noise level."""
    rows: dict[int, list[Mapping[str, Any]]] = {}
    for trace in traces:
        for entry in trace:
            rows.setdefault(int(entry["iteration"]), []).append(entry)
    found = []
    for iteration, entries in sorted(rows.items()):
        row = {"iteration": float(iteration), "sigma": float(np.mean([entry["sigma"] for entry in entries]))}
        for mode in COLOURS:
            row[f"decisions/{mode}"] = sum(entry["mode"] == mode for entry in entries) / len(entries)
        scores = [entry["score"] for entry in entries if entry["score"] is not None]
        found.append(row | ({"decisions/score": float(np.mean(scores))} if scores else {}))
    return found


def summary(records: Sequence[Record]) -> dict[str, float | str]:
    """The main numbers: means over the valid videos, and the number of videos of each status."""
    told: dict[str, float | str] = {
        f"videos/{status}": sum(record.status == status for record in records) for status in ("ok", "invalid", "failed")
    }
    valid = [record for record in records if record.status == "ok"]
    for name, of in NUMBERS.items():
        values = [value for record in valid if (value := of(record)) is not None]
        if values:
            told[name] = float(np.mean(values))
    reasons = {str(record.run.get("reason")) for record in records if record.status != "ok"}
    return told | ({"reasons": "; ".join(sorted(reasons))} if reasons else {})


def _quality(name: str) -> Callable[[Record], float | None]:
    return lambda record: (record.quality or {}).get(name)


NUMBERS: dict[str, Callable[[Record], float | None]] = {
    "seconds/total": lambda record: record.run["seconds"]["total"],
    "seconds/denoise": lambda record: record.run["seconds"]["denoise"],
    "pflop": lambda record: record.run["flops"]["dense"] / 1e15,
    "executed_fraction": lambda record: record.run["flops"]["executed_fraction"],
    "forwards": lambda record: record.run["forwards"],
    "peak_memory_gb": lambda record: record.run["peak_memory"]["allocated"] / 1e9,
    **{name: _quality(name) for name in ("psnr", "ssim", "lpips")},
}


def timeline(trace: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Slots (upwards) by iterations (rightwards) in the colours of the modes, RGB uint8. If branches differ, the most
    expensive mode is shown."""
    slots = max((entry["active"][1] for entry in trace), default=1)
    grid = np.full((slots, 1 + max((entry["iteration"] for entry in trace), default=0)), -1)
    for entry in trace:
        cells = grid[slice(*entry["active"]), entry["iteration"]]
        np.maximum(cells, list(COLOURS).index(entry["mode"]), out=cells)
    palette = np.array([*COLOURS.values(), (255, 255, 255)], np.uint8)  # the last colour is for -1
    return np.kron(palette[grid[::-1]], np.ones((PIXELS, PIXELS, 1), np.uint8))
