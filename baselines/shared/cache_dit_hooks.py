"""cache-dit for `baselines.library`. It is an extra: `pip install -e .[external]`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import fields
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from baselines.library import Run, tensors_in
from engine.row import Mode

if TYPE_CHECKING:
    from torch import Tensor, nn

TECHNIQUES = {"dbcache": Mode.CACHE}
OURS = {"num_inference_steps", "enable_separate_cfg", "cache_type"}  # options that the run sets


def check(technique: str, options: Mapping[str, Any], branches: int) -> None:
    """Raise ValueError if cache-dit is not installed, or for an option that it does not have."""
    if find_spec("cache_dit") is None:
        raise ValueError("cache-dit is not installed; it is an extra: pip install -e .[external]")
    known = {f.name for f in fields(_library().DBCacheConfig)} - OURS
    wrong = sorted(set(options) - known)
    if wrong:
        raise ValueError(f"options.{wrong[0]} is no option of cache-dit's DBCache; it has {', '.join(sorted(known))}")


def enable(transformer: nn.Module, technique: str, options: Mapping[str, Any], run: Run) -> None:
    """Replace the blocks by cache-dit's. It recognises the guidance branch by the parity of its calls."""
    cache_dit = _library()
    adapter = cache_dit.BlockAdapter(
        transformer=transformer,
        blocks=transformer.blocks,
        forward_pattern=cache_dit.ForwardPattern.Pattern_3,  # hidden states in and out, text as it is
        has_separate_cfg=run.branches > 1,
    )
    config = cache_dit.DBCacheConfig(**options, num_inference_steps=run.steps, enable_separate_cfg=run.branches > 1)
    cache_dit.enable_cache(adapter, cache_config=config)


def disable(transformer: nn.Module) -> None:
    """Restore the model's own blocks."""
    _library().disable_cache(transformer)


def tensors(transformer: nn.Module) -> Iterable[Tensor]:
    """The tensors that cache-dit's contexts hold."""
    return tensors_in([getattr(transformer, "_context_manager", None)], "cache_dit")


def _library() -> Any:
    os.environ.setdefault("CACHE_DIT_LOG_LEVEL", "ERROR")  # its log would go to stdout, where a dry run prints its plan
    return import_module("cache_dit")
