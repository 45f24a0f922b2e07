"""The sizes of an AnyFlow-FAR transformer, and from them its parameters. The defaults are those of diffusers' class."""

from __future__ import annotations

import math
from dataclasses import dataclass

from models.far.settings import Far
from models.wan.settings import SPATIAL
from models.wan.shape import WanShape, linear


@dataclass(frozen=True)
class Shape(WanShape):
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
        return cls(**cls.entries(settings)).checked(settings)

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
    def compressed_patch(self) -> int:
        """Latent pixels of a token in compressed form."""
        return math.prod(self.compressed_patch_size)

    @property
    def parameters(self) -> int:
        """Parameters of the transformer."""
        w, embed = self.width, linear(self.text_dim, self.width) + linear(self.width, self.width)
        time = 2 * (linear(self.freq_dim, w) + linear(w, w)) + linear(w, 6 * w)
        patches = linear(self.in_channels * self.patch, w) + linear(self.in_channels * self.compressed_patch, w)
        ends = linear(w, (self.out_channels or self.in_channels) * self.patch) + 2 * w  # and what shifts the last norm
        attention = 4 * linear(w, w) + 2 * w  # both norms of queries and keys
        block = 2 * attention + linear(w, self.ffn_dim) + linear(self.ffn_dim, w) + 6 * w
        return embed + time + patches + ends + self.num_layers * (block + 2 * w * self.cross_attn_norm)
