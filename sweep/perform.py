"""One cell in this process: the videos that the store lacks, or the measurement that its task names."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from pathlib import Path

from conf.schema import ConfigError
from engine.weights import WeightsError
from store import Store, StoreError
from sweep.cell import Cell
from sweep.tasks import VIDEOS, task_of
from sweep.work import DeviceLost, Notify, make


def perform(cell: Cell, notify: Notify, lost: Mapping[str, str] | None = None) -> None:
    """Do the cell's task. What fails is told as "failed" lines and never raised, but for DeviceLost and interrupts."""
    try:
        store = Store(Path(cell.run.results).expanduser().absolute())
        store.sweep()
        if cell.run.task == VIDEOS:
            make(cell, store, notify, lost)
        else:
            notify("cell", cell.label, 0)
            for line in task_of(cell.run.task)(cell, store):
                notify("failed", line)
    except (ConfigError, WeightsError, StoreError) as error:
        notify("failed", str(error))
    except DeviceLost:
        raise
    except Exception as error:
        notify("say", traceback.format_exc())
        notify("failed", f"{cell.label}: {type(error).__name__}: {error}".splitlines()[0])
