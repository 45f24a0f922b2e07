"""conf/experiment/NAME.yaml: the sweeps of one table or figure, for all requested models.

    models: skyreels_tiny,magi1_tiny     replaced by `model=` on the command line
    includes: [table1, fig7]             other experiments, whose sweeps come first
    sweeps:                              each is one Hydra multirun, a product of its settings
      - {method: 'teacache,scope', speed: 'slow,fast'}
      - {for: 'skyreels*', method: scope, method.selective: none}     only on models with this name
      - {model: 'skyreels,magi1', task: plan}                        always on these models

A file with neither `sweeps` nor `includes` is an ordinary Hydra option, which Hydra handles.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from itertools import pairwise
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from conf.schema import CONF, ConfigError, nearest

MULTIRUN = ("-m", "--multirun")


def expanded(arguments: Sequence[str]) -> list[list[str]]:
    """One command line per sweep of the experiment; without an experiment, only `arguments`.

    Settings of the command line replace those of the sweeps. Raises ConfigError if the experiment does not exist or has
    no sweep for the requested models.
    """
    given = {key: value for key, _, value in (a.partition("=") for a in arguments) if key in ("experiment", "model")}
    folders = _folders(arguments)
    name = given.get("experiment", "")
    if "," in name or not name:
        return [list(arguments)]
    content = read(name, folders)
    if not {"sweeps", "includes"} & set(content):
        return [list(arguments)]
    rest = [a for a in arguments if a.partition("=")[0] not in given and a not in MULTIRUN]
    models = given.get("model") or str(content["models"])
    found: list[list[str]] = []
    for line in _lines(name, models.split(","), rest, folders):
        if line not in found:  # two figures may use the same sweep
            found.append(line)
    if not found:
        raise ConfigError(f"experiment={name} has no sweep for model={models}; want one of {content['models']}")
    return found


def plug_in(arguments: Sequence[str]) -> None:
    """Put the folders of plugged-in menus (--config-dir) on the Python path, so that the classes of their files can lie
    beside them. The processes that do the work get the same path."""
    for folder in plugged_in(arguments):
        place = str(folder.expanduser().absolute())
        if place not in sys.path:
            sys.path.append(place)


def plugged_in(arguments: Sequence[str]) -> list[Path]:
    """The folders that --config-dir names."""
    return _folders(arguments)[:-1]


def choices(line: Sequence[str]) -> dict[str, list[str]]:
    """The values of each setting of one command line, as Hydra would sweep over them.

    >>> choices(["-m", "speed=slow,fast", "method.interval_ratio=[1,0.5],[0,0]"])
    {'speed': ['slow', 'fast'], 'method.interval_ratio': ['[1,0.5]', '[0,0]']}
    """
    found = OverridesParser.create().parse_overrides([a for a in line if "=" in a])
    return {
        o.key_or_group: list(o.sweep_string_iterator()) if o.is_sweep_override() else [o.get_value_string()]
        for o in found
    }


def read(name: str, folders: Sequence[Path] = (CONF,)) -> Mapping[str, Any]:
    """The content of an experiment's file. Raises ConfigError if there is none."""
    paths = [folder / "experiment" / f"{name}.yaml" for folder in folders]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        known = sorted(file.stem for folder in folders for file in (folder / "experiment").glob("*.yaml"))
        raise ConfigError(f"experiment={name} is not on the menu{nearest(name, known)}")
    content: Any = OmegaConf.to_container(OmegaConf.load(path))
    return content or {}


def _lines(name: str, models: Sequence[str], rest: list[str], folders: Sequence[Path]) -> Iterator[list[str]]:
    content = read(name, folders)
    for other in content.get("includes", ()):
        yield from _lines(other, models, rest, folders)
    by_hand = {a.lstrip("+~").partition("=")[0] for a in rest}
    for sweep in content.get("sweeps", ()):
        settings = dict(sweep)
        pattern = settings.pop("for", "*")
        here = settings.pop("model", None) or ",".join(m for m in models if fnmatch(m, pattern))
        if here:
            yield ["-m", f"model={here}", *(f"{k}={v}" for k, v in settings.items() if k not in by_hand), *rest]


def _folders(arguments: Sequence[str]) -> list[Path]:
    """The folders of experiments: first a plug-in's menu (--config-dir), then our own."""
    found = []
    for argument, after in pairwise([*arguments, ""]):
        flag, _, value = argument.partition("=")
        if flag in ("--config-dir", "-cd"):
            found.append(Path(value or after))
    return [*found, CONF]


def chooses_prompts(arguments: Sequence[str]) -> bool:
    """Whether an experiment that Hydra reads, such as calibrate, names its prompts itself."""
    name = next((value for key, _, value in (a.partition("=") for a in arguments) if key == "experiment"), "")
    content = read(name, _folders(arguments)) if name and "," not in name else {}
    return "prompts" in content or any("prompts" in str(entry) for entry in content.get("defaults", ()))
