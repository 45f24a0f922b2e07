"""Check whether this machine can run a model. Each line has a remedy: `python -m sweep.doctor`."""

from __future__ import annotations

import netrc
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.markup import escape

from conf.schema import CONF, ConfigError, explain, nearest, options
from conf.words import words
from engine.weights import WeightsError
from eval import lpips_weights, vbench_setup
from eval.video import read, write_lossless, write_preview
from store import Store, StoreError
from sweep.cell import Cell, Order
from sweep.cost import GB, survey
from sweep.finding import MISSING, OK, WARNING, Finding
from sweep.gpu_checks import gpus, memory_line
from sweep.launch import EXTRAS
from sweep.peaks import memory
from terminal import console, tolerate

COLOURS = {OK: "green", WARNING: "yellow", MISSING: "bold red"}
PYTHONS = ((3, 11), (3, 13))
SETTINGS = "model"  # the finding that the settings contradict each other
ROOM = 20  # number of videos for which the results folder should have space


HELP = """usage: python -m sweep.doctor [model=NAME] [model.checkpoint=FOLDER] [results=FOLDER] [device=cpu|cuda|cuda:1]

Check whether this machine can run a model. Each line has a remedy. Exit status: 0 it can, 1 it cannot, 2 bad input."""


def main(arguments: Sequence[str]) -> int:
    """Run the command line, with settings as for run.py. Returns 0 if the model can run, 1 if not, 2 for bad input."""
    tolerate()
    if {"-h", "--help"} & set(arguments):
        print(HELP)
        return 0
    given = dict(word.partition("=")[::2] for word in arguments)
    unknown = [word for word in given if not word.startswith(("model", "results", "device", "method"))]
    if unknown or not all(given.values()):
        wrong = (unknown or list(given))[0]
        print(
            f"error: {wrong} is not a setting here; want model=NAME, model.checkpoint=..., results=, device=",
            file=sys.stderr,
        )
        return 2
    if given.get("model", "skyreels_tiny") not in options("model"):
        print(
            f"error: model={given['model']} is not on the menu{nearest(given['model'], options('model'))}",
            file=sys.stderr,
        )
        return 2
    out = console()
    findings = list(examine(arguments))
    width = max(len(f.what) for f in findings)
    for finding in findings:
        colour = COLOURS[finding.state]
        remedy = f"; {escape(finding.remedy)}" if finding.remedy else ""
        out.print(f"[{colour}]{finding.state:8}[/] {finding.what:{width}}  {escape(finding.found)}{remedy}")
    able = not any(finding.state == MISSING for finding in findings)
    out.print(escape(verdict(given.get("model", "skyreels_tiny"), findings)))
    return int(not able)


def verdict(name: str, findings: Sequence[Finding]) -> str:
    """The last line: ready, or the first thing to do."""
    first = next((finding for finding in findings if finding.state == MISSING), None)
    if first is not None and first.what == SETTINGS:
        return f"not ready: {first.found}"
    if first is not None:
        return f"not ready: {first.what} is missing; first {first.remedy or first.found}"
    tight = next((f for f in findings if f.state == WARNING and f.what in ("GPU", "GPU memory", "free disk")), None)
    if tight is not None and not name.endswith(("_tiny", "_mid")):
        return f"model={name} can start, but first see to {tight.what}: {tight.remedy or tight.found}"
    return f"ready: model={name} can run here"


def examine(arguments: Sequence[str] = ()) -> Iterator[Finding]:
    """All findings, in order. A check that raises an error gives a finding too."""
    checks: list[Callable[[], Iterator[Finding]]] = [
        _python,
        _torch,
        _gpu,
        lambda: _model(arguments),
        _codecs,
        _evaluation,
        _logging,
        _launchers,
    ]
    for check in checks:
        try:
            yield from check()
        except Exception as error:  # a broken installation must not hide the other lines
            name = getattr(check, "__name__", "check").strip("_<>")
            what = f"{type(error).__name__}: {error}".splitlines()[0]
            yield Finding(name, MISSING, what, "pip install -c constraints.txt -e .")


def _python() -> Iterator[Finding]:
    version, known = sys.version.split()[0], PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]
    yield Finding("Python", OK if known else MISSING, version, "" if known else "want 3.11, 3.12 or 3.13")


def _torch() -> Iterator[Finding]:
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"
    yield Finding("torch", OK, f"{torch.__version__} ({build}), {torch.get_num_threads()} threads")
    import torchvision

    try:
        torch.ops.torchvision.nms  # noqa: B018
    except (AttributeError, RuntimeError):
        yield Finding(
            "torchvision",
            MISSING,
            f"{torchvision.__version__} does not fit torch {torch.__version__}",
            "pip install -c constraints.txt -e .",
        )
    else:
        yield Finding("torchvision", OK, torchvision.__version__)


def _gpu() -> Iterator[Finding]:
    yield from gpus(_said)


def _model(arguments: Sequence[str]) -> Iterator[Finding]:
    """The settings, weights and memory of the chosen model, and the disk space for its videos."""
    try:
        cell = _composed(arguments)
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        yield Finding(SETTINGS, MISSING, explain(str(error)))
        return
    model = cell.model
    try:
        yield Finding("weights", OK, f"{model.name}, {model.settings.weights}, content {model.weights_id}")
    except WeightsError as error:
        found, _, remedy = str(error).partition(". ")
        yield Finding("weights", MISSING, found, remedy[:1].lower() + remedy[1:])
    if model.device.type == "cuda":
        there = torch.cuda.get_device_properties(model.device).total_memory / GB
        yield memory_line(memory(model, cell.method), there)
    else:
        fits = memory(model, cell.method).told()
        cards = ", ".join(f"{card}: {answer}" for card, answer in fits["fits"].items())
        yield Finding("GPU memory", OK, f"a video would take {fits['most']:.1f} GB of a GPU; fits {cards}")
    root = Path(cell.run.results).expanduser().absolute()
    try:
        if root.exists():
            Store(root)
    except StoreError as error:
        yield Finding("results", MISSING, str(error))
        return
    size = survey([cell], measured=root.is_dir())[-1].disk / GB
    free = shutil.disk_usage(next(p for p in (root, *root.parents) if p.exists())).free / GB
    state = OK if free > ROOM * size else WARNING if free > 2 * size else MISSING
    yield Finding(
        "free disk",
        state,
        f"{free:.1f} GB at {root}; a video takes about {size:.2g} GB",
        "" if state == OK else "free space, or choose another results=FOLDER",
    )


def _composed(arguments: Sequence[str]) -> Cell:
    """The cell with these settings; the Original if no method is given."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=words(arguments))
    name = next((word.partition("=")[2] for word in arguments if word.startswith("method=")), "original")
    return Cell.of(Order(OmegaConf.to_yaml(config), name, None))


def _codecs() -> Iterator[Finding]:
    """Write frames and read them back. The lossless file must return every byte."""
    import av

    frames = np.random.default_rng(0).integers(0, 256, (5, 48, 64, 3), np.uint8)
    library = f"PyAV {av.__version__}"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frames.mp4"
        try:
            write_lossless(path, frames)
            same = np.array_equal(np.concatenate(list(read(path))), frames)
            write_preview(Path(folder) / "video.mp4", read(path))
        except (ValueError, OSError) as error:
            yield Finding("codecs", MISSING, f"{library}: {error}", "pip install -c constraints.txt -e .")
            return
    found = "libx264rgb is lossless" if same else "libx264rgb does not return the written bytes"
    yield Finding(
        "codecs", OK if same else MISSING, f"{library}: {found}", "" if same else "pip install -c constraints.txt -e ."
    )


def _evaluation() -> Iterator[Finding]:
    try:
        yield Finding("LPIPS", OK, str(lpips_weights.find("alex")))
    except lpips_weights.MissingWeights:
        yield Finding("LPIPS", WARNING, "no weights: that column stays empty", "python -m eval.lpips_weights fetch")
    try:
        vbench_setup.interpreter()
    except vbench_setup.VBenchError as error:
        yield Finding("VBench", WARNING, str(error))  # the message has the remedy
    else:
        yield Finding("VBench", OK, str(vbench_setup.home()), "python -m eval.vbench doctor lists what is missing")


def _logging() -> Iterator[Finding]:
    if find_spec("wandb") is None:
        yield Finding("W&B", WARNING, "not installed", "pip install wandb")
        return
    mode = os.environ.get("WANDB_MODE") or ("online" if _has_key() else "offline")
    yield Finding("W&B", OK, f"{mode}" + ("" if mode != "offline" else ": no key; send the runs later with wandb sync"))


def _has_key() -> bool:
    """Whether W&B would find a key. The key itself is not read."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return any("wandb" in host for host in netrc.netrc().hosts)
    except (OSError, netrc.NetrcParseError):
        return False


def _launchers() -> Iterator[Finding]:
    """The launchers; only the basic one is necessary."""
    for extra in dict.fromkeys(EXTRAS.values()):
        there = find_spec("hydra_plugins") is not None and find_spec(f"hydra_plugins.hydra_{extra}_launcher")
        remedy = "" if there else f"for hydra/launcher={extra}: pip install -e '.[{extra}]'"
        yield Finding(extra, OK if there else WARNING, "installed" if there else "not installed", remedy)
    slurm = _said("sinfo", "--version")
    if not slurm:
        yield Finding("SLURM", WARNING, "sinfo finds no cluster", "for hydra/launcher=submitit_slurm use a login node")
        return
    accounting = _said("sacct", "-n", "-j", "1") is not None
    yield Finding(
        "SLURM",
        OK if accounting else WARNING,
        slurm + ("" if accounting else ", sacct does not work"),
        "" if accounting else "without it the command waits forever for a killed job",
    )


def _said(*command: str) -> str | None:
    """The output of a program; None if it does not exist or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
