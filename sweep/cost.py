"""What a sweep would cost, before anything is built or generated: forwards, FLOPs, GPU-hours, disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from rich.table import Table

from engine.ledger import flops, forwards, plan
from engine.row import Row
from engine.weights import WeightsError
from store import Record, Store, StoreError
from sweep.cell import VIDEOS, Cell, Job
from sweep.make_videos import out, wanted

LOSSLESS = 0.5  # bytes that frames.mp4 takes per byte of frames, where the store has no video of the model yet
GB = 1e9


def dry_run(cell: Cell) -> dict[str, Any]:
    """What a video of this cell would cost if no step were skipped; frames left out by selective computation are."""
    model = cell.model
    rows = [cell.method.narrow(row) for row in model.schedule()]
    dense, masked, passes = planned(model, rows)
    found = {
        "model": model.name,
        "method": cell.name,
        "speed": cell.speed,
        "iterations": len(rows),
        "forwards": passes,
        "segments": [sum(row.segment == s for row in rows) for s in sorted({row.segment for row in rows})],
        "flops_pf": {"dense": round(dense / 1e15, 4), "masked": round(masked / 1e15, 4)},
        "parameters": model.parameters,
        "videos": sum(job.reference is not None or cell.name == "original" for job in cell.jobs()),
    }
    return found | (model.plan_counts() if hasattr(model, "plan_counts") else {})


def planned(model: Any, rows: Sequence[Row]) -> tuple[float, float, int]:
    """FLOPs in both conventions and forwards of a video, if no step is skipped."""
    ledger = plan(rows)
    dense, masked = flops(ledger, model.price)
    return dense, masked, forwards(ledger, len(model.branches))


@dataclass
class Line:
    """The videos of one row of the table, each counted once in the whole sweep: Originals serve every method."""

    model: str
    method: str
    videos: int = 0
    todo: int = 0
    forwards: int = 0  # per video, as the two below
    pflop: float = 0.0
    seconds: float = 0.0
    disk: float = 0.0  # bytes
    basis: str = ""  # where the seconds come from


@dataclass
class Past:
    """What the store knows of seconds and bytes, by model and by row."""

    seconds: dict[str, list[float]] = field(default_factory=dict)  # of a row: of every video
    rates: dict[str, list[float]] = field(default_factory=dict)  # of a model: seconds per executed PFLOP
    sizes: dict[str, list[int]] = field(default_factory=dict)  # of a model: bytes of a video

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
            if seconds and dense:
                past.rates.setdefault(model, []).append(seconds / dense)
            size = sum(sealed["bytes"] for sealed in record.run.get("files", {}).values())
            past.sizes.setdefault(model, []).append(size)
        return past

    def estimate(self, line: Line, job: Job, rate: float) -> None:
        """Fill in seconds and bytes of a video of `line`; `rate`, PFLOP/s, is assumed where nothing was measured."""
        row, settings = f"{line.model}/{line.method}", job.model.settings
        if row in self.seconds:
            line.seconds, line.basis = _mean(self.seconds[row]), f"measured on {len(self.seconds[row])}"
        elif line.model in self.rates:
            per_pflop = _mean(self.rates[line.model])
            line.seconds, line.basis = line.pflop * per_pflop, f"{per_pflop:.3g} s per PFLOP measured on the model"
        else:
            line.seconds, line.basis = line.pflop / rate, f"assumed {rate:g} PFLOP/s"
        raw = settings.frames * settings.height * settings.width * 3
        line.disk = _mean(self.sizes[line.model]) if line.model in self.sizes else raw * LOSSLESS


def found(store: Store, job: Job) -> Record | None:
    """The record of a job, by the sizes of its files."""
    return store.find(job.model.name, job.name, job.speed, job.key, verify=False)


def open_jobs(cell: Cell) -> Iterator[Job]:
    """The jobs of a cell that the store lacks. StoreError: newer schema."""
    root = Path(cell.run.results).expanduser().absolute()
    store = Store(root, create=False) if root.is_dir() else None
    for job in cell.jobs():
        if store is None or wanted(found(store, job), cell.run):
            yield job


def outstanding(cells: Iterable[Cell]) -> list[tuple[str, int]]:
    """Label of each cell, and how many videos it will have to make if the cells are done one after another."""
    lacking, seen = [], set[tuple[str, str]]()
    for cell in cells:
        keys = set[tuple[str, str]]()
        with suppress(StoreError):  # the cell itself will say it
            if cell.run.task == VIDEOS:
                keys = {(cell.run.results, job.key) for job in open_jobs(cell)} - seen
        lacking.append((cell.label, len(keys)))
        seen |= keys
    return lacking


def survey(cells: Sequence[Cell], measured: bool = True) -> list[Line]:
    """Every row of the sweep with what is to do for it. `measured`: look into the store for seconds and bytes."""
    lines: dict[tuple[str, str], Line] = {}
    seen: set[tuple[Any, ...]] = set()
    for cell in cells:
        root = Path(cell.run.results).expanduser().absolute()
        store = Store(root, create=False) if root.is_dir() else None
        past = _past(root) if measured and store else Past()
        for job in cell.jobs():
            key = _key(job)
            line = lines.get((job.model.name, job.label))
            if line is None:
                dense, _, passes = planned(job.model, [job.method.narrow(row) for row in job.model.schedule()])
                line = Line(job.model.name, job.label, forwards=passes, pflop=dense / 1e15)
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


def _key(job: Job) -> str | tuple[Any, ...]:
    """The job's key, or without weights something that tells it from the others."""
    try:
        return job.key
    except WeightsError:
        return (job.prompt, job.seed, repr(job.method))


@cache
def _past(root: Path) -> Past:
    return Past.of(Store(root, create=False).records())


def gpu_hours(lines: Iterable[Line]) -> float:
    """Hours of one device for what is to do, if no step were skipped where nothing was measured."""
    return sum(line.todo * line.seconds for line in lines) / 3600


def disk_needed(lines: Iterable[Line]) -> float:
    """Bytes of the videos that are to do."""
    return sum(line.todo * line.disk for line in lines)


def totals(lines: Sequence[Line]) -> dict[str, Any]:
    """Of a cell with the Originals that it needs, for the line of JSON."""
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


def print_lines(lines: Sequence[Line], cells: int) -> None:
    """The answer to dry_run=true for a sweep: a row per line and the sum."""
    columns = ("model", "method", "videos", "done", "to do", "forwards", "PFLOP", "GPU-hours", "disk, GB", "hours from")
    title = (
        f"what it would cost: {cells} cells; forwards and PFLOP of a video if no step is skipped, "
        "GPU-hours and disk for what is to do; the last row sums up what is to do"
    )
    table = Table(*columns, title=title, box=None, title_justify="left")
    for line in lines:
        counts = (line.videos, line.videos - line.todo, line.todo, line.forwards)
        sums = (f"{line.pflop:.4g}", _short(line.todo * line.seconds / 3600), _short(line.todo * line.disk / GB))
        table.add_row(line.model, line.method, *map(str, counts), *sums, line.basis)
    videos, todo = sum(line.videos for line in lines), sum(line.todo for line in lines)
    passes, work = sum(line.todo * line.forwards for line in lines), sum(line.todo * line.pflop for line in lines)
    totals = (f"{work:.4g}", _short(gpu_hours(lines)), _short(disk_needed(lines) / GB))
    table.add_row("all", "", *map(str, (videos, videos - todo, todo, passes)), *totals, "", style="bold")
    out.print(table)


def _short(value: float) -> str:
    return f"{value:.2g}" if value < 10 else f"{value:,.0f}"
