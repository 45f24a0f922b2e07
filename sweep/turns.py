"""Which cells of a sweep are done together, and the order of their videos: like is timed with like.

Cells that share the model, its weights, the device and the results take turns: prompt 1 by every method, prompt 2 by
every method, and so on. A drift of the machine then meets an Original and its methods alike.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sweep.cell import VIDEOS, Cell, Job


@dataclass(frozen=True)
class Turn:
    """One video, and the cell that it is made for."""

    cell: Cell
    job: Job

    @property
    def label(self) -> str:
        return f"{self.cell.model.name} {self.job.label}"

    @property
    def place(self) -> tuple[str, str, str | None, str]:
        """Where the store has it: model, method, speed, key."""
        return self.cell.model.name, self.job.name, self.job.speed, self.job.key

    @property
    def rows(self) -> int:
        """AR iterations of the video."""
        return len(self.job.model.schedule())


def grouped(cells: Sequence[Cell]) -> list[list[Cell]]:
    """The cells in groups that take turns, each in the order in which it was given; a measurement stays alone."""
    groups: dict[Hashable, list[Cell]] = {}
    for number, cell in enumerate(cells):
        results = Path(cell.run.results).expanduser().absolute()
        shared = (id(cell.base), results, cell.run.isolate)  # `base` is one object per setting, weights and device
        groups.setdefault(shared if cell.run.task == VIDEOS else number, []).append(cell)
    return list(groups.values())


def turns(cells: Sequence[Cell]) -> Iterator[Turn]:
    """Every video of the cells once, by seed, prompt and cell; an Original stands before the first that needs it."""
    found = [Turn(cell, job) for cell in cells for job in cell.jobs()]
    seeds = {seed: place for place, seed in enumerate(dict.fromkeys(map(_seed, found)))}
    seen = set[tuple[str, str, str | None, str]]()
    for turn in sorted(found, key=lambda turn: (seeds[_seed(turn)], turn.job.number)):  # stable: then by cell
        if turn.place not in seen:
            seen.add(turn.place)
            yield turn


def named(cells: Sequence[Cell]) -> str:
    """What a message calls a group: `skyreels original, scope-fast`."""
    names = dict.fromkeys(cell.label.removeprefix(f"{cell.model.name} ") for cell in cells)
    return f"{cells[0].model.name} {', '.join(names)}"


def _seed(turn: Turn) -> int:
    """The seed that was asked for; a method may have taken another."""
    return (turn.job.reference or turn.job).seed
