"""Sweeps with Hydra's launchers: joblib on one machine, SLURM, Ray. This file has the work of the command before and
after the jobs, and the work of a job. The videos and the failures are in the store."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.markup import escape

from conf.schema import ConfigError, nearest
from conf.words import quoted
from store import Store
from sweep import gpus
from sweep.cell import COMMAND, VIDEOS, Cell, Job, Order, label
from sweep.cost import found, open_jobs
from sweep.display import Display
from sweep.events import out
from sweep.experiments import plugged_in
from sweep.supervisor import ROOT, Supervisor
from terminal import tolerate

EXTRAS = {  # hydra/launcher=NAME: the extra that installs it; its plugin is hydra_plugins.hydra_<extra>_launcher
    "joblib": "joblib",
    "submitit_local": "submitit",
    "submitit_slurm": "submitit",
    "ray": "ray",
}
THREADS = "OMP_NUM_THREADS"
_kept: list[Supervisor] = []  # for a process with several jobs: keeps models loaded between jobs


class JobFailed(RuntimeError):
    """The failures of a job, one line each. Raised at the end of the job, so that Hydra counts it as failed."""


def launcher_of(arguments: Sequence[str]) -> str:
    """The launcher that a command line names. Raises ConfigError if it is unknown or not installed."""
    named = [a.split("=", 1)[1] for a in arguments if a.lstrip("+").startswith("hydra/launcher=")]
    name = named[-1] if named else "basic"
    if name == "basic":
        return name
    if name not in EXTRAS:
        raise ConfigError(f"hydra/launcher={name} is not on the menu{nearest(name, ['basic', *EXTRAS])}")
    if not _installed(f"hydra_plugins.hydra_{EXTRAS[name]}_launcher"):
        raise ConfigError(f"hydra/launcher={name} is not installed; pip install -e '.[{EXTRAS[name]}]'")
    if name == "submitit_slurm" and not shutil.which("sbatch"):
        raise ConfigError(
            "hydra/launcher=submitit_slurm needs sbatch, which is not on the PATH; start the command on a login node"
        )
    return name


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def prepared(arguments: Sequence[str], launcher: str, cells: Sequence[Cell]) -> list[str]:
    """The command line with the launcher's settings for this machine. Raises ConfigError."""
    path = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    path += [str(folder.expanduser().absolute()) for folder in plugged_in(arguments)]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(path))  # jobs inherit this environment
    if launcher == "submitit_slurm":
        _warn_without_accounting()
    if launcher.startswith("submitit") and not any(a.startswith("hydra.sweep.dir=") for a in arguments):
        jobs = Path(cells[0].run.results).expanduser().absolute() / ".jobs"  # visible to every node
        arguments = [*arguments, f"hydra.sweep.dir={quoted(str(jobs))}"]
    if launcher == "ray":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        setting = "hydra.launcher.ray.init.runtime_env"
        if not any(setting in argument for argument in arguments):  # Ray's workers have the environment of their node
            arguments = [*arguments, f"++{setting}.env_vars.PYTHONPATH={quoted(os.environ['PYTHONPATH'])}"]
    if launcher != "joblib" or not any(cell.model.device.type == "cuda" for cell in cells):
        return [*arguments]
    pool, setting = gpus.devices(), "hydra.launcher.n_jobs"
    asked = [int(a.split("=")[1]) for a in arguments if a.lstrip("+").startswith(f"{setting}=")]
    if asked and not 1 <= asked[-1] <= len(pool):
        raise ConfigError(f"{setting}={asked[-1]}, but there are {len(pool)} GPUs; want 1 to {len(pool)}")
    return [*arguments, *([] if asked else [f"{setting}={len(pool)}"])]


def launch(run: Callable[[Sequence[str]], None], lines: Sequence[Sequence[str]], cells: Sequence[Cell]) -> list[str]:
    """`run` every command line; returns the failures, one line each. The store, not the jobs, says what failed."""
    open_ = [(cell, list(open_jobs(cell))) for cell in cells if cell.run.task == VIDEOS]
    failures = []
    for line in lines:
        try:
            run(line)
        except JobFailed as error:
            failures += str(error).splitlines()
        except Exception as error:
            text = [part.strip() for part in f"{type(error).__name__}: {error}".splitlines() if part.strip()]
            failures.append(": ".join(dict.fromkeys([text[0].rstrip(":"), text[-1]])))
        finally:
            end_children()
    for cell, jobs in open_:
        failures += [line for line in _judge(cell, jobs) if line not in failures]
    return failures


def end_children() -> None:
    """End all processes that this one started, because some interrupted launchers leave their processes running.

    Resource trackers are left alone: they end with this process, and ending them earlier causes error messages.
    """
    children = [child for child in psutil.Process().children(recursive=True) if not _tracks_resources(child)]
    for child in children:
        _send(child, "terminate")
    for child in psutil.wait_procs(children, timeout=5)[1]:
        _send(child, "kill")


def _tracks_resources(process: psutil.Process) -> bool:
    try:
        return any("resource_tracker" in word for word in process.cmdline())
    except psutil.Error:
        return False


def _send(process: psutil.Process, what: str) -> None:
    try:
        getattr(process, what)()
    except psutil.NoSuchProcess:
        return


def _judge(cell: Cell, jobs: Sequence[Job]) -> Iterator[str]:
    """One line for every failed video, and one for all missing videos."""
    store, missing = Store(Path(cell.run.results).expanduser().absolute()), 0
    for job in {job.key: job for job in jobs}.values():
        record = found(store, job)
        missing += record is None
        if record is not None and record.status != "ok":
            yield f"{cell.model.name} {job.label} {job.key}: {record.run.get('reason')}"
    if missing:
        yield f"{cell.label}: {missing} videos are missing, their jobs ended early; the same command generates them"


def _warn_without_accounting() -> None:
    """Warn if sacct does not work. Without it, the launcher waits forever for a killed job."""
    if not shutil.which("sacct"):
        why = "it is not on the PATH"
    else:
        done = subprocess.run(["sacct", "-n", "-j", "1"], capture_output=True, text=True)
        why = done.stderr.strip() or "it fails" if done.returncode else ""
    if why:
        out.print(
            f"[yellow]warning:[/] sacct does not work here ({escape(why)}): if a job is killed, this command waits "
            "forever; then stop it and start it again"
        )


# --- inside a job -----------------------------------------------------------------------------------------------------


def run_job(config: DictConfig) -> None:
    """Run one cell, or its shard, in a process of the launcher. Raises JobFailed at the end if anything failed."""
    tolerate()
    launcher = str(HydraConfig.get().runtime.choices.get("hydra/launcher"))
    order = Order.of(config)
    if launcher == "ray" or COMMAND not in os.environ:  # Ray's workers run several jobs and may not inherit it
        os.environ[COMMAND] = shlex.join(["python", "run.py", *HydraConfig.get().overrides.task])
    if launcher == "joblib":
        _share_machine(str(config.get("device")), int(HydraConfig.get().launcher.n_jobs))
    supervisor = _kept[0] if _kept else Supervisor()
    name = f"{config.model.name} {label(order.name, order.speed)}"
    with Display(
        out, [(name, 0)], shared=True
    ) as display:  # the worker counts the videos, because only it imports models
        display.begin()
        try:
            supervisor.do([(name, order)], display)
        except BaseException:
            supervisor.close(kill=True)
            raise
    if launcher == "joblib":  # its processes run several jobs, each on its own device
        _kept[:] = [supervisor]
    else:
        supervisor.close()
    if display.failures:
        raise JobFailed("\n".join(display.failures))


def _share_machine(device: str, jobs: int) -> None:
    """Reserve a GPU of the pool, or a share of the cores, for the process that does the work."""
    pool = gpus.devices() if device in ("auto", "cuda") else []
    if pool:
        gpus.hold(pool)
    cores = len(os.sched_getaffinity(0))
    os.environ.setdefault(THREADS, str(max(1, cores // jobs) if jobs > 0 else 1))
