"""Loading and releasing weights: the modules of one model at a time are in memory."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch

from engine.backbone import Backbone


class Resident:
    """The backbones whose weights are on the device. They all share the same modules."""

    def __init__(self) -> None:
        self.models: list[Backbone] = []

    def ready(self, model: Backbone) -> None:
        """Load `model`, or share the loaded modules with it. Models that cannot share theirs are unloaded first.

        Raises WeightsError if the checkpoint is missing or broken.
        """
        self.models = [other for other in self.models if other.loaded]
        if model.loaded and any(model is other for other in self.models):
            return
        if not model.loaded and not any(model.adopt(other) for other in self.models):
            self.release()
            model.load()
            gc.collect()
            gc.freeze()  # `collect` need not look at the modules and libraries again: it takes 1 ms instead of 0.4 s
        self.models.append(model)

    def release(self) -> None:
        """Release all weights."""
        for model in self.models:
            model.unload()
        self.models = []
        gc.unfreeze()
        collect()


def collect() -> None:
    """Free unreachable objects, those in reference cycles included, and return cached memory to the GPU."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class Holder:
    """Base class of a backbone's modules: they are loaded, shared with a backbone of other settings, or released."""

    MODULES: ClassVar[tuple[str, ...]]  # attributes that hold the loaded modules
    DERIVED: ClassVar[tuple[str, ...]] = ()  # attributes that are computed from them
    DECIDED_BY: ClassVar[tuple[str, ...]]  # settings that the modules depend on
    settings: Any
    device: torch.device
    encodes_on: torch.device | None = None  # where the text encoder runs; None: on `device`
    offload: bool = False  # whether `alone` moves modules

    @property
    def loaded(self) -> bool:
        """See Backbone.loaded."""
        return all(name in vars(self) for name in self.MODULES)

    def adopt(self, other: Any) -> bool:
        """See Backbone.adopt."""
        alike = type(self) is type(other) and self.device == other.device and other.loaded
        if not alike or any(getattr(self.settings, f) != getattr(other.settings, f) for f in self.DECIDED_BY):
            return False
        self.unload()
        vars(self).update({name: getattr(other, name) for name in self.MODULES})
        self.ready()
        return True

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """With `offload`, all modules but `name` are on the CPU in this context, and on the device after it."""
        modules = [vars(self)[other] for other in self.MODULES if other != name] if self.offload else []
        modules = [module for module in modules if isinstance(module, torch.nn.Module)]
        for module in modules:
            module.to("cpu")
        if modules:
            collect()
        try:
            yield
        finally:
            for module in modules:
                module.to(self.device)

    def ready(self) -> None:
        """Called after the modules were loaded or taken over from another backbone."""

    def unload(self) -> None:
        """See Backbone.unload."""
        self.forget()
        drop(self, *self.MODULES, *self.DERIVED)

    def forget(self) -> None:
        """See Backbone.forget."""


def drop(holder: object, *names: str) -> None:
    """Delete the attributes `names` of an object, if they are set."""
    for name in names:
        vars(holder).pop(name, None)
