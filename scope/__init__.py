"""The method SCOPE: cache, predict or recompute along the denoising trajectory, on the active frames only."""

from __future__ import annotations

from typing import Any

__all__ = ["accelerate", "summary"]


def __getattr__(name: str) -> Any:
    """`accelerate` and `summary` bring diffusers along, which a method alone does not need."""
    if name in __all__:
        from scope import pipeline as module

        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
