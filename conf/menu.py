"""The files of the menu in full: what a YAML in model/ or method/ leaves out is the default of its class.

So a file says only where its numbers differ. Hydra reads the files through this module, which means that every setting
can be overridden, swept and printed whether the file names it or not, and that an unknown one is still refused.

    # conf/model/skyreels_mid.yaml
    defaults: [skyreels]      first what this file of the same folder says
    frames: 97                then this

A file whose `defaults` list names something else (other groups, packages) is left to Hydra as it is written.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins import file_config_source as files
from hydra._internal.core_plugins import importlib_resources_config_source as packages
from hydra._internal.sources_registry import SourcesRegistry
from hydra.plugins.config_source import ConfigResult
from omegaconf import OmegaConf

from conf import quick
from conf.errors import ConfigError, nearest
from conf.fields import defaults_of

CONF = Path(__file__).parent
GROUPS = ("model", "method")
SELF = "_self_"


class FileConfigSource(files.FileConfigSource):  # type: ignore[misc]
    """Hydra's reader of a folder, which completes the files of GROUPS."""

    def load_config(self, config_path: str) -> ConfigResult:
        read = partial(super().load_config, config_path)
        found = quick.once(self.scheme(), os.path.join(self.path, self._normalize_file_name(config_path)), read)
        return _completed(found, config_path, Path(self.path))

    def is_group(self, config_path: str) -> bool:
        """Whether this is a folder; asked some thousand times, so links are left to the system."""
        return os.path.isdir(os.path.join(self.path, config_path))

    def is_config(self, config_path: str) -> bool:
        """Whether this is a file, with or without its ending."""
        return os.path.isfile(os.path.join(self.path, self._normalize_file_name(config_path)))


class ImportlibResourcesConfigSource(packages.ImportlibResourcesConfigSource):  # type: ignore[misc]
    """The same for a package: what Hydra reads from where a program imports `run` instead of starting it."""

    def load_config(self, config_path: str) -> ConfigResult:
        folder, read = Path(str(resources.files(self.path))), partial(super().load_config, config_path)
        found = quick.once(self.scheme(), str(folder / self._normalize_file_name(config_path)), read)
        return _completed(found, config_path, folder)


def register() -> None:
    """Let Hydra read its files through this module. Both classes keep Hydra's names: its registry goes by these."""
    for reader in (FileConfigSource, ImportlibResourcesConfigSource):
        SourcesRegistry.instance().types[reader.scheme()] = reader
    quick.register()


def _completed(found: ConfigResult, config_path: str, folder: Path) -> ConfigResult:
    group, _, name = config_path.rpartition("/")
    if group in GROUPS and _simple(_plain(found.config).get("defaults", [])):
        found.config = OmegaConf.create(in_full(group, name.removesuffix(".yaml"), [folder, CONF]))
    return found


def in_full(group: str, name: str, folders: Sequence[Path] = (CONF,)) -> dict[str, Any]:
    """Every setting of a model or a method as its file, and else its class, has it; "???" where neither has a value.

    Empty if no folder has the file. Interpolations are left as they are written.
    """
    said = _said(group, name, folders)
    target = said.get("_target_")
    return {"_target_": target, **defaults_of(str(target)), **said} if target else said


def _said(group: str, name: str, folders: Sequence[Path], inside: tuple[str, ...] = ()) -> dict[str, Any]:
    """What a file and those that it builds on say, a mapping within them entry by entry."""
    path = next((path for folder in folders if (path := folder / group / f"{name}.yaml").is_file()), None)
    if name in inside:
        raise ConfigError(f"{group}/{name}.yaml builds on itself ({' > '.join((*inside, name))}); mend its `defaults`")
    if path is None and inside:
        known = sorted({file.stem for folder in folders for file in (folder / group).glob("*.yaml")})
        raise ConfigError(f"{group}/{inside[-1]}.yaml builds on {name}, which is not there{nearest(name, known)}")
    if path is None:
        return {}
    content = quick.once("content", f"{path}", lambda: _plain(OmegaConf.load(path)))
    bases = content.pop("defaults", [])
    if not _simple(bases) or not bases:
        return content
    parts = [
        content if base == SELF else _said(group, base.removesuffix(".yaml"), folders, (*inside, name))
        for base in (bases if SELF in bases else [*bases, SELF])
    ]
    return _plain(OmegaConf.merge(*parts))


def _simple(bases: Any) -> bool:
    """Whether a `defaults` list only names files of the same folder; Hydra reads the others as ever."""
    return isinstance(bases, list) and all(isinstance(base, str) and not set(base) & set("/@$") for base in bases)


def _plain(content: Any) -> dict[str, Any]:
    found: Any = OmegaConf.to_container(content) or {}
    return found if isinstance(found, dict) else {}
