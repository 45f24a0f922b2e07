"""A small head that estimates the distance of a clean estimate to the final one, for `baselines.dsa_proxy`.

Pooled features of one latent slot -> two layers -> log10 of mean|x0 - x0_final| / mean|x0_final|. It is fitted offline
by regression on runs of the frozen model (`python -m benchmarks.fit_dsa_head`). DSA trains its head with the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open

from engine.discrepancy import relative_l1

if TYPE_CHECKING:
    from torch import Tensor

LOWEST = 1e-6  # smaller changes count as this
NAMES = ("mean", "scale", "in_weight", "in_bias", "out_weight", "out_bias")


def features(done: Tensor, before: Tensor, clean: Tensor, velocity: Tensor) -> Tensor:
    """The features (slots, 4 + C) of one step, float32, from the share of steps done (slots,) and (slots, C, H, W).

    They are: the share done, log10 of the change of the clean estimate, the mean size of the clean estimate and of the
    velocity, and the change of the clean estimate per channel.
    """
    moved = (clean - before).float().abs().mean((2, 3))
    size = clean.float().abs().mean((1, 2, 3))
    change = relative_l1(clean, before, LOWEST).clamp(min=LOWEST).log10()
    overall = torch.stack([done, change, size, velocity.float().abs().mean((1, 2, 3))], 1)
    return torch.cat([overall, moved / (size[:, None] + LOWEST)], 1)


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

    def __call__(self, found: Tensor) -> Tensor:
        """Features (slots, F) -> the expected relative error of the clean estimate (slots,), positive."""
        if found.shape[1] != len(self.mean):
            raise ValueError(
                f"this head was fitted on {len(self.mean) - 4} latent channels, the model has {found.shape[1] - 4}; "
                "fit one for it with python -m benchmarks.fit_dsa_head"
            )
        hidden = torch.nn.functional.silu(
            torch.nn.functional.linear((found - self.mean) / self.scale, self.in_weight, self.in_bias)
        )
        return 10 ** torch.nn.functional.linear(hidden, self.out_weight, self.out_bias)[:, 0]

    def to(self, device: torch.device) -> Head:
        """The same head on `device`."""
        return Head(*(getattr(self, name).to(device) for name in NAMES))


def read_head(path: Path) -> Head:
    """The head in a file of benchmarks.fit_dsa_head. Raises ValueError if it is missing or holds something else."""
    if not path.is_file():
        raise ValueError(f"head={path} does not exist; want none, or a file of python -m benchmarks.fit_dsa_head")
    try:
        with safe_open(path, "pt") as file:  # type: ignore[no-untyped-call]
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    except Exception as error:
        raise ValueError(
            f"head={path} is not a safetensors file ({error}); want one of benchmarks.fit_dsa_head"
        ) from error
    if set(tensors) != set(NAMES):
        raise ValueError(f"head={path} holds {', '.join(sorted(tensors))}; want {', '.join(NAMES)}")
    return Head(**tensors)
