"""Cells that need no process of their own: their videos are all there, or they only count."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from conf.schema import ConfigError
from engine.weights import WeightsError
from store import Store, StoreError
from sweep.cell import VIDEOS, Cell
from sweep.events import Notify, wanted
from sweep.tasks import task_of
from sweep.turns import turns

COUNTS = ("plan",)  # tasks that neither load a model nor need torch


def idle(cells: Sequence[Cell]) -> bool:
    """Whether a group of cells (sweep/turns.py) needs no worker: the store has every video, whole, and no logger is
    waiting, or its task only counts."""
    run = cells[0].run
    if run.task != VIDEOS:
        return run.task in COUNTS
    root = Path(run.results).expanduser().absolute()
    if not root.is_dir() or any(cell.run.logger.name != "none" for cell in cells):
        return False
    try:
        store = Store(root, create=False)
        return not any(wanted(store.find(*turn.place), turn.cell.run) for turn in turns(cells))
    except (StoreError, WeightsError, OSError):
        return False  # whoever does the work will say it


def tell_idle(cells: Sequence[Cell], notify: Notify) -> None:
    """Say of each cell that nothing is to be done, or do what its task counts."""
    try:
        store = Store(Path(cells[0].run.results).expanduser().absolute())
        store.sweep()
        for cell in cells:
            if cell.run.task == VIDEOS:
                notify("cell", cell.label, 0, cell.order.place)
                continue
            notify("cell", cell.label, None, cell.order.place)
            for line in task_of(cell.run.task)(cell, store, notify):
                notify("failed", line)
        store.remember()
    except (ConfigError, WeightsError, StoreError) as error:
        notify("failed", str(error))
