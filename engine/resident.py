"""Which weights are in memory, and giving memory back: one model's modules at a time, nothing of the last video."""

from __future__ import annotations

import gc
from typing import Any, ClassVar

import torch

from engine.backbone import Backbone


class Resident:
    """The backbones whose weights are on the device. They all hold the same modules."""

    def __init__(self) -> None:
        self.models: list[Backbone] = []

    def ready(self, model: Backbone) -> None:
        """Load `model`, or let it use modules that are there; what does not share them gives its own back first.

        Raises WeightsError.
        """
        self.models = [other for other in self.models if other.loaded]
        if model.loaded and any(model is other for other in self.models):
            return
        if not model.loaded and not any(model.adopt(other) for other in self.models):
            self.release()
            model.load()
        self.models.append(model)

    def release(self) -> None:
        """Give all weights back."""
        for model in self.models:
            model.unload()
        self.models = []
        collect()


def collect() -> None:
    """Free what nothing refers to any more, objects in reference cycles included, and hand it back to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class Holder:
    """A backbone's modules: loaded, shared with another setting of the same weights, given back."""

    MODULES: ClassVar[tuple[str, ...]]  # attributes that hold what was loaded
    DERIVED: ClassVar[tuple[str, ...]] = ()  # and what was computed from them
    DECIDED_BY: ClassVar[tuple[str, ...]]  # the settings that the modules depend on
    settings: Any
    device: torch.device

    @property
    def loaded(self) -> bool:
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

    def ready(self) -> None:
        """Called when the modules are there, however they came."""

    def unload(self) -> None:
        self.forget()
        drop(self, *self.MODULES, *self.DERIVED)

    def forget(self) -> None:
        """See Backbone.forget."""


def drop(holder: object, *names: str) -> None:
    """Delete attributes of an object where they are set."""
    for name in names:
        vars(holder).pop(name, None)
