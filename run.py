"""Compose a run, generate and record what is missing of it, score it, report. `python run.py --help` teaches more."""

from __future__ import annotations

import json
import os
import sys
import traceback
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from conf.schema import ConfigError, Run, device_of, explain, has_point, parse, read_prompts
from engine.code import code_of
from engine.environment import environment
from engine.ledger import flops, forwards, plan, write
from engine.method import Method, Original
from engine.produce import account, produce, warm_up
from engine.weights import WeightsError
from store import Record, Store, StoreError, fingerprint

QUICKSTART = "experiment=quickstart"
out = Console(highlight=False, soft_wrap=True)
if not out.is_terminal:
    out.width = 120  # a log file has no width of its own
touched: dict[Path, list[str]] = {}  # every results folder of this command, and what failed in it
planned: list[dict[str, Any]] = []  # what dry runs found
unreported: set[Path] = set()  # the folders among them whose report is to be made when all videos are
unscored: set[Path] = set()  # the folders among them whose new videos are to be scored when all are made


@lru_cache(maxsize=2)
def backbone(kind: Any, settings: str, device: str) -> Any:
    """One model in memory per setting, shared by the jobs of a sweep."""
    return kind(kind.Settings(**json.loads(settings)), torch.device(device))


@dataclass
class Cell:
    """One row of a table: a model, a method and its operating point."""

    run: Run
    model: Any
    base: Any  # the same backbone as its own settings have it: what the reference is run with
    method: Method
    name: str
    speed: str | None
    composed: dict[str, Any]

    @classmethod
    def of(cls, config: DictConfig) -> Cell:
        """Check all that can be checked before a model is built. Raises ConfigError."""
        run, kind, settings, method = parse(config)
        choices = HydraConfig.get().runtime.choices
        name, device = str(choices["method"]), device_of(run.device)
        speed = run.speed if has_point(str(choices["model"]), name, run.speed) else None
        try:
            wanted_settings = (settings, method.reschedule(settings))
            base, model = (backbone(kind, json.dumps(asdict(s)), device) for s in wanted_settings)
            method.check(model)
        except WeightsError:
            raise
        except ValueError as error:
            raise ConfigError(str(error)) from None
        composed = {str(k): v for k, v in OmegaConf.to_container(config, resolve=True).items()}  # type: ignore[union-attr]
        return cls(run, model, base, method, name, speed, composed)

    @cached_property
    def prompts(self) -> list[str]:
        return read_prompts(self.run.prompts)

    def jobs(self) -> list[Job]:
        """Every video of the cell, each after the Original that it is compared with."""
        found = []
        for seed in self.run.seeds:
            for number, prompt in enumerate(self.prompts):
                reference = Job(self.base, Original(), "original", None, prompt, number, seed)
                found.append(reference)
                if self.name != "original":
                    own_seed = self.method.reseed(seed)
                    job = Job(self.model, self.method, self.name, self.speed, prompt, number, own_seed, reference)
                    found.append(job)
        return found


@dataclass
class Job:
    """One video: what produces it, and the Original it is paired with (None for an Original)."""

    model: Any
    method: Method
    name: str
    speed: str | None
    prompt: str
    number: int
    seed: int
    reference: Job | None = None

    @cached_property
    def produced_by(self) -> dict[str, Any]:
        """Everything that the frames depend on, and nothing else: no names, paths or dates."""
        settings = {k: v for k, v in asdict(self.model.settings).items() if k not in ("name", "checkpoint")}
        kind = type(self.method)
        method = {"class": f"{kind.__module__}.{kind.__name__}", "code": code_of(kind), **_parameters(self.method)}
        return {
            "model": {"class": type(self.model).__name__, **settings},
            "weights": self.model.weights_id,
            "method": method,
            "prompt": self.prompt,
            "seed": self.seed,
            "device": self.model.device.type,
        }

    @cached_property
    def key(self) -> str:
        return fingerprint(self.produced_by)

    @property
    def label(self) -> str:
        return self.name if self.speed is None else f"{self.name}-{self.speed}"


def _parameters(method: Method) -> dict[str, Any]:
    """Infinity is no JSON number; written as text it keeps the key well defined."""
    values = asdict(method)  # type: ignore[call-overload]
    return {k: str(v) if isinstance(v, float) and v in (float("inf"), float("-inf")) else v for k, v in values.items()}


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
    from time import perf_counter

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


def identity(job: Job, cell: Cell) -> dict[str, Any]:
    """What the record says of itself before anything is run."""
    return {
        "prompt": job.prompt,
        "prompt_id": f"{job.number:04d}",
        "seed": job.seed,
        "reference_key": job.reference.key if job.reference else None,
        "estimated": bool(cell.run.point.estimated) and job.reference is not None,
        "weights": job.model.settings.weights,
        **{name: getattr(job.model.settings, name) for name in ("fps", "frames", "height", "width")},
        "frame_borders": job.model.frame_borders,
        "site": ", ".join(map(str, job.method.sites(job.model.depth, job.model.schedule()[0]))),
        "produced_by": job.produced_by,
        "environment": environment(job.model.device),
        "command": " ".join(["python", "run.py", *sys.argv[1:]]),
    }


def dry_run(cell: Cell) -> dict[str, Any]:
    """What a video of this cell would cost if no step were skipped; frames left out by selective computation are."""
    model = cell.model
    rows = [cell.method.narrow(row) for row in model.schedule()]
    ledger = plan(rows)
    dense, masked = flops(ledger, model.price)
    found = {
        "model": model.name,
        "method": cell.name,
        "speed": cell.speed,
        "iterations": len(rows),
        "forwards": forwards(ledger, len(model.branches)),
        "segments": [sum(row.segment == s for row in rows) for s in sorted({row.segment for row in rows})],
        "flops_pf": {"dense": round(dense / 1e15, 4), "masked": round(masked / 1e15, 4)},
        "parameters": model.parameters,
        "videos": len(cell.prompts) * len(cell.run.seeds),
    }
    return found | (model.plan_counts() if hasattr(model, "plan_counts") else {})


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> None:
    """One job of the sweep. Nothing that goes wrong here stops the others."""
    failures = touched.setdefault(Path(str(config.get("results") or "results")).expanduser().absolute(), [])
    try:
        cell = Cell.of(config)
        if not cell.prompts or cell.run.dry_run:
            planned.append(dry_run(cell))
            print(json.dumps(planned[-1]), flush=True)
            return
        store = Store(Path(cell.run.results).expanduser().absolute())
        failures += make(cell, store)
        if cell.run.score:
            unscored.add(store.root)
        if cell.run.report:
            unreported.add(store.root)
    except (ConfigError, WeightsError, StoreError) as error:
        failures.append(str(error))
    except Exception as error:
        out.print(escape(traceback.format_exc()))
        failures.append(f"{type(error).__name__}: {error}".splitlines()[0])


def print_plans() -> None:
    """The dry runs of a sweep as one table."""
    columns = ("model", "method", "speed", "videos", "iterations", "forwards", "PFLOP dense", "masked", "all videos")
    table = Table(*columns, title="what it would cost if no step were skipped", box=None, title_justify="left")
    for plan_ in planned:
        pf = plan_["flops_pf"]
        cells = [plan_[name] for name in ("model", "method", "speed", "videos", "iterations", "forwards")]
        cells += [f"{pf['dense']:.4g}", f"{pf['masked']:.4g}", f"{pf['dense'] * plan_['videos']:.4g}"]
        table.add_row(*("" if cell is None else str(cell) for cell in cells))
    out.print(table)


def finish() -> int:
    """Score and report on every store that was written to; 1 if anything failed."""
    if len(planned) > 1:
        print_plans()
    for results, failures in touched.items():
        if results in unscored | unreported and any(results.glob("*/*/*/run.json")):
            from eval.__main__ import score_store
            from reports.build import build
            from reports.tables import print_main

            if results in unscored:
                score_store(Store(results), console=out)
            if results in unreported:
                page = build(results)
                print_main(results)
                out.print(f"tables, figures and the page with all videos: {page}")
        for line in failures:
            out.print(f"[bold red]error:[/] {escape(line)}")
    return int(any(touched.values()))


def command_line(arguments: list[str]) -> list[str]:
    """Without a word about what to compare, the quickstart comparison is meant."""
    named = any(a.lstrip("+~").split("=")[0] in ("model", "method", "experiment", "dry_run") for a in arguments)
    asked = any(a.startswith(("-h", "--h", "-c", "--cfg", "-i", "--info", "--version", "-s")) for a in arguments)
    return arguments if named or asked else [*arguments, QUICKSTART]


def command(arguments: list[str]) -> int:
    """What `python run.py ARGUMENTS` does; returns its exit status."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # so that errors arrive here instead of being printed with a trace
    sys.argv[1:] = command_line(arguments)
    for past in (touched, unscored, unreported, planned):
        past.clear()
    try:
        main()
    except (HydraException, OmegaConfBaseException) as error:
        print(f"error: {explain(str(error))}", file=sys.stderr)
        return 1
    return finish() if touched else 0


if __name__ == "__main__":
    sys.exit(command(sys.argv[1:]))
