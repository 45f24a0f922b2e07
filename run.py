"""Compose a run, generate its missing videos, score them, write the report. See `python run.py --help`."""

from __future__ import annotations

import json
import logging
import os
import shlex
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from rich.markup import escape

from conf.quick import begin
from conf.schema import ConfigError, Logging, explain
from conf.words import quoted, words
from engine.weights import WeightsError
from store import Store, StoreError
from sweep.cell import COMMAND, Cell, Order
from sweep.cost import dry_run, gpu_hours, outstanding, survey, totals
from sweep.cost_table import print_lines
from sweep.display import Display
from sweep.events import DeviceLost, out
from sweep.experiments import plug_in
from sweep.flags import Flags, taken
from sweep.idle import idle, tell_idle
from sweep.launch import launch, launcher_of, prepared, run_job
from sweep.prompt_sets import opening, suited
from sweep.supervisor import Supervisor
from sweep.turns import grouped, named
from terminal import tolerate, version

QUICKSTART = "experiment=quickstart"
PLANNING = ("hydra/launcher=basic",)  # cells are composed and checked here, with every launcher
composed: list[Cell] = []  # all valid cells of this command
refused: list[str] = []  # the errors of the other cells


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def compose(config: DictConfig) -> None:
    """Compose and check one cell of the sweep. All cells are checked before the first one runs."""
    try:
        cell = Cell.of(Order.of(config, text=not config.dry_run), planned=True, composed=config)
        _ = cell.prompts
        if not cell.run.dry_run:
            _ = cell.model.weights_id
        composed.append(cell)
    except (ConfigError, WeightsError) as error:
        refused.append(str(error))
    except Exception as error:
        out.print(escape(traceback.format_exc()))
        refused.append(f"{type(error).__name__}: {error}".splitlines()[0])


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def job(config: DictConfig) -> None:
    """Run one cell of the sweep, in the process of a launcher."""
    run_job(config)


def multirun(arguments: Sequence[str]) -> None:
    """Run one command line with the launcher that it names."""
    sys.argv[1:] = arguments
    job()


def work(cells: Sequence[Cell], supervisor: Supervisor) -> list[str]:
    """Run the cells, those of a group in turn (sweep/turns.py); returns one line per failure. An interrupt stops all
    processes."""
    groups = grouped(cells)
    cells = [cell for group in groups for cell in group]
    for place, cell in enumerate(cells):
        cell.order = replace(cell.order, place=place)
    with Display(out, outstanding(cells)) as display:
        try:
            for group in groups:
                display.begin(len(group))
                if idle(group):
                    tell_idle(group, display)
                elif group[0].run.isolate:
                    supervisor.do([(cell.label, cell.order) for cell in group], display)
                else:
                    perform_here(group, display)
            supervisor.close()
        finally:
            supervisor.close(kill=True)
    return display.failures


def perform_here(cells: Sequence[Cell], display: Display) -> None:
    """Run a group of cells in this process. A crash then ends the whole command."""
    from sweep.run_cell import perform

    try:
        perform([Cell.of(cell.order) for cell in cells], display)
    except DeviceLost as error:
        display("failed", f"{named(cells)}: the other videos are missing ({error})")


def finish(cells: Sequence[Cell], flags: Flags) -> None:
    """Score every store that was written to, and write its report."""
    unscored, unreported = ({results_of(c) for c in cells if getattr(c.run, name)} for name in ("score", "report"))
    sent = {results_of(cell) for cell in cells if cell.run.report == "single"}
    for results in dict.fromkeys(map(results_of, cells)):
        if not results.is_dir():
            continue
        if results in unscored:
            from eval.__main__ import score_store

            score_store(Store(results), console=out)
        if results in unreported:
            show_report(results, next(c.run.logger for c in cells if results_of(c) == results), flags, results in sent)


def show_report(results: Path, logger: Logging, flags: Flags, send: bool = False) -> None:
    """Write the report if a record has changed, and print the table, the verdict, the page and what to do next."""
    from reports.__main__ import as_json, make, print_notes

    said = make(results, send=send)
    if flags.json:
        print(as_json(said), flush=True)
    if flags.verbose:
        print_notes(results, console=out)
    out.print(escape(said["table"]), end="")
    if send:
        out.print(f"to send: {escape(said['zip'])}")
    if logger.name != "none":
        from sweep.loggers import log_report

        log_report(logger, results, out.print)
    out.print(f"page: {escape(said['page'])}\nnext: {escape(said['next'])}")


def results_of(cell: Cell) -> Path:
    return Path(cell.run.results).expanduser().absolute()


def show_costs(cells: Sequence[Cell], flags: Flags) -> None:
    """The output of dry_run=true: a table; then a line of JSON for a single cell, or with --json for every cell."""
    if cells:
        print_lines(survey(cells), len(cells))
    for cell in cells if flags.json or len(cells) == 1 else ():
        print(json.dumps(dry_run(cell) | totals(survey([cell]))), flush=True)


def over_budget(cells: Sequence[Cell]) -> str:
    """Why the sweep must not start, or "" if it may."""
    budget = min((cell.run.budget_gpu_hours for cell in cells if cell.run.budget_gpu_hours), default=0.0)
    if not budget:
        return ""
    lines = survey(cells)
    hours = gpu_hours(lines)
    if hours <= budget:
        return ""
    print_lines(lines, len(cells))
    return (
        f"the sweep needs about {hours:.3g} GPU-hours, more than budget_gpu_hours={budget:g}, and was not started; "
        "raise the budget, or use fewer prompts, cells or steps"
    )


def command_line(arguments: list[str]) -> list[str]:
    """The arguments; without a model, method or experiment, those of the first comparison."""
    named = any(a.lstrip("+~").split("=")[0] in ("model", "method", "experiment", "dry_run") for a in arguments)
    return arguments if named or asks(arguments) else [*arguments, QUICKSTART]


def asks(arguments: Sequence[str]) -> bool:
    """Whether the command line only asks for information, e.g. `--help`."""
    return any(a.startswith(("-h", "--h", "-c", "--cfg", "-i", "--info", "-s")) for a in arguments)


def planning(arguments: Sequence[str], scratch: str) -> list[str]:
    """The arguments without the launcher."""
    kept = [a for a in arguments if not a.lstrip("+~").startswith(("hydra/launcher", "hydra.launcher"))]
    return kept if asks(arguments) else [*scratched(kept, scratch), *PLANNING]


def scratched(arguments: Sequence[str], scratch: str) -> list[str]:
    """The arguments, with a folder of this command for the files that Hydra writes about a run."""
    own = (f"hydra.{mode}.dir" for mode in ("run", "sweep"))
    return [*arguments, *(f"{key}={quoted(scratch)}" for key in own if not any(a.startswith(key) for a in arguments))]


def command(arguments: list[str]) -> int:
    """Run `python run.py ARGUMENTS`; returns its exit status."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # raise errors here instead of printing a traceback
    os.environ[COMMAND] = shlex.join(["python", "run.py", *arguments])
    composed.clear()
    refused.clear()
    begin()
    logging.getLogger("hydra._internal.core_plugins.basic_launcher").setLevel(logging.WARNING)  # it only composes
    flags, arguments = taken(arguments)
    if flags.version:
        print(version())
        return 0
    out.quiet = flags.quiet or flags.json
    plug_in(arguments)
    with tempfile.TemporaryDirectory(prefix="scope-harness-", ignore_cleanup_errors=True) as scratch:
        try:
            arguments = words(command_line(arguments))
            launcher, lines = launcher_of(arguments), suited(arguments)
            for line in lines:
                sys.argv[1:] = planning(line, scratch)
                compose()
        except (ConfigError, HydraException, OmegaConfBaseException) as error:
            print(f"error: {explain(str(error))}", file=sys.stderr)
            return 1
        return carried_out(launcher, lines, scratch, flags)


def carried_out(launcher: str, lines: Sequence[Sequence[str]], scratch: str, flags: Flags) -> int:
    """Run the composed cells; returns the exit status."""
    failures = [*refused]
    for line in opening(composed):
        out.print(escape(line))
    try:
        show_costs([cell for cell in composed if cell.run.dry_run], flags)
        failures += sweep([cell for cell in composed if not cell.run.dry_run], launcher, lines, scratch, flags)
    except StoreError as error:  # another version, or a read-only folder: no cell can run
        failures.append(str(error))
    for failure in dict.fromkeys(failures):  # an error of every cell is printed once
        if out.quiet:
            print(f"error: {failure}", file=sys.stderr)
        out.print(f"[bold red]error:[/] {escape(failure)}")
    return int(bool(failures))


def sweep(
    cells: Sequence[Cell], launcher: str, lines: Sequence[Sequence[str]], scratch: str, flags: Flags
) -> list[str]:
    """Run the cells of these command lines, here or by a launcher, then score and report; returns the failures."""
    if not cells:
        return []
    excess = over_budget(cells)
    if excess:
        return [excess]
    if launcher == "basic":
        failures = work(cells, Supervisor())
    elif refused:
        return [f"{launcher} started nothing, because some cells are not valid; correct them first"]
    else:
        try:
            lines = [scratched(prepared(line, launcher, cells), scratch) for line in lines]
        except ConfigError as error:
            return [str(error)]
        store = escape(str(results_of(cells[0])))
        out.print(f"{len(cells)} cells by {launcher}; python -m store {store} shows their progress")
        failures = launch(multirun, lines, cells)
    finish(cells, flags)
    return failures


def stopped(signum: int, frame: Any) -> None:
    """Handle SIGTERM like Ctrl-C."""
    raise KeyboardInterrupt(signal.Signals(signum).name)


if __name__ == "__main__":
    tolerate()
    signal.signal(signal.SIGTERM, stopped)
    try:
        sys.exit(command(sys.argv[1:]))
    except KeyboardInterrupt as interrupt:
        how = str(interrupt) or "SIGINT"
        print(f"stopped by {how}; finished videos are in the store, and the same command continues", file=sys.stderr)
        sys.exit(128 + signal.Signals[how])
