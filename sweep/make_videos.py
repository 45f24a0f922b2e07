"""The work of one cell: generate, encode and record every video that the store lacks."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from time import perf_counter
from typing import Any

import psutil
import torch

from conf.schema import Run
from engine.ledger import write
from engine.produce import account, forget, produce, warm_up
from engine.resident import Resident
from store import FULL, STALE, Record, Store
from sweep.cell import Cell, Job, identity, label
from terminal import console

out = console()
if not out.is_terminal:
    out.width = 120  # a log file has no width of its own

resident = Resident()  # the weights that this process has in memory
POLL = 1.0  # seconds between looks at videos that other processes are making
TELL = 60.0  # seconds between lines on who is waited for

Notify = Callable[..., None]
"""Told what happens, as plain values so that another process can be told: "cell" label, videos to do; "video" key,
label, prompt, rows; "row"; "made" status, seconds or None; "failed" a line; "say" a text."""


class DeviceLost(RuntimeError):
    """The accelerator's context of this process is broken: what comes next needs another process."""


def nobody(*event: Any) -> None:
    """Tells nobody."""


def make(cell: Cell, store: Store, notify: Notify = nobody, lost: Mapping[str, str] | None = None) -> list[str]:
    """Generate and record every video of the cell that the store lacks; returns what failed, a line each.

    A video that another process is making is left for later, and waited for at the end.

    Args:
        lost: {key: reason} of videos that took an earlier process with them: recorded as failed and not tried again.

    Raises DeviceLost after a fault of the accelerator that no later video of this process would survive.
    """
    lost, failures = lost or {}, []

    def ended(job: Job, record: Record) -> None:
        notify("made", record.status, record.run.get("seconds", {}).get("total"))
        if record.status != "ok":
            failures.append(f"{cell.model.name} {job.label} {job.key}: {record.run.get('reason')}")
            notify("failed", failures[-1])

    def known(job: Job) -> Record | None:
        return store.find(cell.model.name, job.name, job.speed, job.key)

    todo = []
    for job in cell.jobs():
        if job.key in lost:
            bury(job, cell, store, lost[job.key])
        elif wanted(known(job), cell.run):
            todo.append(job)
    notify("cell", cell.label, len(todo))
    for name, speed in sorted({(job.name, job.speed) for job in todo}, key=str):
        older = store.older(store.cell(cell.model.name, name, speed))
        if older:
            notify(
                "say",
                f"{cell.model.name} {label(name, speed)}: {older} records have keys of an older kind; they "
                "are kept, and their videos are made again (docs/records.md)",
            )
    texts, seconds = prepare(todo, store) if todo else ({}, {})
    told = -TELL
    while todo:
        busy = []
        for job in todo:
            with store.claims.claim(store.cell(cell.model.name, job.name, job.speed), job.key) as ours:
                if not ours:
                    busy.append(job)
                    continue
                notify("video", job.key, f"{cell.model.name} {job.label}", job.prompt, len(job.model.schedule()))
                theirs = known(job)  # another job may have made it since
                if theirs is not None and not wanted(theirs, cell.run):
                    ended(job, theirs)
                else:
                    ended(job, video(job, cell, store, texts, seconds, lambda row: notify("row"), notify))
        if len(busy) == len(todo):
            told = waiting(busy, cell, store, told, notify)
            time.sleep(POLL)
        todo = busy
    return failures


def waiting(busy: list[Job], cell: Cell, store: Store, told: float, notify: Notify) -> float:
    """Say who is waited for, unless that was said less than TELL seconds ago; when it was said last (monotonic)."""
    if time.monotonic() - told < TELL:
        return told
    first = busy[0]
    holder = store.claims.holder(store.cell(cell.model.name, first.name, first.speed), first.key)
    notify(
        "say",
        f"waiting for {len(busy)} videos that others are making; the first, {cell.model.name} {first.label} "
        f"{first.key}, by {holder or 'a process that has just begun or ended'}. A process that gives no sign "
        f"of life for {STALE:.0f} s is replaced",
    )
    return time.monotonic()


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what it came of, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def wanted(record: Record | None, run: Run) -> bool:
    return record is None or (run.retry_failed and record.status == "failed")


def bury(job: Job, cell: Cell, store: Store, reason: str) -> None:
    """Record a video whose process died, unless it is there: it may have died just after."""
    if wanted(store.find(cell.model.name, job.name, job.speed, job.key), cell.run):
        with store.stage(cell.model.name, job.name, job.speed, job.key) as stage:
            stage.run |= identity(job, cell) | {"status": "failed", "reason": reason}
            (stage.path / "config.yaml").write_text(cell.yaml, encoding="utf-8")


def prepare(todo: list[Job], store: Store) -> tuple[dict[str, Any], dict[str, float]]:
    """Load the models, embed the prompts, warm up. Returns the embeddings, and seconds per prompt and of warm-up."""
    models = {id(job.model): job.model for job in todo}
    first = next(iter(models.values()))
    begin = perf_counter()
    texts = first.texts((job.prompt for job in todo), store.cache("text", "x").parent)
    seconds = {"text": (perf_counter() - begin) / len({job.prompt for job in todo}), "warmup": 0.0}
    for model in models.values():
        resident.ready(model)
        seconds["warmup"] += warm_up(model, model.conditioning(todo[0].prompt, texts))
    return texts, seconds


def video(
    job: Job, cell: Cell, store: Store, texts: Any, seconds: dict[str, float], on_row: Any, notify: Notify = nobody
) -> Record:
    """One video into the store; what goes wrong in it is recorded and stops nothing else, but see DeviceLost."""
    from eval.video import read, write_lossless, write_preview

    model, broken = job.model, False
    with store.stage(model.name, job.name, job.speed, job.key) as stage:
        stage.run |= identity(job, cell)

        def sink(batches: Any) -> None:
            frames = (batch.numpy() for batch in batches)
            write_lossless(stage.path / "frames.mp4", frames, model.settings.fps)
            write_preview(stage.path / "video.mp4", read(stage.path / "frames.mp4"), model.settings.fps)

        try:
            resident.ready(model)
            made = produce(model, job.method, model.conditioning(job.prompt, texts), job.seed, sink, on_row)
        except Exception as error:
            full = next((e for e in _chain(error) if isinstance(e, OSError) and e.errno in FULL), None)
            if full:
                raise full from None  # that is the disk's fault, not the video's: nothing is recorded
            notify("say", traceback.format_exc())
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            stage.run |= {"status": "failed", "reason": reason, "traceback": traceback.format_exc()}
            broken = isinstance(error, torch.AcceleratorError)  # out of memory is no such thing, and passes
        else:
            write(made.ledger, stage.path / "trace.jsonl")
            spent = {"denoise": made.denoise.seconds, "decode": made.decode.seconds, **seconds}
            spent["total"] = spent["denoise"] + spent["decode"]  # text apart: only the first cell encodes a prompt
            peaks = {k: max(getattr(made.denoise, k), getattr(made.decode, k)) for k in ("allocated", "reserved")}
            stage.run |= account(model, made, cell.base) | {"seconds": spent, "peak_memory": peaks}
            stage.run["peak_memory_denoise"] = {k: getattr(made.denoise, k) for k in peaks}
            stage.run |= {"memory_before": made.denoise.before, "load": psutil.getloadavg()}
            stage.run |= {"status": "invalid" if made.reason else "ok", "reason": made.reason}
        if not broken:
            forget(model, job.method)  # after a failure too, so that an out-of-memory costs one video
        (stage.path / "config.yaml").write_text(cell.yaml, encoding="utf-8")
    assert stage.record is not None
    if broken:
        notify("made", stage.record.status, None)
        notify("failed", f"{cell.model.name} {job.label} {job.key}: {stage.record.run.get('reason')}")
        raise DeviceLost(stage.record.run.get("reason"))
    return stage.record
