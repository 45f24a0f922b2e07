"""Running both guidance branches as one batch, if the memory suffices.

A batch needs fewer kernel launches and larger matrix products. It saves no time if one branch alone fills the device.
The memory that it needs is computed from shapes in advance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import SkyReelsV2Transformer3DModel
from torch import Tensor

from engine.free_memory import free_bytes
from models.skyreels.forward import Opening, forward
from models.skyreels.frames import Condition
from models.skyreels.memory import activation_bytes
from models.skyreels.settings import SkyReels
from models.wan.blocks import Text
from models.wan.settings import SPATIAL

MARGIN = 0.9  # share of the free memory that a batch may take; raising it: more batches, higher risk to run out


def batches(settings: SkyReels, architecture: Mapping[str, Any], device: torch.device) -> bool:
    """Whether the guidance branches run as one batch, by `settings.batch_guidance` and the free memory.

    Raises ValueError if `settings.batch_guidance` is "always" and the memory does not suffice.
    """
    branches = len(settings.branches)
    if settings.batch_guidance == "never" or branches == 1:
        return False
    p, q = (
        side // SPATIAL // patch
        for side, patch in zip((settings.height, settings.width), architecture["patch_size"][1:], strict=True)
    )
    tokens = max(segment.length for segment in settings.segments) * p * q
    itemsize = {"fp32": 4, "bf16": 2}[settings.precision]
    need = activation_bytes(architecture, tokens, branches, itemsize, settings.text_length)
    free = free_bytes(device)
    if need <= MARGIN * free:
        return True
    if settings.batch_guidance == "auto":
        return False
    raise ValueError(
        f"model.batch_guidance=always: {branches} branches of {tokens} tokens need {need / 1e9:.2f} GB of activations, "
        f"but {free / 1e9:.2f} GB are free; use batch_guidance=auto or never, or a smaller video"
    )


def joined(texts: Sequence[Text]) -> Text:
    """The texts of several branches as one batch. Shorter texts (with folded padding) are padded and masked."""
    longest = max(text.keys[0].shape[2] for text in texts)

    def filled(x: Tensor) -> Tensor:
        return F.pad(x, (0, 0, 0, longest - x.shape[2]))

    keys, values = (
        [torch.cat([filled(x) for x in block]) for block in zip(*sides, strict=True)]
        for sides in ([text.keys for text in texts], [text.values for text in texts])
    )
    if all(text.bias is None for text in texts):
        return Text(keys, values, None)
    rows = []
    for text in texts:
        own = text.bias if text.bias is not None else keys[0].new_zeros(1, 1, 1, text.keys[0].shape[2])
        rows.append(F.pad(own, (0, longest - own.shape[-1]), value=-torch.inf))
    return Text(keys, values, torch.cat(rows))


def together(
    model: SkyReelsV2Transformer3DModel,
    latents: Tensor,
    cond: Condition,
    text: Text,
    causal_block: int,
    begun: Opening,
) -> tuple[Tensor, ...]:
    """The velocity (slots, C, H, W) of every branch of `text` (see `joined`), from their common `opening`."""
    branches = len(text.keys[0])
    cond = Condition(cond.time.repeat(branches, 1), cond.blocks.repeat(branches, 1, 1))
    frames = replace(begun.frames, cond=cond, batch=branches)
    start = Opening(begun.hidden.repeat(branches, 1, 1), frames, begun.attended)
    many = latents.repeat(branches, 1, 1, 1)
    return forward(model, many, cond, text, None, "", causal_block, None, start).chunk(branches)
