"""Runs cells in this process: their missing videos, or the measurement of their task."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path

from rich.console import Console

from conf.schema import ConfigError
from engine.weights import WeightsError
from store import Store, StoreError
from sweep.cell import VIDEOS, Cell
from sweep.events import DeviceLost, Notify
from sweep.tasks import task_of
from sweep.turns import named


def perform(cells: Sequence[Cell], notify: Notify, lost: Mapping[str, str] | None = None) -> None:
    """Run a group of cells (sweep/turns.py). Failures become "failed" events; only DeviceLost and interrupts are
    raised."""
    from engine.to_device import select  # these import torch
    from sweep.make_videos import make

    if not cells:
        return
    try:
        select(cells[0].model.device)  # before anything is put on a device
        store = Store(Path(cells[0].run.results).expanduser().absolute())
        gone = store.sweep()
        if gone:
            notify("say", f"{len(gone)} unfinished folders or claims of ended processes were removed")
        if cells[0].run.task == VIDEOS:
            make(cells, store, notify, lost)
            for cell in cells:
                mirror(cell, store, notify)
        else:
            measure(cells[0], store, notify)
        store.remember()
    except (ConfigError, WeightsError, StoreError) as error:
        notify("failed", str(error))
    except DeviceLost:
        raise
    except Exception as error:
        notify("say", traceback.format_exc())
        notify("failed", f"{named(cells)}: {type(error).__name__}: {error}".splitlines()[0])


def measure(cell: Cell, store: Store, notify: Notify) -> None:
    """Run the task of a cell that generates no videos."""
    notify("cell", cell.label, None, cell.order.place)
    for line in task_of(cell.run.task)(cell, store, notify):
        notify("failed", line)


def mirror(cell: Cell, store: Store, notify: Notify) -> None:
    """Send the cell to the chosen logger. It is scored before, because the logger shows the scores."""
    if cell.run.logger.name == "none":
        return
    from eval.__main__ import score_store
    from sweep.loggers import log_cell

    if cell.run.score:
        score_store(store, console=Console(file=StringIO()), only=[job.key for job in cell.jobs()])
    log_cell(cell, store, lambda text: notify("say", text))
