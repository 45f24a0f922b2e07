"""A small head that estimates how far a clean estimate is from where all steps end: features -> two layers -> error.

`baselines.dsa_proxy` fits one offline on a frozen model. `models.train_far_dsa` trains one together with its generator,
and `baselines.dsa` decides by it. The features differ, the file and the arithmetic are the same.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from safetensors import safe_open

if TYPE_CHECKING:
    from torch import Tensor

LOWEST = 1e-6  # smaller errors count as this
NAMES = ("mean", "scale", "in_weight", "in_bias", "out_weight", "out_bias")


@dataclass
class Head:
    """The weights of the head. `mean` and `scale` (F,) standardise the F features.

    The shapes of the other four are (hidden, F), (hidden,), (1, hidden) and (1,).
    """

    mean: Tensor
    scale: Tensor
    in_weight: Tensor
    in_bias: Tensor
    out_weight: Tensor
    out_bias: Tensor

    def log10(self, found: Tensor) -> Tensor:
        """Features (..., F) -> log10 of the expected relative error of the clean estimate (...)."""
        linear = torch.nn.functional.linear
        hidden = torch.nn.functional.silu(linear((found - self.mean) / self.scale, self.in_weight, self.in_bias))
        return linear(hidden, self.out_weight, self.out_bias)[..., 0]

    def to(self, device: torch.device) -> Self:
        """The same head on `device`."""
        return type(self)(*(getattr(self, name).to(device) for name in NAMES))


def pooled(hidden: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """The features (..., 2 W + 2) of frames whose last hidden states are `hidden` (..., tokens, W), float32.

    They are the mean and the standard deviation over the tokens of the normalised states, and the noise levels (...)
    before the pass and after it.
    """
    normal = torch.nn.functional.layer_norm(hidden.float(), hidden.shape[-1:])
    levels = torch.stack([before, after], -1).float()
    return torch.cat([normal.mean(-2), normal.std(-2), levels], -1)


def read_weights(path: Path, maker: str) -> dict[str, Tensor]:
    """The tensors of a head's file, float32. Raises ValueError that names the command `maker` if it is not a head."""
    if not path.is_file():
        raise ValueError(f"head={path} does not exist; want a file of {maker}")
    try:
        with safe_open(path, "pt") as file:  # type: ignore[no-untyped-call]
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    except Exception as error:
        raise ValueError(f"head={path} is not a safetensors file ({error}); want one of {maker}") from error
    if set(tensors) != set(NAMES):
        raise ValueError(f"head={path} holds {', '.join(sorted(tensors))}; want {', '.join(NAMES)}")
    return tensors


def read_about(path: Path) -> dict[str, Any]:
    """What the file of a head says about itself: the model it was made for, and more."""
    with safe_open(path, "pt") as file:  # type: ignore[no-untyped-call]
        return {key: json.loads(value) for key, value in (file.metadata() or {}).items()}


def save_head(head: Head, path: Path, about: dict[str, Any]) -> None:
    """Write the head to a temporary name that is then renamed; `about` is stored with it as JSON."""
    from safetensors.torch import save_file  # imports torch, which composing a run must not do

    staging = path.with_suffix(".staging")
    tensors = {name: getattr(head, name).detach().contiguous() for name in NAMES}
    save_file(tensors, staging, {key: json.dumps(value) for key, value in about.items()})
    staging.replace(path)
