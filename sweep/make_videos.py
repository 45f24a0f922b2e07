"""The work of a group of cells: generate, encode and record every missing video."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import psutil
import torch

from engine.ledger import write
from engine.produce import Produced, account, forget, produce, warm_up
from engine.resident import Resident, collect
from engine.weights import WeightsError
from store import FULL, STALE, Record, Store
from sweep.cell import Cell, Job, identity, label
from sweep.events import DeviceLost, Notify, nobody, wanted
from sweep.time_again import TimedAgain, again
from sweep.turns import Turn, turns

resident = Resident()  # the weights that this process has in memory
POLL = 1.0  # seconds between two checks for videos that other processes are generating
TELL = 60.0  # seconds between two messages about waiting


def make(cells: Sequence[Cell], store: Store, notify: Notify = nobody, lost: Mapping[str, str] | None = None) -> None:
    """Generate and record every missing video of the cells, in turn (sweep/turns.py).

    If another process is generating a video, the function continues with the next one and waits at the end.

    Args:
        cells: cells of one model with one setting, on one device, for one store.
        lost: {key: reason} of videos that crashed an earlier process. They are recorded as failed and not tried again.

    Raises DeviceLost after a fault of the accelerator that makes all later videos of this process fail.
    """
    todo = lacking(cells, store, notify, lost or {})
    ready, todo = prepare(todo, store, notify)
    ready.timed = TimedAgain(cells[0].run.time_again)
    told = -TELL
    while todo:
        busy = []
        for turn in todo:
            with store.claims.claim(store.cell(*turn.place[:3]), turn.job.key) as ours:
                if not ours:
                    busy.append(turn)
                    continue
                notify("video", turn.job.key, turn.label, turn.job.prompt, turn.rows, turn.cell.order.place)
                theirs = store.find(*turn.place)  # another job may have generated it meanwhile
                if theirs is None or wanted(theirs, turn.cell.run):
                    theirs = video(turn.job, turn.cell, store, ready, lambda row: notify("row"), notify)
                tell(turn, theirs, notify)
        if len(busy) == len(todo):
            told = waiting(busy, store, told, notify)
            time.sleep(POLL)
        todo = busy


def lacking(cells: Sequence[Cell], store: Store, notify: Notify, lost: Mapping[str, str]) -> list[Turn]:
    """The videos to generate, in order. Videos in `lost` are recorded as failed."""
    todo = []
    for turn in turns(cells):
        if turn.job.key in lost:
            bury(turn.job, turn.cell, store, lost[turn.job.key])
        elif wanted(store.find(*turn.place), turn.cell.run):
            todo.append(turn)
    missing = {turn.place for turn in todo}
    for cell in cells:
        own, left = sum(turn.cell is cell for turn in todo), missing & {Turn(cell, job).place for job in cell.jobs()}
        count = own or (None if left else 0)  # None: its missing videos belong to earlier cells
        notify("cell", cell.label, count, cell.order.place)
    for model, name, speed in sorted({turn.place[:3] for turn in todo}, key=str):
        older = store.older(store.cell(model, name, speed))
        if older:
            notify(
                "say",
                f"{model} {label(name, speed)}: {older} records have older keys; they are kept, and their "
                "videos are generated again (docs/records.md)",
            )
    return todo


def tell(turn: Turn, record: Record, notify: Notify) -> None:
    """Report the result of a video."""
    notify("made", record.status, record.run.get("seconds", {}).get("total"))
    if record.status != "ok":
        notify("failed", f"{turn.label} {turn.job.key}: {record.run.get('reason')}")


def waiting(busy: list[Turn], store: Store, told: float, notify: Notify) -> float:
    """Report which process generates the videos waited for, at most every TELL seconds.

    `told` and the result are the time of the last report (seconds, monotonic).
    """
    if time.monotonic() - told < TELL:
        return told
    first = busy[0]
    holder = store.claims.holder(store.cell(*first.place[:3]), first.job.key)
    notify(
        "say",
        f"waiting for {len(busy)} videos that other processes are generating; the first is {first.label} "
        f"{first.job.key}, by {holder or 'a process that has just started or ended'}; a process that does not touch "
        f"its claim for {STALE:.0f} s is replaced",
    )
    return time.monotonic()


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, its cause, the cause of that, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def bury(job: Job, cell: Cell, store: Store, reason: str) -> None:
    """Record a video as failed because its process died. If the process had stored it before, nothing changes."""
    if wanted(store.find(cell.model.name, job.name, job.speed, job.key), cell.run):
        with store.stage(cell.model.name, job.name, job.speed, job.key) as stage:
            stage.run |= identity(job, cell) | {"status": "failed", "reason": reason}
            (stage.path / "config.yaml").write_text(cell.yaml, encoding="utf-8")


@dataclass
class Ready:
    """The data that the videos of a group need, in addition to their models."""

    texts: Any = None  # the embeddings of their prompts
    text_seconds: float = 0.0  # per prompt
    text_encoded: bool = True  # False: all embeddings were read from the cache, so `text_seconds` has no encoding
    warm: dict[int, float] = field(default_factory=dict)  # id of a model: seconds of its warm-up
    timed: TimedAgain = field(default_factory=lambda: TimedAgain(0.0))


def prepare(todo: list[Turn], store: Store, notify: Notify) -> tuple[Ready, list[Turn]]:
    """Embed the prompts, load the models, and warm each up once. If a warm-up fails, the videos of this model are
    reported as failed and are not in the returned list; the other videos are not affected."""
    if not todo:
        return Ready(), todo
    begin, models = perf_counter(), {id(turn.job.model): turn.job.model for turn in todo}
    base: Any = todo[0].cell.base
    base.encodes_on = None if todo[0].cell.run.offload == "none" else torch.device("cpu")
    for job in (job for turn in todo for job in (turn.job, turn.job.reference) if job is not None):
        moved: Any = job.model
        moved.offload = todo[0].cell.run.offload == "all"
    cache, prompts = store.cache("text", "x").parent, {turn.job.prompt for turn in todo}
    known = _files(cache)
    texts = base.texts(prompts, cache)
    ready = Ready(texts, (perf_counter() - begin) / len(prompts), _files(cache) > known)
    for number, model in models.items():
        try:
            resident.ready(model)
            ready.warm[number] = warm_up(model, model.conditioning(todo[0].job.prompt, texts))
        except WeightsError:
            raise
        except Exception as error:
            notify("say", traceback.format_exc())
            for name in dict.fromkeys(turn.label for turn in todo if turn.job.model is model):
                notify("failed", f"{name}: {type(error).__name__}: {error}".splitlines()[0])
        model.forget()
        collect()
    return ready, [turn for turn in todo if id(turn.job.model) in ready.warm]


def _files(folder: Path) -> int:
    return sum(1 for _ in folder.iterdir()) if folder.is_dir() else 0


def _spent(made: Produced, ready: Ready, warmup: float) -> dict[str, Any]:
    """Seconds and bytes of a video, as its record holds them. The total is without text: a prompt is encoded once."""
    seconds = {"denoise": made.denoise.seconds, "decode": made.decode.seconds}
    seconds |= {"text": ready.text_seconds, "warmup": warmup, "total": sum(seconds.values())}
    peaks = {k: max(getattr(made.denoise, k), getattr(made.decode, k)) for k in ("allocated", "reserved")}
    return {
        "seconds": seconds,
        "peak_memory": peaks,
        "peak_memory_denoise": {k: getattr(made.denoise, k) for k in peaks},
        "memory_before": made.denoise.before,
        "load": psutil.getloadavg(),
        "text_encoded": ready.text_encoded,
    } | ({"chunks": made.chunks.to_json()} if made.chunks.frames else {})


def timed_again(job: Job, cell: Cell, store: Store, ready: Ready, notify: Notify) -> dict[str, Any]:
    """The times of the Original beside the video of `job`, if they are taken anew (sweep/time_again.py)."""
    first = job.reference
    if first is None or not ready.timed.bound:
        return {}
    record = store.find(first.model.name, first.name, first.speed, first.key)

    def run() -> Produced:
        notify("say", f"{first.model.name} {first.label} {first.key} is timed again beside {job.label}")
        resident.ready(first.model)
        text = first.model.conditioning(first.prompt, ready.texts)
        if id(first.model) not in ready.warm:
            ready.warm[id(first.model)] = warm_up(first.model, text)
        return again(first.model, first.method, text, first.seed)

    try:
        return ready.timed.beside(record, run)
    except torch.AcceleratorError:
        raise  # no later video of this process can be made either
    except Exception as error:  # costs the second time only, not the video
        notify("say", f"{first.label} {first.key} could not be timed again: {type(error).__name__}: {error}")
        forget(first.model, first.method)
        return {}
    finally:
        resident.ready(job.model)


def video(job: Job, cell: Cell, store: Store, ready: Ready, on_row: Any, notify: Notify = nobody) -> Record:
    """Generate one video into the store. An error is recorded and does not stop other videos, except DeviceLost."""
    from eval.video import read, write_lossless, write_preview

    model, broken = job.model, False
    with store.stage(model.name, job.name, job.speed, job.key) as stage:
        stage.run |= identity(job, cell) | {"began": datetime.now(UTC).isoformat(timespec="milliseconds")}

        def sink(batches: Any) -> None:
            frames = (batch.numpy() for batch in batches)
            write_lossless(stage.path / "frames.mp4", frames, model.settings.fps)
            write_preview(stage.path / "video.mp4", read(stage.path / "frames.mp4"), model.settings.fps)

        try:
            resident.ready(model)
            beside = timed_again(job, cell, store, ready, notify)
            made = produce(model, job.method, model.conditioning(job.prompt, ready.texts), job.seed, sink, on_row)
        except Exception as error:
            full = next((e for e in _chain(error) if isinstance(e, OSError) and e.errno in FULL), None)
            if full:
                raise full from None  # an error of the disk, not of the video: nothing is recorded
            notify("say", traceback.format_exc())
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            stage.run |= {"status": "failed", "reason": reason, "traceback": traceback.format_exc()}
            broken = isinstance(error, torch.AcceleratorError)  # out of memory is another error, which does not last
        else:
            write(made.ledger, stage.path / "trace.jsonl")
            stage.run |= account(model, made, cell.base) | _spent(made, ready, ready.warm[id(model)])
            stage.run |= {"status": "invalid" if made.reason else "ok", "reason": made.reason} | beside
        if not broken:
            forget(model, job.method)  # also after a failure, so that an out-of-memory error affects one video
        (stage.path / "config.yaml").write_text(cell.yaml, encoding="utf-8")
    assert stage.record is not None
    if broken:
        notify("made", stage.record.status, None)
        notify("failed", f"{cell.model.name} {job.label} {job.key}: {stage.record.run.get('reason')}")
        raise DeviceLost(stage.record.run.get("reason"))
    return stage.record
