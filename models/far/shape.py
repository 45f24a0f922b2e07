"""The sizes of an AnyFlow-FAR transformer, and from them its parameters. The defaults are those of diffusers' class."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from models.far.settings import SPATIAL, Far
from models.wan.places import config_of, locate


@dataclass(frozen=True)
class Shape:
    """What the class of the transformer is built with. Raising any size makes the model larger and slower."""

    patch_size: tuple[int, ...] = (1, 2, 2)  # slots, rows and columns of latents in one token
    compressed_patch_size: tuple[int, ...] = (1, 4, 4)  # the same of chunks in compressed form
    full_chunk_limit: int = 3  # chunks in full, the present one included
    num_attention_heads: int = 40
    attention_head_dim: int = 128
    in_channels: int = 16
    out_channels: int = 16
    text_dim: int = 4096
    freq_dim: int = 256
    ffn_dim: int = 13824
    num_layers: int = 40
    cross_attn_norm: bool = True
    eps: float = 1e-6
    image_dim: int | None = None
    rope_max_seq_len: int = 1024
    gate_value: float = 0.25  # weight of the second time in the embedding of both
    deltatime_type: str = "r"  # the second time is "r", or "t-r"
    chunk_partition: tuple[int, ...] = (1, 3, 3, 3, 3, 3, 3, 2)

    @classmethod
    def of(cls, settings: Far) -> Shape:
        """The shape that a run's settings give, or else the checkpoint's config.json.

        Raises WeightsError, and ValueError for a shape that our loop cannot run.
        """
        entries: dict[str, Any] = dict(settings.architecture)
        if not entries:
            known = {field.name for field in fields(cls)}
            read = config_of(locate(settings) / "transformer", settings)
            entries = {key: value for key, value in read.items() if key in known}
        return cls(**entries).checked(settings)

    def checked(self, settings: Far) -> Shape:
        """The shape itself. Raises ValueError if our loop cannot run it, or not a video of these settings."""
        if self.full_chunk_limit < 2:
            raise ValueError(f"model={settings.name} has full_chunk_limit={self.full_chunk_limit}, want at least 2")
        if self.patch_size[0] != 1 or self.compressed_patch_size[0] != 1:
            raise ValueError(f"model={settings.name} joins latent frames in a patch, want patch sizes (1, ..., ...)")
        if self.image_dim is not None:
            raise ValueError(f"model={settings.name} takes an image embedding, which our loop does not offer")
        rows, columns = (side // SPATIAL for side in (settings.height, settings.width))
        if rows < self.compressed_patch_size[1] or columns < self.compressed_patch_size[2]:
            least = " x ".join(str(SPATIAL * size) for size in self.compressed_patch_size[1:])
            raise ValueError(f"model.height x model.width is below {least}, one patch of a chunk in compressed form")
        if settings.latents > self.rope_max_seq_len:
            raise ValueError(
                f"model.frames={settings.frames} has {settings.latents} latents, and the model has positions for "
                f"{self.rope_max_seq_len}; want at most {4 * (self.rope_max_seq_len - 1) + 1} frames"
            )
        return self

    @property
    def width(self) -> int:
        """Channels of a token."""
        return self.num_attention_heads * self.attention_head_dim

    @property
    def patch(self) -> int:
        """Latent pixels of a token."""
        return math.prod(self.patch_size)

    @property
    def compressed_patch(self) -> int:
        """Latent pixels of a token in compressed form."""
        return math.prod(self.compressed_patch_size)

    @property
    def parameters(self) -> int:
        """Parameters of the transformer."""
        w, embed = self.width, _linear(self.text_dim, self.width) + _linear(self.width, self.width)
        time = 2 * (_linear(self.freq_dim, w) + _linear(w, w)) + _linear(w, 6 * w)
        patches = _linear(self.in_channels * self.patch, w) + _linear(self.in_channels * self.compressed_patch, w)
        ends = _linear(w, (self.out_channels or self.in_channels) * self.patch) + 2 * w  # and what shifts the last norm
        attention = 4 * _linear(w, w) + 2 * w  # both norms of queries and keys
        block = 2 * attention + _linear(w, self.ffn_dim) + _linear(self.ffn_dim, w) + 6 * w
        return embed + time + patches + ends + self.num_layers * (block + 2 * w * self.cross_attn_norm)


def _linear(inputs: int, outputs: int) -> int:
    """Parameters of a linear layer with a bias."""
    return inputs * outputs + outputs
