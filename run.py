"""Compose a run, generate and record what is missing of it, score it, report. `python run.py --help` teaches more."""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from rich.markup import escape

from conf.schema import ConfigError, explain
from engine.weights import WeightsError
from store import Store, StoreError
from sweep.cell import Cell
from sweep.cost import dry_run, print_plans
from sweep.experiments import expanded
from sweep.tasks import VIDEOS, task_of
from sweep.work import make, out

QUICKSTART = "experiment=quickstart"
touched: dict[Path, list[str]] = {}  # every results folder of this command, and what failed in it
planned: list[dict[str, Any]] = []  # what dry runs found
unreported: set[Path] = set()  # the folders among them whose report is to be made when all videos are
unscored: set[Path] = set()  # the folders among them whose new videos are to be scored when all are made


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
        if cell.run.task != VIDEOS:
            failures += task_of(cell.run.task)(cell, store)
        else:
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


def finish() -> int:
    """Score and report on every store that was written to; 1 if anything failed."""
    if len(planned) > 1:
        print_plans(planned)
    for results, failures in touched.items():
        if results in unscored | unreported and (any(results.glob("*/*/*/run.json")) or (results / "plan").is_dir()):
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
    for past in (touched, unscored, unreported, planned):
        past.clear()
    try:
        for line in expanded(command_line(arguments)):
            sys.argv[1:] = line
            main()
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        print(f"error: {explain(str(error))}", file=sys.stderr)
        return 1
    return finish() if touched else 0


if __name__ == "__main__":
    sys.exit(command(sys.argv[1:]))
