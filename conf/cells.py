"""The cells of a sweep, composed one after another in this process: Hydra's basic launcher, without its own settings.

Hydra composes and copies some 200 settings of its own with every cell. They are the same for all cells of a command, so
here the sweep's are kept, and only what a cell chooses is written into them. run.py does the work of the cells itself,
so nothing else of a job is needed: no folder, no log.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.defaults_list import Overrides, _create_defaults_list
from hydra.core.default_element import ResultDefault
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import setup_globals
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

_repositories: dict[tuple[str, ...], Any] = {}  # the files that this command has read, by what they depend on


def forget() -> None:
    """Read all files again: they may have changed since the last command."""
    _repositories.clear()


def launch(launcher: Any, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[Any]:
    """Give the function of the command every cell; HydraConfig holds the sweep's settings with the cell's choices."""
    setup_globals()
    before, master = HydraConfig.instance().cfg, launcher.config
    composer = _Composer(launcher.hydra_context.config_loader, master)
    HydraConfig.instance().set_config(master)
    try:
        for number, overrides in enumerate(job_overrides, initial_job_idx):
            config, choices, given = composer.composed(overrides)
            own = HydraConfig.instance().cfg.hydra
            with read_write(own), open_dict(own):
                own.runtime.choices = choices
                own.overrides.task = given
                own.job.id = own.job.num = number
            launcher.task_function(config)
    finally:
        HydraConfig.instance().cfg = before
    return []


class _Whole:
    """The files of a sweep for one cell. Hydra copies what goes into a package; the rest becomes part of the cell, so
    here it is copied."""

    def __init__(self, repository: Any, defaults: Sequence[ResultDefault]) -> None:
        self._repository = repository
        self._packaged = {one.config_path for one in defaults if one.package}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._repository, name)

    def load_config(self, config_path: str) -> Any:
        found = self._repository.load_config(config_path=config_path)
        return found if config_path in self._packaged else deepcopy(found)


class _Composer:
    """Composes the cells of one sweep. All cells of a command share the files, and the list of the files if they choose
    the same."""

    def __init__(self, loader: ConfigLoaderImpl, master: DictConfig) -> None:
        self.loader, self.master = loader, master
        self.name = master.hydra.job.config_name
        given = [str(word) for word in master.hydra.overrides.hydra]
        self.parser = OverridesParser.create()
        key = (str(self.name), os.getcwd(), str(loader.get_search_path()), *given)
        if key not in _repositories:
            _repositories[key] = loader._parse_overrides_and_create_caching_repo(self.name, given)[1]
        self.repository = _repositories[key]
        self.files: dict[tuple[str, ...], tuple[list[ResultDefault], dict[str, Any]]] = {}

    def composed(self, overrides: Sequence[str]) -> tuple[DictConfig, dict[str, Any], list[str]]:
        """A cell's settings, its choices by group, and its overrides. Raises ConfigCompositionException."""
        try:
            return self._composed([*self.master.hydra.overrides.hydra, *overrides])
        except OmegaConfBaseException as error:
            raise ConfigCompositionException().with_traceback(error.__traceback__) from error

    def _composed(self, overrides: list[str]) -> tuple[DictConfig, dict[str, Any], list[str]]:
        repository = self.repository
        ours = [one for one in self.parser.parse_overrides(overrides) if not one.is_hydra_override()]
        values = [o for o in ours if isinstance(o.value(), dict) or not repository.group_exists(o.key_or_group)]
        files, choices = self._files(repository, [override for override in ours if override not in values])
        config = self.loader._compose_config_from_defaults_list(defaults=files, repo=_Whole(repository, files))
        with open_dict(config):
            config.pop("hydra", None)
        OmegaConf.set_struct(config, True)
        self.loader._apply_overrides_to_config(values, config)
        OmegaConf.copy_cache(from_config=self.master, to_config=config)
        return config, {**self.master.hydra.runtime.choices, **choices}, [str(o.input_line) for o in ours]

    def _files(self, repository: Any, chosen: list[Override]) -> tuple[list[ResultDefault], dict[str, Any]]:
        """The files that these choices compose, and all choices, given and by default."""
        key = tuple(str(override.input_line) for override in chosen)
        if key not in self.files:
            overrides = Overrides(repo=repository, overrides_list=chosen)
            found, _ = _create_defaults_list(repository, self.name, overrides, prepend_hydra=False, skip_missing=False)
            for group in [group for group in overrides.override_metadata if group.startswith("hydra/")]:
                del overrides.override_metadata[group]  # Hydra's own, which config.yaml may choose
            overrides.ensure_overrides_used()
            overrides.ensure_deletions_used()
            self.files[key] = found, dict(overrides.known_choices)
        return self.files[key]
