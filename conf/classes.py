"""The classes that `_target_` names, and the device; torch is imported only where it cannot be avoided."""

from __future__ import annotations

import ctypes
import sys
from contextlib import nullcontext
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.utils import get_class
from omegaconf import DictConfig

from conf.errors import ConfigError
from engine.deferred import deferred

LIGHT = ("baselines", "scope")
"""Packages that are read without torch. Their modules say `import torch` or `from torch import ...`, nothing below it:
with a stand-in for torch, `import torch.nn` would load that module twice."""

DRIVERS = ("libcuda.so.1", "nvcuda.dll")  # without one of them no device of NVIDIA's can be used
ROCM = Path("/dev/kfd")  # nor one of AMD's without this


def class_of(node: DictConfig, group: str) -> type:
    """The class that `node` names. Raises ConfigError if it cannot be imported."""
    target = str(node["_target_"])
    try:
        with deferred("torch") if target.partition(".")[0] in LIGHT else nullcontext():
            return get_class(target)
    except Exception as error:
        raise ConfigError(f"{group}._target_ cannot be imported: {' '.join(str(error).split())}") from error


def settings_of(kind: type) -> type | None:
    """The dataclass of a backbone's settings, the attribute `Settings` of its class; None if `kind` is no backbone."""
    found = getattr(kind, "Settings", None)
    return found if isinstance(found, type) else None


def plan_of(node: DictConfig) -> type | None:
    """What stands for the backbone that `node` names until its weights are wanted; None if there is nothing.

    It is `PLANS["package.backbone.Name"]` of a module `plan` in the backbone's package.
    """
    target = str(node.get("_target_", ""))
    package = ".".join(target.split(".")[:-2])
    try:
        there = package and find_spec(f"{package}.plan")
        known: dict[str, type] = getattr(import_module(f"{package}.plan"), "PLANS", {}) if there else {}
    except (ImportError, ValueError):
        return None
    return known.get(target)


def device_of(name: str) -> str:
    """The device to run on, e.g. `cuda:1`. Raises ConfigError if this machine does not have it."""
    if name == "cpu" or (name == "auto" and "torch" not in sys.modules and not _may_have_gpu()):
        return "cpu"
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device: Any = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device={name} is unknown; want auto, cpu, cuda or cuda:1") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device={name}, but torch {torch.__version__} sees no GPU; use device=cpu or device=auto")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device={name}, but there are only {torch.cuda.device_count()} GPUs; the first is cuda:0")
    return str(device)


def _may_have_gpu() -> bool:
    """Whether a driver is here that torch could use; asking torch itself takes seconds."""
    if ROCM.exists():
        return True
    for driver in DRIVERS:
        try:
            ctypes.CDLL(driver)
        except OSError:
            continue
        return True
    return False
