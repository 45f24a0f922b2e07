"""What the shared parts ask of the settings of a run, and the sizes of the Wan VAE's latents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

TEMPORAL, SPATIAL = 4, 8  # of the Wan VAE; the patch is (1, 2, 2), so sides are multiples of 16


def latents_of(frames: int) -> int:
    """The number of latent frames of a video of `frames` pixel frames: one for the first frame, one per four after."""
    return (frames - 1) // TEMPORAL + 1


class WanSettings(Protocol):
    """The settings that every model built on Wan 2.1 has, and three facts about its checkpoints."""

    HUB: ClassVar[str]  # the repository with the checkpoint in diffusers' format
    TRANSFORMER: ClassVar[str]  # the name of the transformer's class in diffusers
    FIXED: ClassVar[Mapping[str, Any]]  # arguments of that class that the run sets, whatever the checkpoint says

    name: str
    weights: str  # "pretrained" or "random"
    checkpoint: str  # folder in diffusers' format, or a hub id in the local hub cache
    precision: str  # "fp32" or "bf16"
    text_length: int  # tokens
    architecture: dict[str, Any]  # of the transformer; empty: read from the checkpoint
    vae: dict[str, Any]  # of AutoencoderKLWan, for random weights
