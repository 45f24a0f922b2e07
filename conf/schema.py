"""Turns composed YAML into checked objects. The error for an unknown name suggests the most similar valid name.

A YAML file in conf/model/ or conf/method/ registers a model or a method: its `_target_` names a class, and the
dataclass of the class's settings is the schema of the other keys and holds their defaults (conf/menu.py).
Only subclasses of Method and classes with a `Settings` attribute are instantiated."""

from __future__ import annotations

import math
import re
from copy import deepcopy
from dataclasses import dataclass, field, fields
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from conf.chosen import departures, has_point
from conf.classes import class_of, device_of, plan_of, settings_of
from conf.errors import ConfigError, meant, nearest, one_of
from conf.menu import CONF, GROUPS, in_full
from conf.suite import Prompts, read_prompts
from conf.words import literal
from engine.method import Method

__all__ = [
    "CONF",
    "ConfigError",
    "Prompts",
    "Run",
    "departures",
    "device_of",
    "explain",
    "has_point",
    "nearest",
    "options",
    "parse",
    "read_prompts",
    "read_target",
]

CHOSEN = ("model", "method", "prompts", "speed", "logger", "experiment")  # what names a file of the menu
OTHER_NAMES = {"prompt": "prompts.list", "limit": "prompts.limit"}  # what users write: the setting
_earlier: dict[tuple[type, str], Any] = {}  # a dataclass and its values: the instance
SEEDS = (-(2**63), 2**64 - 1)  # the range that torch.Generator.manual_seed accepts
LOGGERS = {"none": "", "wandb": "wandb", "tensorboard": "tensorboard", "trackio": "trackio"}  # name: package


@dataclass
class Point:
    """The description of an operating point."""

    estimated: bool = False  # the source does not state the value and we chose it; every table marks it
    why: str = ""  # the reasoning or the source
    paper: bool = False  # the paper's own numbers, as far as it states them, on any model; tables say so
    turned: list[str] = field(default_factory=list)  # settings tuned on this model; tables name them
    expects: dict[str, float] = field(default_factory=dict)  # the published values that it should reproduce


@dataclass
class Logging:
    """The logger that receives runs in addition to the store (sweep/loggers.py)."""

    name: str = "none"  # none | wandb | tensorboard | trackio
    project: str = "scope-harness"
    group: str = ""  # group of a sweep's runs; empty: the name of the results folder
    mode: str = "auto"  # wandb only: online | offline | disabled; auto: online if a key is set

    def __post_init__(self) -> None:
        if self.name not in LOGGERS:
            raise ConfigError(f"logger.name={self.name} is unknown{nearest(self.name, list(LOGGERS))}")
        if self.mode not in ("auto", "online", "offline", "disabled"):
            raise ConfigError(f"logger.mode={self.mode} is unknown; want auto, online, offline or disabled")
        package = LOGGERS[self.name]
        if package and find_spec(package) is None:
            raise ConfigError(
                f"logger={self.name} needs the package {package}, which is not installed; "
                f"pip install -e '.[{self.name}]', or logger=none"
            )


@dataclass
class Run:
    """All settings of a run except those of its model and its method."""

    speed: str = "fast"  # none | slow | fast | paper: the operating point, if the method has it on this model
    point: Point = field(default_factory=Point)
    prompts: Prompts = field(default_factory=Prompts)
    seeds: list[int] = field(default_factory=lambda: [0])
    results: str = "results"
    device: str = "auto"  # auto | cpu | cuda | cuda:1
    offload: str = "none"  # text: the text encoder runs on the CPU; all: also the denoiser is there while frames decode
    task: str = "videos"  # what every cell does: generate videos, or a measurement (sweep/tasks.py)
    target: str = ""  # a cost to search: flops:0.447 | speedup:2.1 | lpips:0.05 | forwards:12; "": the paper's FLOPs
    tries: int = 300  # schedules that a search tries at most; raising it: slower, a better schedule
    into: str = ""  # folder for the calibrated point; "": the menu, or the results if the menu is read-only
    dry_run: bool = False  # only print what would be done, and its FLOPs
    score: bool = True  # compute PSNR, SSIM, LPIPS and validity; `python -m eval RESULTS` does it later
    report: bool | str = True  # single: also one zip to send, with all videos
    retry_failed: bool = False
    time_again: float = 600.0  # seconds to time Originals again beside late videos; 0: never
    isolate: bool = True  # use a separate process, so that after a segfault or a kill only one video is lost
    shard: str = "1/1"  # i/n: only the i-th of n parts of the prompts; n jobs can share a cell
    budget_gpu_hours: float = 0.0  # a more expensive sweep is not started; 0: no limit
    pflops: float = 0.17  # assumed PFLOP/s without a measurement; raising it: lower estimates
    logger: Logging = field(default_factory=Logging)
    experiment: str | None = None

    def __post_init__(self) -> None:
        if not self.seeds:
            raise ConfigError("seeds is empty; want at least one, e.g. seeds=[0]")
        wrong = [seed for seed in self.seeds if not SEEDS[0] <= seed <= SEEDS[1]]
        if wrong:
            raise ConfigError(f"seeds=[{wrong[0]}] is out of range; torch takes {SEEDS[0]} to {SEEDS[1]}")
        if not self.results.strip():
            raise ConfigError("results is empty; want the folder of the store, e.g. results=results")
        if self.target:
            read_target(self.target)
        one_of("report", self.report, (True, False, "single"), "true, false, or single (one zip to send)")
        one_of("offload", self.offload, ("none", "text", "all"), "none, text or all (what is moved to the CPU)")
        if self.tries < 1:
            raise ConfigError(f"tries={self.tries}: want at least 1 schedule to try")
        if not self.time_again >= 0:
            raise ConfigError(f"time_again={self.time_again}: want seconds of at least 0 (0 times nothing again)")
        if not (self.pflops > 0 and self.budget_gpu_hours >= 0):
            given = f"pflops={self.pflops}, budget_gpu_hours={self.budget_gpu_hours}"
            raise ConfigError(f"{given}: want a rate above 0, and a budget of at least 0 (0 sets no limit)")
        part, parts = self.part
        if not 1 <= part <= parts:
            raise ConfigError(f"shard={self.shard} is not valid; want i/n with i from 1 to n, e.g. shard=1/4 or 4/4")

    @property
    def part(self) -> tuple[int, int]:
        """(i, n) of shard=i/n; (0, 0) if the text has another form."""
        found = re.fullmatch(r"(\d+)/(\d+)", self.shard)
        return (int(found[1]), int(found[2])) if found else (0, 0)


# quantity: (above, up to)
TARGETS = {"flops": (0.0, 1.0), "speedup": (1.0, math.inf), "lpips": (0.0, math.inf), "forwards": (0.0, math.inf)}


def read_target(text: str) -> tuple[str, float]:
    """The quantity and the value of a calibration target. Raises ConfigError.

    >>> read_target("flops:0.447")
    ('flops', 0.447)
    """
    quantity, _, number = text.partition(":")
    try:
        low, high = TARGETS[quantity.strip()]
        value = float(number)
    except (KeyError, ValueError):
        raise ConfigError(
            f"target={text} is not valid; want flops:0.447, speedup:2.1 or lpips:0.05 (of a schedule forwards:12)"
        ) from None
    if not (low < value <= high and math.isfinite(value)):
        raise ConfigError(f"target={text} is out of range; {quantity} must be above {low:g} and at most {high:g}")
    return quantity.strip(), value


def parse(config: DictConfig, planned: bool = False) -> tuple[Run, type, Any, Method]:
    """The checked run, the backbone's class, its settings, and the method. Raises ConfigError."""
    own = {key: config[key] for key in config if key not in ("model", "method")}
    run = _typed(Run, OmegaConf.create(own), "")
    backbone = (plan_of(config.model) if planned else None) or class_of(config.model, "model")
    settings = settings_of(backbone)
    if settings is None:
        raise ConfigError(f"model._target_ names {backbone.__name__}, which is not a backbone: it has no Settings")
    method = class_of(config.method, "method")
    if not issubclass(method, Method):
        raise ConfigError(f"method._target_ names {method.__name__}, which is not a subclass of engine.method.Method")
    own_method = _begun(config.method, method) if run.task == "calibrate" else config.method
    return run, backbone, _typed(settings, config.model, "model"), _typed(method, own_method, "method")


def _begun(node: DictConfig, method: type[Method]) -> DictConfig:
    """`node` with a start value for every knob without a value, because a search sets the knobs itself."""
    for knob in method.knobs:
        given = {key: value for key, value in knob.at(knob.begin).items() if OmegaConf.is_missing(node, key)}
        node = OmegaConf.merge(node, given)  # type: ignore[assignment]
    return node


def _typed(kind: type, node: DictConfig, where: str) -> Any:
    """An instance of the dataclass `kind` with the values of `node`; names and types are checked."""
    prefix = f"{where}." if where else ""
    given = [str(key) for key in node if key != "_target_"]
    known = [f.name for f in fields(kind)]
    for key in given:
        if key not in known:
            raise ConfigError(f"{prefix}{key} is not a setting of {kind.__name__}{nearest(key, known)}")
    try:
        missing = [key for key in given if OmegaConf.is_missing(node, key)]
        if missing:
            raise ConfigError(
                f"{prefix}{missing[0]} has no value, and no operating point sets it here; set it, e.g. "
                f"{prefix}{missing[0]}=0.1, or choose speed=slow or speed=fast"
            )
        plain = OmegaConf.to_container(node, resolve=True)
        assert isinstance(plain, dict)
        plain.pop("_target_", None)
        return _made(kind, plain)
    except MissingMandatoryValue as error:
        raise ConfigError(f"{prefix}{error.full_key or error.key} has no value; set it on the command line") from None
    except OmegaConfBaseException as error:
        name = f"{prefix}{error.full_key or error.key}"
        raise ConfigError(f"{name}: {str(error).splitlines()[0]}{_remedy(str(error), name)}") from None
    except (ValueError, TypeError) as error:
        raise error if isinstance(error, ConfigError) else ConfigError(f"{where or 'run'}: {error}") from None


def _made(kind: type, plain: dict[Any, Any]) -> Any:
    """An instance of the dataclass `kind`. Those without state of their own are copied for the next cell of a sweep."""
    key = kind, repr(plain)
    if key in _earlier:
        return deepcopy(_earlier[key])
    found = OmegaConf.to_object(OmegaConf.merge(_schema(kind), literal(plain)))
    if not issubclass(kind, Method):
        _earlier[key] = deepcopy(found)
    return found


@lru_cache(maxsize=256)
def _schema(kind: type) -> DictConfig:
    """The fields of a dataclass as OmegaConf checks them; a merge copies it."""
    found = OmegaConf.structured(kind)
    assert isinstance(found, DictConfig)
    return found


def _remedy(message: str, name: str) -> str:
    """How to write a value that OmegaConf rejected."""
    if "nterpolation" in message or "no viable alternative" in message:
        return "; in a text, write ${ as \\${"
    return f"; want a list: '{name}=[...]'" if "ListConfig" in message else ""


def explain(message: str) -> str:
    """Hydra's error message about a command line, shortened, with the most similar valid name."""
    text = " ".join(message.split())
    choice = re.search(r"Could not find '([\w/]+)/([^/']+)'", text)
    if choice:
        group, wrong = choice.groups()
        own = "; for your own write prompts.file=FILE or prompts.list=[...]" if group == "prompts" else ""
        return f"{group}={wrong} is not on the menu{nearest(wrong, options(group))}{own}"
    key = re.search(r"Could not override '([\w.]+)'", text) or re.search(r"full_key: ([\w.]+)", text)
    if key:
        wrong = key.group(1)
        if owners := _owners(wrong):
            return f"{wrong} is a setting of {owners} only; use it in a command without other {wrong.split('.')[0]}s"
        near = OTHER_NAMES.get(wrong) or meant(wrong, [*CHOSEN, *_keys()])
        return f"{wrong} is not a setting{f'; did you mean {near}?' if near else ' (see python run.py --help)'}"
    return text + _remedy(text, "")


def options(group: str) -> list[str]:
    """The names in one group of the menu, e.g. `options("method")`, sorted."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def _keys() -> list[str]:
    """The names of all settings that the command line can change."""
    known = [f.name for f in fields(Run)] + [f"prompts.{f.name}" for f in fields(Prompts)]
    for group in GROUPS:
        known += [f"{group}.{key}" for name in options(group) for key in in_full(group, name)]
    return known


def _owners(name: str) -> str:
    """The files of the menu that have the setting `name`, e.g. "method=budget, method=ramp"; "" if none has it."""
    group, _, key = name.partition(".")
    found = [one for one in options(group) if key in in_full(group, one)] if group in GROUPS else []
    return ", ".join(f"{group}={one}" for one in found)
