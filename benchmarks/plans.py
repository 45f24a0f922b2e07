"""Write sweep/plans.jsonl: what a dry run tells of the menu without torch (sweep/shipped.py).

    python -m benchmarks.plans [--all]

It holds every operating point, every method of the small models at its defaults, and the sweeps of EXPERIMENTS. Lines
whose code and files have not changed are kept; `--all` finds all of them anew. A minute.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import run
from conf.menu import CONF
from conf.schema import options
from conf.words import words
from engine.kept import FOLDER
from store import writing
from sweep import shipped
from sweep.cell import Cell, label
from sweep.cost import dry_run
from sweep.peaks import held
from sweep.prompt_sets import suited
from sweep.replay import counted, time_files
from terminal import tolerate

EXPERIMENTS = ("quickstart", "paper")
SMALL = ("skyreels_tiny", "magi1_tiny", "far_tiny")
COUNTS = {"plan": counted, "state": held}  # the first word of a question: the function that answers it


def commands() -> Iterator[list[str]]:
    """The command lines whose cells the file holds."""
    for name in EXPERIMENTS:
        yield [f"experiment={name}"]
    for model in SMALL:
        yield ["-m", f"model={model}", f"method={','.join(options('method'))}", "speed=none"]
    for folder in sorted((CONF / "point").iterdir()):
        for method in sorted({path.stem.rpartition("_")[0] for path in folder.glob("*_*.yaml")}):
            yield from _points(folder, method)


def _points(folder: Path, method: str) -> Iterator[list[str]]:
    names = [path.stem.removeprefix(f"{method}_") for path in sorted(folder.glob(f"{method}_*.yaml"))]
    speeds = [name for name in names if (CONF / "speed" / f"{name}.yaml").is_file()]
    if speeds:
        yield ["-m", f"model={folder.name}", f"method={method}", f"speed={','.join(speeds)}"]


def cells_of(command: Sequence[str], scratch: str) -> list[Cell]:
    """The cells that the command composes; those that are refused are left out."""
    run.composed.clear()
    for line in suited(words([*command, "dry_run=true", "device=cpu", f"results={scratch}/none"])):
        sys.argv[1:] = run.planning(line, scratch)
        run.compose()
    return [*run.composed]


def lines_of(cell: Cell, folder: Path) -> Iterator[dict[str, Any]]:
    """The questions that a dry run of `cell` asks, with their answers, as it keeps them in the empty `folder`."""
    dry_run(cell)
    for path in sorted(folder.glob("*.json")):
        entry = json.loads(path.read_text(encoding="utf-8"))
        path.unlink()
        kind = entry["of"].partition(" of ")[0]
        if kind in COUNTS:
            line = {"model": cell.model.name, "method": label(cell.name, cell.speed), "of": kind}
            line |= {"asked": shipped.asked(entry["of"]), "code": code(kind, cell.model, type(cell.method))}
            yield line | {"is": json.loads(entry["is"])}


def code(of: str, model: Any, method: Any) -> str:
    """The code of a line about a model, which is an object, and a method, which is a class."""
    files = time_files(model) if of == "plan" and method.decided_by != "schedule" else []
    return shipped.code(type(model), method, COUNTS[of], files)


def found(chosen: Sequence[Sequence[str]] = ()) -> list[dict[str, Any]]:
    """The lines of these command lines, or of all, each question once."""
    known: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        cache = os.environ[FOLDER] = str(Path(scratch) / "cache")
        seen = set[tuple[Any, str]]()
        for command in chosen or [*commands()]:
            for cell in cells_of(command, scratch):
                key = (repr(cell.model.settings), repr(cell.method))
                for line in () if key in seen else lines_of(cell, Path(cache)):
                    known.setdefault(line["asked"], line)
                seen.add(key)
            print(f"{len(known)} after {' '.join(command)}", file=sys.stderr)
    return sorted(known.values(), key=lambda line: (line["model"], line["method"], line["of"], line["asked"]))


def main(arguments: list[str] | None = None) -> int:
    """Write the file; returns 0."""
    tolerate()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plans", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--all", action="store_true", help="keep no line")
    if parser.parse_args(arguments).all:
        shipped.PLANS.unlink(missing_ok=True)
    lines = found()
    with writing(shipped.PLANS) as draft:
        draft.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    print(f"{len(lines)} lines in {shipped.PLANS}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
