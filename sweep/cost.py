"""Estimates the cost of a sweep before anything is built or generated: forwards, FLOPs, GPU-hours, disk."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf.schema import Run
from engine.ledger import flops, forwards, plan
from engine.row import Row
from engine.weights import WeightsError
from store import Record, Store, StoreError
from sweep.cell import VIDEOS, Cell, Job, label
from sweep.events import wanted
from sweep.peaks import memory
from sweep.replay import own

if TYPE_CHECKING:
    from engine.backbone import Backbone

LOSSLESS = 0.5  # assumed bytes of frames.mp4 per byte of frames, until the store has a video of the model
GB = 1e9
SMALL = 0.01  # PFLOP of a video: below this a CPU is what it is meant for
OF_PRODUCTS = 0.4  # of the rate of matrix products, what the small models reach with their many small operations
PUBLISHED = {"skyreels": 245.01, "magi1": 81.09}  # PFLOP of the Original, SCOPE's Table 1


def dry_run(cell: Cell) -> dict[str, Any]:
    """The cost of a video of this cell.

    `flops_pf` and `forwards` count every step, without the frames that selective computation omits: no video takes
    more. `planned_pf` is what this method will execute, and `planned_from` says how that is known (sweep/replay.py).
    """
    model = cell.model
    rows = [cell.method.narrow(row) for row in model.schedule()]
    dense, masked, passes = planned(model, rows)
    expects = own(model, cell.method, (dense, masked, passes), measured(cell), expected(cell))
    found = {
        "model": model.name,
        "method": cell.name,
        "speed": cell.speed,
        "iterations": len(rows),
        "forwards": passes,
        "segments": [sum(row.segment == s for row in rows) for s in sorted({row.segment for row in rows})],
        "flops_pf": {"dense": round(dense / 1e15, 4), "masked": round(masked / 1e15, 4)},
        "planned_pf": {"dense": round(expects.dense / 1e15, 4), "masked": round(expects.masked / 1e15, 4)},
        "planned_from": expects.basis,
        "planned_forwards": expects.forwards or None,
        "parameters": model.parameters,
        "memory_gb": memory(model, cell.method).told(),
        "videos": sum(job.reference is not None or cell.name == "original" for job in cell.jobs()),
    }
    return found | model.plan_counts()


def planned(model: Backbone, rows: Sequence[Row]) -> tuple[float, float, int]:
    """FLOPs in both conventions and the number of forwards of a video, if no step is skipped."""
    asked: Any = model  # hashable, though the protocol does not say so
    return _planned(asked, tuple(rows))


@lru_cache(maxsize=256)
def _planned(model: Any, rows: tuple[Row, ...]) -> tuple[float, float, int]:
    ledger = plan(rows)
    dense, masked = flops(ledger, model.price)
    return dense, masked, forwards(ledger, len(model.branches))


def measured(cell: Cell) -> list[float]:
    """The dense FLOPs of every video of this cell's line in the store."""
    root = Path(cell.run.results).expanduser().absolute()
    if not root.is_dir():
        return []
    return _past(root).executed.get(f"{cell.model.name}/{label(cell.name, cell.speed)}", [])


@dataclass
class Line:
    """The videos of one line of the table. Each is counted once per sweep, because all methods share Originals."""

    model: str
    method: str
    videos: int = 0
    todo: int = 0
    forwards: int = 0  # per video, like the next four; if no step is skipped
    pflop: float = 0.0  # what the method will execute
    bound: float = 0.0  # PFLOP if no step is skipped
    counted: str = ""  # how `pflop` is known
    seconds: float = 0.0
    disk: float = 0.0  # bytes
    basis: str = ""  # source of the seconds


@dataclass
class Past:
    """Measured seconds and bytes in the store, by model and by line."""

    seconds: dict[str, list[float]] = field(default_factory=dict)  # line: seconds of every video
    rates: dict[str, list[float]] = field(default_factory=dict)  # model: seconds per executed PFLOP
    sizes: dict[str, list[int]] = field(default_factory=dict)  # model: bytes of every video
    executed: dict[str, list[float]] = field(default_factory=dict)  # line: dense FLOPs of every video

    @classmethod
    def of(cls, records: Iterable[Record]) -> Past:
        past = cls()
        for record in records:
            if record.status != "ok":
                continue
            model, cell = record.path.parts[-3:-1]
            seconds = float(record.run.get("seconds", {}).get("total") or 0)
            dense = float(record.run.get("flops", {}).get("dense") or 0) / 1e15
            if seconds:
                past.seconds.setdefault(f"{model}/{cell}", []).append(seconds)
            if dense:
                past.executed.setdefault(f"{model}/{cell}", []).append(dense * 1e15)
            if seconds and dense:
                past.rates.setdefault(model, []).append(seconds / dense)
            size = sum(sealed["bytes"] for sealed in record.run.get("files", {}).values())
            past.sizes.setdefault(model, []).append(size)
        return past

    def estimate(self, line: Line, job: Job, rate: float) -> None:
        """Set the seconds and bytes of a video of `line`.

        `rate` (PFLOP/s) is assumed if nothing was measured; of a small model on a CPU, unless it was given, what this
        machine does.
        """
        cell, settings = f"{line.model}/{line.method}", job.model.settings
        if cell in self.seconds:
            line.seconds, line.basis = _mean(self.seconds[cell]), f"measured on {len(self.seconds[cell])}"
        elif line.model in self.rates:
            per_pflop = _mean(self.rates[line.model])
            line.seconds, line.basis = line.pflop * per_pflop, f"{per_pflop:.3g} s per PFLOP measured on the model"
        elif job.model.device.type == "cpu" and line.pflop < SMALL and rate == Run.pflops:
            own = cpu_rate()
            line.seconds, line.basis = line.pflop / own, f"about {own * 1e6:.2g} GFLOP/s of this CPU"
        else:
            line.seconds, line.basis = line.pflop / rate, f"assumed {rate:g} PFLOP/s"
        if line.pflop < line.bound and cell not in self.seconds:
            line.basis = f"{line.basis}, {line.pflop / line.bound:.0%} of the FLOPs"
        raw = settings.frames * settings.height * settings.width * 3
        line.disk = _mean(self.sizes[line.model]) if line.model in self.sizes else raw * LOSSLESS


def found(store: Store, job: Job) -> Record | None:
    """The record of a job, or None. Only the sizes of its files are checked."""
    return store.find(job.model.name, job.name, job.speed, job.key, verify=False)


def open_jobs(cell: Cell) -> Iterator[Job]:
    """The jobs of a cell whose videos are not in the store. Raises StoreError for a newer schema."""
    root = Path(cell.run.results).expanduser().absolute()
    store = Store(root, create=False) if root.is_dir() else None
    for job in cell.jobs():
        if store is None or wanted(found(store, job), cell.run):
            yield job


def outstanding(cells: Iterable[Cell]) -> list[tuple[str, int]]:
    """The label of each cell, and the number of videos that it will generate if the cells run one after another."""
    lacking, seen = [], set[tuple[str, str]]()
    for cell in cells:
        keys = set[tuple[str, str]]()
        with suppress(StoreError):  # the cell itself will report it
            if cell.run.task == VIDEOS:
                keys = {(cell.run.results, job.key) for job in open_jobs(cell)} - seen
        lacking.append((cell.label, len(keys)))
        seen |= keys
    return lacking


def survey(cells: Sequence[Cell], measured: bool = True) -> list[Line]:
    """The lines of the sweep with their remaining work. `measured`: use seconds and bytes from the store."""
    lines: dict[tuple[str, str], Line] = {}
    seen: set[tuple[Any, ...]] = set()
    for cell in cells:
        root = Path(cell.run.results).expanduser().absolute()
        store = Store(root, create=False) if root.is_dir() else None
        past = _past(root) if measured and store else Past()
        for job in cell.jobs():
            key = _key(job) if store else (job.prompt, job.seed, repr(job.method))
            line = lines.get((job.model.name, job.label))
            if line is None:
                line = _line(cell, job, past)
                past.estimate(line, job, cell.run.pflops)
                lines[line.model, line.method] = line
            if (root, line.model, line.method, key) in seen:
                continue
            seen.add((root, line.model, line.method, key))
            there = store and isinstance(key, str) and store.find(job.model.name, job.name, job.speed, key, False)
            line.videos += 1
            line.todo += bool(wanted(there or None, cell.run))
    _past.cache_clear()
    return list(lines.values())


def _line(cell: Cell, job: Job, past: Past) -> Line:
    """The line of a job with the work of its video."""
    bound = planned(job.model, [job.method.narrow(row) for row in job.model.schedule()])
    line = Line(job.model.name, job.label, forwards=bound[2], bound=bound[0] / 1e15)
    known = past.executed.get(f"{line.model}/{line.method}", [])
    expects = own(job.model, job.method, bound, known, expected(cell) if job.reference else 1.0)
    line.pflop, line.counted = expects.dense / 1e15, expects.basis
    return line


def expected(cell: Cell) -> float:
    """The share of the Original's FLOPs that the operating point is published to execute; 1 if it says nothing."""
    published, original = cell.run.point.expects.get("flops_pf", 0.0), PUBLISHED.get(cell.model.name, 0.0)
    return min(1.0, published / original) if published and original else 1.0


@cache
def cpu_rate() -> float:
    """PFLOP/s of a small model on this CPU: a share of what a product of matrices reaches, measured in some 20 ms."""
    import numpy as np

    size, best = 512, math.inf
    matrix = np.ones((size, size), np.float32)
    for _ in range(4):
        begin = time.perf_counter()
        matrix @ matrix
        best = min(best, time.perf_counter() - begin)
    return OF_PRODUCTS * 2 * size**3 / best / 1e15


def _key(job: Job) -> str | tuple[Any, ...]:
    """The job's key; without weights, another unique value."""
    try:
        return job.key
    except WeightsError:
        return (job.prompt, job.seed, repr(job.method))


@cache
def _past(root: Path) -> Past:
    return Past.of(Store(root, create=False).records())


def gpu_hours(lines: Iterable[Line]) -> float:
    """Hours of one device for the remaining work. Without measurements, no step counts as skipped."""
    return sum(line.todo * line.seconds for line in lines) / 3600


def disk_needed(lines: Iterable[Line]) -> float:
    """Bytes of the remaining videos."""
    return sum(line.todo * line.disk for line in lines)


def totals(lines: Sequence[Line]) -> dict[str, Any]:
    """The totals of a cell and the Originals that it needs, for the line of JSON."""
    todo = sum(line.todo for line in lines)
    return {
        "done": sum(line.videos for line in lines) - todo,
        "todo": todo,
        "gpu_hours": float(f"{gpu_hours(lines):.4g}"),
        "seconds_from": {line.method: line.basis for line in lines},
        "disk_gb": float(f"{disk_needed(lines) / GB:.4g}"),
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
