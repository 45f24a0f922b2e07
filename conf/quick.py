"""Less work for Hydra, with the same results: a sweep composes each cell from some twenty files.

* A file of a menu is parsed once per process, and again after it has changed.
* Hydra copies its list of sources for every question; here the list is copied, not all that the sources hold.
* With -m the mode is known, and nothing is composed to find it out.
* Hydra's sweeper composes every cell only to see whether that is possible; run.py composes and checks all cells anyway.
* Hydra's own settings are composed once per sweep (conf/cells.py), not once per cell, and once for the sweeps of an
  experiment that differ in models, methods and prompts only.
* A word of the command line is parsed once, and a folder of the menu is listed once for `--help`.
"""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.hydra import Hydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.plugins.sweeper import Sweeper
from hydra.types import RunMode
from omegaconf import DictConfig

from conf.cells import forget, launch

T = TypeVar("T")
_read: dict[tuple[str, str, int, int], Any] = {}  # a form, a file and its state: what was read from it
_parsed: dict[str, Override] = {}  # words of command lines
_masters: dict[tuple[str, ...], DictConfig] = {}  # Hydra's settings for the sweeps of this command, by their key
_mode_of, _rule_of, _load = Hydra.get_mode, OverridesParser.parse_rule, ConfigLoaderImpl.load_configuration
_options_of = ConfigLoaderImpl.get_group_options
OURS = ("model", "method", "speed", "prompts")  # groups whose files and settings are no part of Hydra's own
PLAIN = ("hydra/launcher=basic",)  # with another launcher, Hydra's settings go to other processes


def register() -> None:
    """Let Hydra save the work in this process."""
    ConfigRepository.__deepcopy__ = _with_its_own_list
    Hydra.get_mode = _mode
    OverridesParser.parse_rule = _rule
    ConfigLoaderImpl.load_configuration = _configuration
    ConfigLoaderImpl.get_group_options = _options
    Sweeper.validate_batch_is_legal = _not_composed_twice


def begin() -> None:
    """A new command: its sweeps share no settings and no files with those of an earlier one."""
    _masters.clear()
    forget()


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


def _rule(parser: OverridesParser, text: str, name: str) -> Any:
    """What `text` is parsed to; a setting of the command line is parsed once per process."""
    if name != "override":
        return _rule_of(parser, text, name)
    if text not in _parsed:
        _parsed[text] = _rule_of(parser, text, name)
    return copy.deepcopy(_parsed[text])


def _configuration(
    loader: ConfigLoaderImpl, config_name: str | None, overrides: list[str], run_mode: RunMode, *rest: Any, **more: Any
) -> DictConfig:
    """The composed settings. Of a sweep, whose cells are composed one by one later, Hydra's own are all that counts."""
    rest_of = [word for word in overrides if word.lstrip("+~").partition("=")[0].partition(".")[0] not in OURS]
    if run_mode != RunMode.MULTIRUN or not set(PLAIN) & set(overrides) or _plugged_in():
        return _load(loader, config_name, overrides, run_mode, *rest, **more)
    key = (str(config_name), os.getcwd(), *rest_of)
    if key not in _masters:
        found = _load(loader, config_name, overrides, run_mode, *rest, **more)
        _masters[key] = copy.deepcopy(found)
        return found
    found = copy.deepcopy(_masters[key])
    found.hydra.overrides.task = [word for word in overrides if not _of_hydra(word)]
    return found


def _options(
    loader: ConfigLoaderImpl,
    group_name: str,
    results_filter: ObjectType | None = ObjectType.CONFIG,
    *rest: Any,
    **more: Any,
) -> list[str]:
    """What a group holds; one loader serves one command, and its help asks for each group four times."""
    if any(rest) or any(more.values()):
        return list(_options_of(loader, group_name, results_filter, *rest, **more))
    known: dict[Any, list[str]] = vars(loader).setdefault("listed", {})
    if (group_name, results_filter) not in known:
        known[group_name, results_filter] = _options_of(loader, group_name, results_filter)
    return list(known[group_name, results_filter])


def _of_hydra(word: str) -> bool:
    return bool(OverridesParser.create().parse_override(word).is_hydra_override())


def _plugged_in() -> bool:
    """Whether the command line names another menu, whose files may say anything."""
    return any(word.partition("=")[0] in ("--config-dir", "-cd") for word in sys.argv[1:])
