"""What the shapes of all transformers built on Wan have in common."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

from models.wan.places import config_of, locate
from models.wan.settings import WanSettings


class WanShape:
    """Base of a dataclass whose fields are the arguments of a transformer's class."""

    patch_size: tuple[int, ...]
    num_attention_heads: int
    attention_head_dim: int

    @classmethod
    def entries(cls, settings: WanSettings) -> dict[str, Any]:
        """The fields that a run's settings give, or else the checkpoint's config.json. Raises WeightsError."""
        if settings.architecture:
            return dict(settings.architecture)
        known = {field.name for field in fields(cls)}  # type: ignore[arg-type]
        read = config_of(locate(settings) / "transformer", settings)
        return {key: value for key, value in read.items() if key in known}

    @property
    def width(self) -> int:
        """Channels of a token."""
        return self.num_attention_heads * self.attention_head_dim

    @property
    def patch(self) -> int:
        """Latent pixels of a token."""
        return math.prod(self.patch_size)


def linear(inputs: int, outputs: int) -> int:
    """Parameters of a linear layer with a bias."""
    return inputs * outputs + outputs
