"""Which prompts a sweep takes, and what it says about them at its start."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from conf.suite import FOR_A_CLAIM, chosen, counted, set_for, sets
from sweep.cell import VIDEOS, Cell
from sweep.experiments import chooses_prompts, expanded

DEFAULT = "shapes"  # the set of conf/config.yaml


def suited(arguments: Sequence[str]) -> list[list[str]]:
    """The command lines of the sweeps (sweep/experiments.py). Those of an experiment take the set made for their
    models if no prompts are named; a line with models of different sets becomes one line per set.

    >>> suited(["experiment=fig6", "model=magi1,magi1_tiny"])[1]
    ['-m', 'model=magi1', 'method=scope', 'speed=fast', 'prompts=natural']
    """
    lines = expanded(arguments)
    if not any(argument.startswith("experiment=") for argument in arguments):
        return lines
    return [line for given in lines for line in _suited(list(given))]


def _suited(line: list[str]) -> Iterator[list[str]]:
    settings = {key.lstrip("+"): value for key, equals, value in (a.partition("=") for a in line) if equals}
    models = [model.strip() for model in settings.get("model", "").split(",")]
    named = {"prompts", "prompts.file", "prompts.list"} & set(settings) or chooses_prompts(line)
    by_set: dict[str, list[str]] = {}
    for model in models:
        by_set.setdefault(set_for(model) or DEFAULT, []).append(model)
    if named or set(by_set) == {DEFAULT}:
        yield line
        return
    for name in sorted(by_set, key=lambda name: name != DEFAULT):
        own = [f"model={','.join(by_set[name])}" if a.startswith("model=") else a for a in line]
        yield own if name == DEFAULT else [*own, f"prompts={name}"]


def opening(cells: Sequence[Cell]) -> list[str]:
    """What a sweep says at its start: its prompts, seeds and videos, and then what speaks against a claim."""
    cells = [cell for cell in cells if cell.run.task == VIDEOS]
    said: dict[tuple[str, str], list[str]] = {}
    warnings: dict[str, None] = {}
    for cell in cells:
        seeds = f"{len(cell.run.seeds)} seed{'s' * (len(cell.run.seeds) != 1)}"
        models = said.setdefault((_prompts(cell), seeds), [])
        if cell.model.name not in models:
            models.append(cell.model.name)
        warnings |= dict.fromkeys(_warnings(cell))
    found = [f"{', '.join(models)}: {seeds}, {prompts}" for (prompts, seeds), models in said.items()]
    if cells:
        videos = _videos(cells)
        found.append(
            f"{len(cells)} cell{'s' * (len(cells) != 1)}, {videos} video{'s' * (videos != 1)} with the Originals; "
            "videos that are in the store are reused"
        )
    return [*found, *(f"warning: {warning}" for warning in warnings)]


def _prompts(cell: Cell) -> str:
    """`the first 3 of 96 prompts of shapes; prompts.limit=0 takes all`."""
    run = chosen(cell.run.prompts)
    number, source = len(run.texts), Path(cell.run.prompts.menu).stem if run.of_menu else run.source
    part = f", shard {cell.run.shard}" * (cell.run.shard != "1/1")
    wants = f" (a verdict wants at least {FOR_A_CLAIM})" * (number >= FOR_A_CLAIM)
    if number == run.available:
        return f"{counted(number)} of {source}{wants}{part}"
    more = "; prompts.limit=0 takes all" * (cell.run.prompts.limit is None)
    return f"the first {number} of {run.available} prompts of {source}{wants}{more}{part}"


def _warnings(cell: Cell) -> Iterator[str]:
    """Why a claim cannot be made of the cell's prompts, each in one line."""
    run, model = chosen(cell.run.prompts), cell.model.name
    name, wanted = Path(cell.run.prompts.menu).stem, set_for(model)
    if run.of_menu and wanted and model not in sets().get(name, ()) and cell.model.settings.weights != "random":
        yield (
            f"prompts={name} is not made for {model}: its results say nothing about natural videos; use "
            f"prompts={wanted}, or your own with prompts.file=FILE"
            if wanted != DEFAULT
            else f"prompts={name} is not made for {model}, which knows only scenes of {wanted}; use prompts={wanted}"
        )
    number = len(set(run.texts))
    if number < FOR_A_CLAIM:
        yield (
            f"{counted(number)} on {model} {'is' if number == 1 else 'are'} too few for a claim: an interval and a "
            f"verdict want at least {FOR_A_CLAIM}; use more prompts, e.g. {_more(run.available, run.of_menu)}"
        )


def _more(available: int, of_menu: bool) -> str:
    return f"prompts.limit={min(16, available)}" if available >= FOR_A_CLAIM else "prompts.file=FILE"


def _videos(cells: Sequence[Cell]) -> int:
    """The videos of the cells, Originals included, each counted once. Needs no weights and no keys."""
    found = set[tuple[object, ...]]()
    for cell in cells:
        method = repr(cell.method)
        for job in cell.jobs():
            own = method if job.reference else "original"
            found.add((cell.run.results, id(job.model), own, job.name, job.prompt, job.seed))
    return len(found)
