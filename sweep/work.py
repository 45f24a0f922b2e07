"""The work of one cell: generate, encode and record every video that the store lacks."""

from __future__ import annotations

import traceback
from time import perf_counter
from typing import Any

from omegaconf import OmegaConf
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from conf.schema import Run
from engine.ledger import write
from engine.produce import account, produce, warm_up
from store import Record, Store
from sweep.cell import Cell, Job, identity

out = Console(highlight=False, soft_wrap=True)
if not out.is_terminal:
    out.width = 120  # a log file has no width of its own


def make(cell: Cell, store: Store) -> list[str]:
    """Generate, record and score every video of the cell that the store lacks; returns what failed, a line each."""
    todo = [job for job in cell.jobs() if wanted(store.find(cell.model.name, job.name, job.speed, job.key), cell.run)]
    failures: list[str] = []
    if not todo:
        out.print(f"{cell.model.name} {cell.name}: nothing to do, every video is in the store")
    else:
        texts, seconds = prepare(todo, store)
        columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*(TextColumn(c) if isinstance(c, str) else c for c in columns), console=out) as bars:
            videos, rows = bars.add_task("videos", total=len(todo)), bars.add_task("")
            for job in todo:
                bars.reset(rows, total=len(job.model.schedule()), description=f"{job.label}: {escape(job.prompt[:40])}")
                record = video(job, cell, store, texts, seconds, lambda row: bars.advance(rows))
                bars.advance(videos)
                if not bars.console.is_terminal:
                    out.print(f"{cell.model.name} {job.label} {escape(job.prompt[:60])}: {summary(record)}")
                if record.status != "ok":
                    failures.append(f"{cell.model.name} {job.label} {job.key}: {record.run.get('reason')}")
    return failures


def wanted(record: Record | None, run: Run) -> bool:
    return record is None or (run.retry_failed and record.status == "failed")


def summary(record: Record) -> str:
    seconds = record.run.get("seconds", {}).get("total")
    return str(record.status) if seconds is None else f"{record.status}, {seconds:.1f} s"


def prepare(todo: list[Job], store: Store) -> tuple[dict[str, Any], dict[str, float]]:
    """Load the models, embed the prompts, warm up. Returns the embeddings, and seconds per prompt and of warm-up."""
    models = {id(job.model): job.model for job in todo}
    first = next(iter(models.values()))
    begin = perf_counter()
    texts = first.texts((job.prompt for job in todo), store.cache("text", "x").parent)
    seconds = {"text": (perf_counter() - begin) / len({job.prompt for job in todo}), "warmup": 0.0}
    for model in models.values():
        if not hasattr(model, "transformer"):
            model.load()
        seconds["warmup"] += warm_up(model, model.conditioning(todo[0].prompt, texts))
    return texts, seconds


def video(job: Job, cell: Cell, store: Store, texts: Any, seconds: dict[str, float], on_row: Any) -> Record:
    """One video into the store; what goes wrong in it is recorded and stops nothing else."""
    from eval.video import read, write_lossless, write_preview

    model = job.model
    with store.stage(model.name, job.name, job.speed, job.key) as stage:
        stage.run |= identity(job, cell)

        def sink(batches: Any) -> None:
            frames = (batch.numpy() for batch in batches)
            write_lossless(stage.path / "frames.mp4", frames, model.settings.fps)
            write_preview(stage.path / "video.mp4", read(stage.path / "frames.mp4"), model.settings.fps)

        try:
            made = produce(model, job.method, model.conditioning(job.prompt, texts), job.seed, sink, on_row)
        except Exception as error:
            out.print(escape(traceback.format_exc()))
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            stage.run |= {"status": "failed", "reason": reason, "traceback": traceback.format_exc()}
        else:
            write(made.ledger, stage.path / "trace.jsonl")
            spent = {"denoise": made.denoise.seconds, "decode": made.decode.seconds, **seconds}
            spent["total"] = spent["denoise"] + spent["decode"] + spent["text"]
            peaks = {k: max(getattr(made.denoise, k), getattr(made.decode, k)) for k in ("allocated", "reserved")}
            stage.run |= account(model, made, cell.base) | {"seconds": spent, "peak_memory": peaks}
            stage.run["peak_memory_denoise"] = {k: getattr(made.denoise, k) for k in peaks}
            stage.run |= {"status": "invalid" if made.reason else "ok", "reason": made.reason}
        (stage.path / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(cell.composed)))
    assert stage.record is not None
    return stage.record
