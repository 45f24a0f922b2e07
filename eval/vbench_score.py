"""Scores stored videos with VBench: plan the missing scores, run VBench as a child process, write its values.

A record's quality.json gets `vbench` (or `vbench_long`): {dimension: value in [0, 1]}. RESULTS/vbench/<cell>.json has
the dimensions of a cell and, if all 16 have scores, the total. Existing scores are not computed again. If a dimension
has no weights, no videos or only some of its videos, it gets a reason instead of a score, never a 0.
"""

import json
import math
import os
import shutil
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from eval import vbench_setup, vbench_suite
from eval.vbench_cells import PROTOCOLS, Cell, has, mean, write
from eval.vbench_report import report
from eval.vbench_suite import Video
from eval.vbench_total import DIMENSIONS, FACTS, VBenchError
from store import Record, Store


@dataclass(frozen=True)
class Job:
    """One dimension for some videos of one cell."""

    cell: Cell
    dimension: str
    videos: list[Video]


def score(
    results: str | Path,
    dimensions: Sequence[str] | None = None,
    protocol: str = "standard",
    device: str = "auto",
    suite: str | Path | None = None,
) -> dict[str, dict]:
    """Compute the missing scores. Returns {cell: report}, as written to RESULTS/vbench/<cell>.json.

    `suite` is the full_info file of a declared subset; every prompt of it must have a video. Without a suite, the
    subset is the existing videos. VBenchError if VBench is not installed, a setting is unknown or there is nothing to
    score.
    """
    for name, given, choices in (("protocol", protocol, PROTOCOLS), ("device", device, ("auto", "cpu", "cuda"))):
        if given not in choices:
            raise VBenchError(f"{name}={given} is unknown; want {' or '.join(choices)}")
    if unknown := set(dimensions or ()) - set(DIMENSIONS):
        raise VBenchError(f"unknown dimension {', '.join(sorted(unknown))}; VBench has {', '.join(DIMENSIONS)}")
    store, names = Store(results, create=False), list(dimensions or DIMENSIONS)
    found = vbench_setup.probe()
    lack = vbench_setup.lacking(vbench_setup.examine(), found["modules"], protocol)
    entries = vbench_suite.load(suite or vbench_setup.full_info())
    cells = _cells(store, entries, declared=suite is not None)
    jobs = [
        Job(cell, name, lacking)
        for cell in cells
        for name in names
        if not lack[name]
        if (lacking := [v for v in cell.wanted(name, entries) if not has(v.record, name, protocol)])
    ]
    ran_on = _run(store, jobs, entries, protocol, device) if jobs else None
    about = {"package": found["versions"], "protocol": protocol, "device": ran_on}
    return {cell.name: report(store, cell, entries, lack, about, suite) for cell in cells}


def _cells(store: Store, entries: Sequence[dict], declared: bool) -> list[Cell]:
    """The cells of a store, with VBench's names for their videos. VBenchError if no video can be scored."""
    grouped: dict[str, list[Record]] = {}
    for record in store.records():
        grouped.setdefault("/".join(record.path.parts[-3:-1]), []).append(record)
    known, cells = set(vbench_suite.prompts(entries)), []
    for name, records in grouped.items():
        states = [_state(record) for record in records]
        left_out = Counter(state for state in states if state != "ok")
        fit = [record for record, state in zip(records, states, strict=True) if state == "ok"]
        inside = [record for record in fit if record.run["prompt"] in known]
        own = declared or len(inside) == len(fit)
        left_out["outside the suite"] = len(fit) - len(inside) if own else 0
        videos, left_out["beyond five of a prompt"] = vbench_suite.arrange(inside if own else fit, own)
        cells.append(Cell(name, own, videos, +left_out))
    if not any(cell.videos for cell in cells):
        raise VBenchError(
            f"{store.root} has no complete, valid video to score"
            + (" whose prompt is in the suite" if declared else "")
        )
    return cells


def _state(record: Record) -> str:
    """ok, invalid or failed. The evaluation can find a video invalid although its run was ok."""
    found = ((record.quality or {}).get("validity") or {}).get("status")
    return "invalid" if record.status == "ok" and found == "invalid" else record.status


def _run(store: Store, jobs: Sequence[Job], entries: Sequence[dict], protocol: str, device: str) -> str:
    """Run the jobs in one child process and write each result when it arrives. Returns the device that was used."""
    log = store.root / "vbench" / "vbench.log"
    log.parent.mkdir(exist_ok=True)
    log.write_text("")
    with _staging(store) as stage:
        plan = {
            "log": str(log.resolve()),
            "out": str(stage / "out"),
            "device": device,
            "jobs": list(_plan(stage, jobs, entries, protocol)),
        }
        (stage / "plan.json").write_text(json.dumps(plan))
        child = subprocess.Popen(
            vbench_setup.runner(stage / "plan.json"),
            env=vbench_setup.child_environment(),
            cwd=stage,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            ran_on, waiting = "", {f"{number:04d}": job for number, job in enumerate(jobs)}
            for line in child.stdout or ():
                message = json.loads(line)
                ran_on = message.get("device", ran_on)
                if "id" in message:
                    _take(waiting.pop(message["id"]), message, protocol)
            failure = child.stderr.read() if child.stderr else ""
        finally:
            child.kill()
            code = child.wait()
    for job in waiting.values():
        job.cell.problems[job.dimension] = f"the scoring process ended early (exit {code}) {failure[-200:]}; see {log}"
    return ran_on


def _plan(stage: Path, jobs: Sequence[Job], entries: Sequence[dict], protocol: str) -> Iterator[dict]:
    """One mapping per job for the runner. Jobs with the same videos share a folder and its clips."""
    seconds = {name: FACTS["clip_seconds"].get(name, FACTS["clip_seconds"]["default"]) for name in DIMENSIONS}
    folders: dict[tuple, Path] = {}
    for number, job in enumerate(jobs):
        same = (job.cell.name, *(video.file for video in job.videos))
        if same not in folders:
            folders[same] = stage / "videos" / f"{len(folders):04d}"
            _link(job.videos, folders[same])
        prompts = {video.prompt for video in job.videos}
        asked = (
            [entry for entry in entries if entry["prompt_en"] in prompts]
            if job.cell.own_prompts
            else [{"prompt_en": prompt, "dimension": [job.dimension]} for prompt in sorted(prompts)]
        )
        full_info = stage / f"{number:04d}.json"
        full_info.write_text(json.dumps(asked))
        yield {
            "id": f"{number:04d}",
            "dimension": job.dimension,
            "protocol": protocol,
            "folder": str(folders[same]),
            "own_prompts": job.cell.own_prompts,
            "full_info": str(full_info),
            "clip_seconds": seconds,
            "videos": {video.file: video.prompt for video in job.videos},
        }


def _link(videos: Sequence[Video], folder: Path) -> None:
    folder.mkdir(parents=True)
    for video in videos:
        source = video.record.path / "frames.mp4"
        try:
            os.link(source, folder / video.file)
        except OSError:  # the file system has no hard links
            shutil.copyfile(source, folder / video.file)


def _take(job: Job, message: dict, protocol: str) -> None:
    """Write the values of one job into the records, and its error, if any, into the cell."""
    problem, values = message.get("error", ""), message.get("videos", {})
    absent = [video for video in job.videos if video.file not in values]
    if job.dimension == "color" and not problem:  # VBench omits a video if it does not find the object
        values |= {video.file: {"value": None, "weight": 0} for video in absent}
        absent = []
    if absent and not problem:
        paths = ", ".join(str(video.record.path / "frames.mp4") for video in absent[:3])
        problem = f"VBench omitted {len(absent)} of {len(job.videos)} videos, the first {paths}"
    if not problem and not math.isclose(ours := mean(values.values()), message["score"], rel_tol=1e-5, abs_tol=1e-7):
        problem = f"our mean over the videos, {ours:.6f}, differs from VBench's {message['score']:.6f}"
    if problem:
        job.cell.problems[job.dimension] = problem
    for video in job.videos:
        if video.file in values:
            write(video.record, job.dimension, values[video.file], protocol)
    outcome = f"failed: {problem}" if problem else f"{message['score']:.6f} ({message['seconds']:.1f} s)"
    print(f"{job.cell.name} {job.dimension}, {len(job.videos)} videos: {outcome}", flush=True)


@contextmanager
def _staging(store: Store) -> Iterator[Path]:
    """A folder on the store's file system, so that links work. If this process is killed, `Store.sweep` removes it."""
    path = (store.staging / f"vbench.{socket.gethostname()}.{os.getpid()}.0").resolve()
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
