"""Tasks that a cell may run instead of generating videos: `task=NAME`, usually set by an experiment."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from conf.schema import ConfigError, nearest
from store import Store
from sweep.cell import VIDEOS, Cell
from sweep.events import Notify

TASKS: dict[str, str] = {  # name -> module with run(cell, store, notify)
    "calibrate": "sweep.calibration.task",
    "fit_ramp": "sweep.schedules.fit_task",
    "plan": "sweep.plan_task",
    "search_schedule": "sweep.schedules.task",
    "trajectory": "sweep.trajectory",
}

Task = Callable[[Cell, Store, Notify], list[str]]
"""Runs in the store's folder, reports progress, and returns the failures, one line each."""


def task_of(name: str) -> Task:
    """The function behind `task=NAME`. Raises ConfigError for a name that is not on the menu."""
    if name not in TASKS:
        raise ConfigError(f"task={name} is not on the menu{nearest(name, [VIDEOS, *TASKS])}")
    task: Task = import_module(TASKS[name]).run
    return task
