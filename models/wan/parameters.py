"""Parameters of a module as float32, wherever they are kept, for signals that are computed outside the forward."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor


def parameter(module: Any, name: str, like: Tensor) -> Tensor:
    """The parameter `name` of `module` as float32 on the device of `like`; the module is left as it is.

    With sequential CPU offloading a parameter is a meta tensor between forwards, and the library's hook has its values.
    """
    found: Tensor = getattr(module, name)
    if found.is_meta:
        hook = getattr(module, "_hf_hook", None)
        maps = [getattr(one, "weights_map", None) for one in getattr(hook, "hooks", [hook])]
        values = next((weights[name] for weights in maps if weights is not None), None)
        if values is None:
            raise ValueError(f"{type(module).__name__}.{name} has no values outside the forward; load the weights")
        found = values
    return found.to(like.device).float()


def linear(module: Any, x: Tensor) -> Tensor:
    """A linear layer in float32."""
    return F.linear(x, parameter(module, "weight", x), parameter(module, "bias", x))


def embedded(module: Any, x: Tensor) -> Tensor:
    """diffusers' TimestepEmbedding in float32: two linear layers with SiLU in between."""
    return linear(module.linear_2, F.silu(linear(module.linear_1, x)))


def patches(module: Any, latents: Tensor) -> Tensor:
    """The layer that cuts `latents` (slots, C, H, W) into patches, in float32: (slots, tokens per slot, width)."""
    x = latents.transpose(0, 1)[None].float()
    out = F.conv3d(x, parameter(module, "weight", x), parameter(module, "bias", x), stride=module.stride)
    return out.flatten(3)[0].permute(1, 2, 0)


def onload(module: Any) -> None:
    """Bring a module with model CPU offloading to its device now, as its forward would, before a signal is computed."""
    hook = getattr(module, "_hf_hook", None)
    for one in getattr(hook, "hooks", [hook]):
        if type(one).__name__ == "CpuOffload":
            one.pre_forward(module)
