"""The features of DSA-proxy's head, which estimates the distance of a clean estimate to the final one.

Pooled features of one latent slot -> two layers -> log10 of mean|x0 - x0_final| / mean|x0_final|. It is fitted offline
by regression on runs of the frozen model (`python -m benchmarks.fit_dsa_head`). DSA trains its head with the model.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from engine.confidence_head import LOWEST, Head, read_weights
from engine.discrepancy import relative_l1

if TYPE_CHECKING:
    from torch import Tensor

MAKER = "python -m benchmarks.fit_dsa_head"


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


class ProxyHead(Head):
    """The head of a model with as many latent channels as it was fitted on."""

    def __call__(self, found: Tensor) -> Tensor:
        """Features (slots, F) -> the expected relative error of the clean estimate (slots,), positive."""
        if found.shape[1] != len(self.mean):
            raise ValueError(
                f"this head was fitted on {len(self.mean) - 4} latent channels, the model has {found.shape[1] - 4}; "
                f"fit one for it with {MAKER}"
            )
        return 10 ** self.log10(found)


def read_head(path: Path) -> ProxyHead:
    """The head in a file of benchmarks.fit_dsa_head. Raises ValueError if it is missing or holds something else."""
    return ProxyHead(**read_weights(path, MAKER))
