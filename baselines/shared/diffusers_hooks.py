"""diffusers' cache hooks for `baselines.library`."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import torch

from baselines.library import Run, tensors_in
from engine.row import Mode

if TYPE_CHECKING:
    from torch import Tensor, nn

TECHNIQUES = {
    "first_block_cache": Mode.CACHE,
    "mag_cache": Mode.CACHE,
    "taylorseer": Mode.PREDICT,
    "pyramid_attention_broadcast": Mode.CACHE,
    "sea_cache": Mode.PREDICT,
}
STATES = ("state_manager", "state", "shared_state")  # attributes of a hook that hold its tensors
TIMESTEPS = 1000  # diffusers' timesteps run from 0 to this


def check(technique: str, options: Mapping[str, Any], branches: int) -> None:
    """Raise ValueError for options that diffusers refuses, or for guidance with attention broadcast."""
    known = {f.name for f in fields(_config(technique))} - _ours(technique, Run(1, 1)).keys()
    wrong = sorted(set(options) - known)
    if wrong:
        raise ValueError(
            f"options.{wrong[0]} is no option of diffusers' {technique}; it has {', '.join(sorted(known))}"
        )
    if technique == "pyramid_attention_broadcast" and branches > 1:
        raise ValueError(
            "diffusers' attention broadcast has one cache for both guidance branches, so each branch would reuse the "
            "other's attention; use method=pab, or turn guidance off (model.guidance=1)"
        )
    try:
        _build(technique, options, Run(1, branches))
    except (TypeError, ValueError) as error:
        raise ValueError(f"diffusers refuses these options of {technique}: {' '.join(str(error).split())}") from error


def enable(transformer: nn.Module, technique: str, options: Mapping[str, Any], run: Run) -> None:
    """Set the hooks. Raises ValueError if they find no module."""
    transformer.enable_cache(_build(technique, options, run))  # type: ignore[operator]
    if not any(hooks(transformer)):
        disable(transformer)
        raise ValueError(f"diffusers' {technique} found no module to hook in {type(transformer).__name__}; set options")


def disable(transformer: nn.Module) -> None:
    """Remove the hooks and free their tensors at once; reference cycles would keep them in memory for a while."""
    gone = list(hooks(transformer))
    transformer.disable_cache()  # type: ignore[operator]
    for hook in gone:
        for name in STATES:
            vars(hook).pop(name, None)


def tensors(transformer: nn.Module) -> Iterable[Tensor]:
    """The tensors in the states of the hooks, without scalars."""
    held = [value for hook in hooks(transformer) for name, value in vars(hook).items() if name in STATES]
    return [tensor for tensor in tensors_in(held, "diffusers") if tensor.dim()]


def hooks(transformer: nn.Module) -> Iterable[object]:
    """All hooks on all modules."""
    for module in transformer.modules():
        registry = getattr(module, "_diffusers_hook", None)
        if registry is not None:
            yield from registry.hooks.values()


def _config(technique: str) -> type:
    from diffusers import hooks as library

    name = {
        "first_block_cache": "FirstBlockCacheConfig",
        "mag_cache": "MagCacheConfig",
        "taylorseer": "TaylorSeerCacheConfig",
        "pyramid_attention_broadcast": "PyramidAttentionBroadcastConfig",
        "sea_cache": "SeaCacheConfig",
    }[technique]
    kind: type = getattr(library, name)
    return kind


def _build(technique: str, options: Mapping[str, Any], run: Run) -> object:
    given = dict(options)
    if "taylor_factors_dtype" in given:
        given["taylor_factors_dtype"] = getattr(torch, given["taylor_factors_dtype"])
    logging.getLogger("diffusers.hooks").setLevel(logging.ERROR)
    return _config(technique)(**given, **_ours(technique, run))


def _ours(technique: str, run: Run) -> dict[str, Any]:
    """The options of a technique that depend on the run."""
    if technique == "mag_cache":
        return {"num_inference_steps": run.steps}
    if technique == "pyramid_attention_broadcast":
        return {"current_timestep_callback": lambda: TIMESTEPS * run.sigma}
    if technique == "sea_cache":
        return {"raw_vision_callback": lambda module, args, kwargs: list(kwargs["hidden_states"])}
    return {}
