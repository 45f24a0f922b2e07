"""What all backbones built on Wan do alike: load, embed prompts, and the size of their latents."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from engine.resident import Holder
from models.wan import text
from models.wan.settings import SPATIAL


class WanBackbone(Holder):
    """Base of a backbone with a transformer and the Wan VAE."""

    MODULES, DERIVED = ("transformer", "vae"), ("_signals", "_dtype")
    DECIDED_BY = ("weights", "checkpoint", "precision", "architecture", "vae", "compile")

    settings: Any
    transformer: Any
    vae: AutoencoderKLWan

    def texts(self, prompts: Iterable[str], cache: Path | None = None) -> dict[str, Tensor]:
        """Embeddings of `prompts`, and of the negative prompt if guidance needs it; see text.embed."""
        negative = [self.settings.negative_prompt] if len(self.settings.branches) > 1 else []
        return text.embed([*prompts, *negative], self.settings, self.encodes_on or self.device, cache)

    def conditioning(self, prompt: str, texts: dict[str, Tensor]) -> dict[str, Tensor]:
        """The embedding of each guidance branch."""
        named = {"cond": prompt, "uncond": self.settings.negative_prompt}
        return {branch: texts[named[branch]] for branch in self.settings.branches}

    @property
    def _latent_shape(self) -> tuple[int, int, int]:
        s = self.settings
        return self.transformer.config.in_channels, s.height // SPATIAL, s.width // SPATIAL

    @cached_property
    def _dtype(self) -> torch.dtype:
        return self.transformer.dtype  # cached: diffusers goes through all parameters at every call
