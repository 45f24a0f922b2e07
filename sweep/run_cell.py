"""One cell in this process: the videos that the store lacks, or the measurement that its task names."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from io import StringIO
from pathlib import Path

from rich.console import Console

from conf.schema import ConfigError
from engine.weights import WeightsError
from store import Store, StoreError
from sweep.cell import Cell
from sweep.make_videos import DeviceLost, Notify, make
from sweep.tasks import VIDEOS, task_of


def perform(cell: Cell, notify: Notify, lost: Mapping[str, str] | None = None) -> None:
    """Do the cell's task. What fails is told as "failed" lines and never raised, but for DeviceLost and interrupts."""
    try:
        store = Store(Path(cell.run.results).expanduser().absolute())
        gone = store.sweep()
        if gone:
            notify("say", f"{len(gone)} half-written folders or claims of processes that died were removed")
        if cell.run.task == VIDEOS:
            make(cell, store, notify, lost)
            mirror(cell, store, notify)
        else:
            notify("cell", cell.label, None)
            for line in task_of(cell.run.task)(cell, store, notify):
                notify("failed", line)
        store.remember()
    except (ConfigError, WeightsError, StoreError) as error:
        notify("failed", str(error))
    except DeviceLost:
        raise
    except Exception as error:
        notify("say", traceback.format_exc())
        notify("failed", f"{cell.label}: {type(error).__name__}: {error}".splitlines()[0])


def mirror(cell: Cell, store: Store, notify: Notify) -> None:
    """Tell the logger that was asked for; scores first, since they are its headline."""
    if cell.run.logger.name == "none":
        return
    from eval.__main__ import score_store
    from sweep.loggers import log_cell

    if cell.run.score:
        score_store(store, console=Console(file=StringIO()), only=[job.key for job in cell.jobs()])
    log_cell(cell, store, lambda text: notify("say", text))
