"""Less work for Hydra, with the same results: a sweep composes each cell from some twenty files.

* A file of a menu is parsed once per process, and again after it has changed.
* Hydra copies its list of sources for every question; here the list is copied, not all that the sources hold.
* With -m the mode is known, and nothing is composed to find it out.
* Hydra's sweeper composes every cell only to see whether that is possible; run.py composes and checks all cells anyway.
* Hydra's own settings are composed once per sweep (conf/cells.py), not once per cell.
"""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from hydra._internal.config_repository import ConfigRepository
from hydra._internal.hydra import Hydra
from hydra.plugins.sweeper import Sweeper

from conf.cells import launch

T = TypeVar("T")
_read: dict[tuple[str, str, int, int], Any] = {}  # a form, a file and its state: what was read from it
_mode_of = Hydra.get_mode


def register() -> None:
    """Let Hydra save the work in this process."""
    ConfigRepository.__deepcopy__ = _with_its_own_list
    Hydra.get_mode = _mode
    Sweeper.validate_batch_is_legal = _not_composed_twice


def once(form: str, path: str, read: Callable[[], T]) -> T:
    """What `read` gives for the file at `path`, from memory if the file is as it was. The caller may change it.

    `form` tells apart what is read from one file in several ways.
    """
    try:
        state = os.stat(path)
    except OSError:
        return read()
    key = form, path, state.st_mtime_ns, state.st_size
    if key not in _read:
        _read[key] = read()
    return copy.deepcopy(_read[key])  # type: ignore[no-any-return]


def _with_its_own_list(repository: ConfigRepository, memo: dict[int, Any]) -> ConfigRepository:
    """A copy that can be given other sources. Sources are never changed, so both share them."""
    found = copy.copy(repository)
    found.sources = list(repository.sources)
    return found


def _mode(hydra: Hydra, config_name: str | None, overrides: list[str]) -> Any:
    """hydra.mode of the configuration; with -m it does not matter."""
    return None if {"-m", "--multirun"} & set(sys.argv[1:]) else _mode_of(hydra, config_name, overrides)


def _not_composed_twice(sweeper: Any, batch: Any) -> None:
    """The launcher composes the same cells next: Hydra's basic one by conf/cells.py."""
    if type(sweeper.launcher).__name__ == "BasicLauncher":  # Hydra loads its plugins as copies of their modules
        sweeper.launcher.launch = partial(launch, sweeper.launcher)
