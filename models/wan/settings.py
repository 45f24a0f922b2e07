"""What the shared parts ask of the settings of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol


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
