"""A sweep has cells (model x method x operating point). A cell has one job for each video."""

from __future__ import annotations

import json
import math
import os
import sys
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from conf.schema import ConfigError, Run, departures, device_of, has_point, parse, read_prompts
from engine.fingerprint import OURS, Written, code_of
from engine.method import Method, Original
from engine.weights import WeightsError
from store import KEY_VERSION, checksum, fingerprint

if TYPE_CHECKING:
    from engine.backbone import Backbone

VIDEOS = "videos"  # the task that generates videos; other tasks are in sweep/tasks.py
COMMAND = "SCOPE_COMMAND"  # the typed command, for jobs in other processes


_backbones: WeakValueDictionary[tuple[Any, str, str], Any] = WeakValueDictionary()  # the backbones in use


@dataclass(frozen=True)
class Device:
    """What a plan knows of the device that the work will be done on."""

    type: str


@lru_cache(maxsize=256)
def plan(kind: Any, settings: str, device: str) -> Any:
    """What is known of a model without its weights, made once per setting."""
    return kind(kind.Settings(**json.loads(settings)), Device(device.partition(":")[0]))


def backbone(kind: Any, settings: str, device: str) -> Backbone:
    """The backbone for these settings. There is one object per setting, which all cells share."""
    import torch

    asked = (kind, settings, device)
    found = _backbones.get(asked)
    if found is None:
        found = _backbones[asked] = kind(kind.Settings(**json.loads(settings)), torch.device(device))
    return found


def built(model: Any) -> type | Written:
    """The class of a backbone, or of the one that a plan stands for."""
    kind = type(model)
    return Written.at(kind.BUILDS) if "BUILDS" in vars(kind) else kind


@dataclass(frozen=True)
class Order:
    """A composed cell as text, for another process."""

    config: str  # YAML, interpolations unresolved
    name: str  # name of the method on the menu
    speed: str | None  # name of the operating point, if the menu has it
    changed: dict[str, Any] = field(default_factory=dict)  # settings that differ from the menu, by dotted name
    place: int = 0  # number of the cell in its sweep, for the display

    @classmethod
    def of(cls, config: DictConfig, text: bool = True) -> Order:
        """The cell that Hydra has just composed. Call it inside a Hydra job, where Hydra knows the choices.

        `text`: write `config`; a cell that goes to no other process needs none.
        """
        choices, speed = HydraConfig.get().runtime.choices, str(config.get("speed"))
        name = str(choices["method"])
        pointed = speed if has_point(str(choices["model"]), name, speed) else None
        return cls(OmegaConf.to_yaml(config) if text else "", name, pointed, departures(config))


@dataclass
class Cell:
    """A unit of a sweep: a model, a method and its operating point."""

    order: Order
    run: Run
    model: Backbone
    base: Backbone  # the same backbone with the settings of the Original
    method: Method
    composed: dict[str, Any]

    @classmethod
    def of(cls, order: Order, planned: bool = False, composed: DictConfig | None = None) -> Cell:
        """Make all checks that need no model in memory. Raises ConfigError, WeightsError.

        `planned`: the cell only serves to tell what is to be done, so a plan of the model is enough, if there is one.
        `composed`: what the order was made of, if it is at hand.
        """
        config = OmegaConf.create(order.config) if composed is None else composed
        assert isinstance(config, DictConfig)
        run, kind, settings, method = parse(config, planned)
        device = device_of(run.device)
        try:
            wanted_settings = (settings, method.reschedule(settings))
            make = plan if "BUILDS" in vars(kind) else backbone
            base, model = (make(kind, json.dumps(asdict(s)), device) for s in wanted_settings)
            method.check(model)
            for one in (kind, type(method)):
                if one.__module__.partition(".")[0] not in (OURS[1] or ()):  # ours can be read
                    code_of(one)
        except WeightsError:
            raise
        except ValueError as error:
            raise ConfigError(str(error)) from None
        prefix = getattr(settings, "prefix", "")
        if prefix and not Path(prefix).is_file():
            raise ConfigError(f"no prefix at {prefix}; give an image or a video with model.prefix=FILE")
        if run.logger.name == "wandb":
            _check_names(run, order, settings.name)
        plain = {str(k): v for k, v in OmegaConf.to_container(config, resolve=True).items()}  # type: ignore[union-attr]
        return cls(order, run, model, base, method, plain)

    @property
    def name(self) -> str:
        return self.order.name

    @property
    def speed(self) -> str | None:
        return self.order.speed

    @property
    def label(self) -> str:
        return f"{self.model.name} {label(self.name, self.speed)}"

    @cached_property
    def yaml(self) -> str:
        """The settings as YAML, with all interpolations resolved."""
        return yaml.safe_dump(self.composed, allow_unicode=True, sort_keys=False)

    @cached_property
    def prompts(self) -> list[str]:
        return read_prompts(self.run.prompts)

    def jobs(self) -> list[Job]:
        """All videos of the cell's shard. The Original of a video comes before it."""
        found = []
        part, parts = self.run.part
        for seed in self.run.seeds:
            for number, prompt in list(enumerate(self.prompts))[part - 1 :: parts]:
                reference = Job(self.base, Original(), "original", None, prompt, number, seed)
                found.append(reference)
                if self.name != "original":
                    own_seed = self.method.reseed(seed)
                    job = Job(self.model, self.method, self.name, self.speed, prompt, number, own_seed, reference)
                    found.append(job)
        return found


@dataclass
class Job:
    """One video: its inputs, and the Original it is compared with (None for an Original)."""

    model: Backbone
    method: Method
    name: str
    speed: str | None
    prompt: str
    number: int
    seed: int
    reference: Job | None = None

    @cached_property
    def produced_by(self) -> dict[str, Any]:
        """All inputs that determine the frames, without names, paths or dates (docs/records.md)."""
        settings = {k: v for k, v in asdict(self.model.settings).items() if k not in ("name", "checkpoint")}
        if settings.get("prefix"):
            settings["prefix"] = checksum(settings["prefix"])["sha256"][:12]  # its content, wherever it lies
        model, kind = built(self.model), type(self.method)
        name = model.name if isinstance(model, Written) else model.__name__
        method = {"class": kind.__name__, "code": code_of(kind), **_parameters(self.method)}
        return {
            "model": {"class": name, "code": code_of(model), **settings},
            "weights": self.model.weights_id,
            "method": method,
            "prompt": self.prompt,
            "seed": self.seed,
            "device": self.model.device.type,
        }

    @cached_property
    def key(self) -> str:
        return fingerprint(self.produced_by)

    @property
    def label(self) -> str:
        return label(self.name, self.speed)


def label(name: str, speed: str | None) -> str:
    return name if speed is None else f"{name}-{speed}"


def _check_names(run: Run, order: Order, model: str) -> None:
    """Raise ConfigError if W&B would refuse the names of the cell's run; else a sweep would end without its log."""
    from reports.wandb_run import refused

    group = run.logger.group or Path(run.results).name
    names = [f"{model}-{label(order.name, order.speed)}-{'0' * 12}"]
    wrong = refused(
        run.logger.project, run.logger.mode, group, names, [model, order.name, *filter(None, [order.speed])]
    )
    if wrong:
        raise ConfigError(f"logger=wandb: {wrong}")


def _parameters(method: Method) -> dict[str, Any]:
    """A method's settings as JSON. JSON has no infinity, so it is written as text, which keeps the key well defined.
    The module of a class is left out if the code of the class is included."""
    plain: dict[str, Any] = _plain(asdict(method))  # type: ignore[call-overload]
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items() if not (k == "_target_" and "code" in value)}
    return str(value) if isinstance(value, float) and math.isinf(value) else value


def _point(cell: Cell) -> dict[str, Any]:
    """The source of the method's numbers; empty if the run changes settings of the operating point."""
    departs = any(name.startswith("method.") for name in cell.order.changed)
    return {} if departs else {"paper": cell.run.point.paper, "turned": list(cell.run.point.turned)}


def identity(job: Job, cell: Cell) -> dict[str, Any]:
    """The values of run.json that are known before the run."""
    from engine.environment import environment

    return {
        "prompt": job.prompt,
        "prompt_id": f"{job.number:04d}",
        "seed": job.seed,
        "reference_key": job.reference.key if job.reference else None,
        "estimated": bool(cell.run.point.estimated) and job.reference is not None,
        "point": _point(cell) if job.reference else {},
        "weights": job.model.settings.weights,
        **{name: getattr(job.model.settings, name) for name in ("fps", "frames", "height", "width")},
        "frame_borders": job.model.frame_borders,
        "site": ", ".join(map(str, job.method.sites(job.model.depth, job.model.schedule()[0]))),
        "produced_by": job.produced_by,
        "key_version": KEY_VERSION,
        "counted_by": code_of(type(job.model).price),  # the code that counts FLOPs
        "changed": {k: v for k, v in cell.order.changed.items() if job.reference or k.startswith("model.")},
        "environment": environment(job.model.device) | {"precision": job.model.settings.precision},
        "offload": cell.run.offload,  # the text encoder on the CPU rounds otherwise than on a GPU
        "command": os.environ.get(COMMAND) or " ".join(["python", "run.py", *sys.argv[1:]]),
    }
