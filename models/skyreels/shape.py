"""The sizes of a SkyReels-V2 transformer, and from them its parameters. The defaults are those of diffusers' class."""

from __future__ import annotations

from dataclasses import dataclass

from models.skyreels.settings import SkyReels
from models.wan.shape import WanShape, linear


@dataclass(frozen=True)
class Shape(WanShape):
    """What the class of the transformer is built with. Raising any size makes the model larger and slower."""

    patch_size: tuple[int, ...] = (1, 2, 2)  # slots, rows and columns of latents in one token
    num_attention_heads: int = 16
    attention_head_dim: int = 128
    in_channels: int = 16
    out_channels: int = 16
    text_dim: int = 4096
    freq_dim: int = 256
    ffn_dim: int = 8192
    num_layers: int = 32
    cross_attn_norm: bool = True
    qk_norm: str | None = "rms_norm_across_heads"
    eps: float = 1e-6
    image_dim: int | None = None  # of an image that the video starts from; we offer none
    added_kv_proj_dim: int | None = None
    rope_max_seq_len: int = 1024
    pos_embed_seq_len: int | None = None
    inject_sample_info: bool = False
    num_frame_per_block: int = 1

    @classmethod
    def of(cls, settings: SkyReels) -> Shape:
        """The shape that a run's settings give, or else the checkpoint's config.json. Raises WeightsError."""
        return cls(**cls.entries(settings))

    @property
    def parameters(self) -> int:
        """Parameters of the transformer. A model that takes an image as well has more, which are not counted."""
        w, embed = self.width, linear(self.text_dim, self.width) + linear(self.width, self.width)
        time = linear(self.freq_dim, w) + linear(w, w) + linear(w, 6 * w)
        ends = linear(self.in_channels * self.patch, w) + embed + time
        ends += linear(w, (self.out_channels or self.in_channels) * self.patch) + 2 * w  # and what shifts the last norm
        rate = 2 * w + linear(w, w) + linear(w, 6 * w) if self.inject_sample_info else 0
        attention = 4 * linear(w, w) + 2 * w  # both norms of queries and keys
        block = 2 * attention + linear(w, self.ffn_dim) + linear(self.ffn_dim, w) + 6 * w
        return ends + rate + self.num_layers * (block + 2 * w * self.cross_attn_norm)
