"""MAGI-1's video VAE: its encoder and decoder are vision transformers.

A latent has 16 channels and covers 4 frames of 8×8 pixels. State-dict keys are the official ones. The published shape
(the defaults) has 24 blocks of width 1024 in each of the two, about 614 M parameters. Latents are not scaled here; the
diffusion model uses `scale_factor` times them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.components import one_line, read_json

from .checkpoint import CheckpointError, check, read, take
from .tiling import Size, Tiling, decode_tiled, encode_tiled

WEIGHTS = "diffusion_pytorch_model.safetensors"
_IMAGE_FRAMES = 4  # an image is encoded as this many equal frames


@dataclass(frozen=True)
class VaeConfig:
    """The shape of the VAE, with the official names."""

    video_size: int = 256  # pixels of the native position grid
    video_length: int = 16
    patch_size: int = 8
    patch_length: int = 4
    in_chans: int = 3
    z_chans: int = 16
    double_z: bool = True
    embed_dim: int = 1024
    depth: int = 24
    num_heads: int = 16
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    with_cls_token: bool = True
    ln_in_attn: bool = True
    conv_last_layer: bool = True
    norm_code: bool = False
    use_rope: bool = False
    use_final_proj: bool = False

    def __post_init__(self) -> None:
        wants = {"double_z": True, "with_cls_token": True, "ln_in_attn": True, "conv_last_layer": True}
        wants |= {"norm_code": False, "use_rope": False, "use_final_proj": False}
        for name, value in wants.items():
            if getattr(self, name) != value:
                raise ValueError(f"got {name}={getattr(self, name)}, want {name}={value} as in the released MAGI-1 VAE")

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> VaeConfig:
        """Read an official config (its `ddconfig`)."""
        entries = entries.get("ddconfig", entries)
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in entries.items() if name in known})

    @property
    def grid(self) -> Size:
        """The native latent grid (frames, rows, columns) of the position table."""
        side = self.video_size // self.patch_size
        return self.video_length // self.patch_length, side, side

    @property
    def patch(self) -> Size:
        """The size of a patch (frames, rows, columns)."""
        return self.patch_length, self.patch_size, self.patch_size


class Attention(nn.Module):
    """Self-attention with normalised queries, keys and values, (N, tokens, width) -> same."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        self.heads = config.num_heads
        self.qkv = nn.Linear(config.embed_dim, 3 * config.embed_dim, bias=config.qkv_bias)
        self.proj = nn.Linear(config.embed_dim, config.embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))
        centred = qkv - qkv.mean(-1, keepdim=True)
        qkv = centred / (qkv.std(-1, keepdim=True, unbiased=False) + 1e-5)  # values are normalised too
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear layers with a GELU between, (N, tokens, width) -> same."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        inner = int(config.embed_dim * config.mlp_ratio)
        self.fc1 = nn.Linear(config.embed_dim, inner)
        self.fc2 = nn.Linear(inner, config.embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """x + attention(x), without a norm before it; then x + MLP(norm(x))."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        self.attn = Attention(config)
        self.norm2 = nn.LayerNorm(config.embed_dim)
        self.mlp = Mlp(config)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(x)
        return x + self.mlp(self.norm2(x))


class Trunk(nn.Module):
    """The common part of encoder and decoder: class token, positions, blocks and norm."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        frames, rows, columns = config.grid
        self.config = config
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + frames * rows * columns, config.embed_dim))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.embed_dim)
        nn.init.normal_(self.cls_token, std=0.02)
        nn.init.normal_(self.pos_embed, std=0.02)

    def _through(self, x: Tensor, grid: Size) -> Tensor:
        """Tokens (N, prod(grid), width) -> same."""
        x = torch.cat([self.cls_token.expand(len(x), -1, -1).to(x.dtype), x], 1) + self._positions(grid).to(x.dtype)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 1:]

    def _positions(self, grid: Size) -> Tensor:
        if tuple(grid) == self.config.grid:
            return self.pos_embed
        token, table = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        table = table.transpose(1, 2).unflatten(2, self.config.grid)
        table = F.interpolate(table, size=grid, mode="trilinear", align_corners=False)
        return torch.cat([token, table.flatten(2).transpose(1, 2)], 1)


class PatchEmbed(nn.Module):
    """The projection of patches; a module of its own for the official state-dict keys."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        self.proj = nn.Conv3d(config.in_chans, config.embed_dim, config.patch, config.patch)


class Encoder(Trunk):
    """Video (N, 3, T, H, W) in [-1, 1] -> means and log variances (N, 2·channels, T/4, H/8, W/8)."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__(config)
        self.patch_embed = PatchEmbed(config)
        self.last_layer = nn.Linear(config.embed_dim, 2 * config.z_chans)

    def forward(self, video: Tensor) -> Tensor:
        patches = self.patch_embed.proj(video)
        grid = (patches.shape[2], patches.shape[3], patches.shape[4])
        moments = self.last_layer(self._through(patches.flatten(2).transpose(1, 2), grid))
        return moments.transpose(1, 2).unflatten(2, grid)


class Decoder(Trunk):
    """Latents (N, channels, t, h, w) -> video (N, 3, 4t, 8h, 8w), about [-1, 1]."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__(config)
        pt, ph, pw = config.patch
        self.proj_in = nn.Linear(config.z_chans, config.embed_dim)
        self.last_layer = nn.Conv3d(config.embed_dim // (pt * ph * pw), 3, kernel_size=3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        n, _, t, h, w = latents.shape
        grid = (t, h, w)
        x = self._through(self.proj_in(latents.flatten(2).transpose(1, 2)), grid)
        x = x.view(n, *grid, *self.config.patch, -1)
        x = x.permute(0, 7, 1, 4, 2, 5, 3, 6)  # channels, then each grid axis with its patch axis
        return self.last_layer(x.flatten(6, 7).flatten(4, 5).flatten(2, 3))


class ViTVAE(nn.Module):
    """The VAE. It is deterministic: the latent is the mean of the posterior."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def encode(self, video: Tensor) -> Tensor:
        """Video (N, 3, T, H, W) in [-1, 1] -> latents (N, channels, T/4, H/8, W/8); one frame gives one latent."""
        if video.shape[2] == 1 and self.config.patch_length > 1:
            return self.encoder(video.expand(-1, -1, _IMAGE_FRAMES, -1, -1)).chunk(2, dim=1)[0][:, :, :1]
        return self.encoder(video).chunk(2, dim=1)[0]

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (N, channels, t, h, w) -> video (N, 3, 4t, 8h, 8w); a single latent gives a single frame."""
        video = self.decoder(latents)
        return video[:, :, :1] if latents.shape[2] == 1 else video

    def encode_tiled(self, video: Tensor, tiling: Tiling | None = None) -> Tensor:
        """`encode` in overlapping tiles, for videos larger than the native grid."""
        return encode_tiled(video, self.encode, tiling or Tiling(), self.config.patch)

    def decode_tiled(self, latents: Tensor, tiling: Tiling | None = None) -> Tensor:
        """`decode` in overlapping tiles, as the released pipeline does chunk by chunk."""
        return decode_tiled(latents, self.decode, tiling or Tiling(), self.config.patch)

    @torch.no_grad()
    def frames(self, latents: Tensor, scale_factor: float, tiling: Tiling | None = None) -> Tensor:
        """Scaled latents (C, t, h, w) of one chunk -> uint8 RGB frames (4t, 8h, 8w, 3).

        A tile with a single latent frame gives four frames. (`decode` takes a single latent for an image.)
        """
        weight = self.decoder.proj_in.weight  # for the device and dtype of the VAE
        z = (latents[None] / scale_factor).to(weight)
        video = decode_tiled(z, self.decoder, tiling or Tiling(), self.config.patch)[0].float()
        return (video * 127.5 + 127.5).clamp(0, 255).to(torch.uint8).permute(1, 2, 3, 0)

    @torch.no_grad()
    def latents(self, frames: Tensor, scale_factor: float, tiling: Tiling | None = None) -> Tensor:
        """uint8 RGB frames (T, H, W, 3) -> scaled latents (C, T/4, H/8, W/8), float32; an image gives one latent."""
        weight = self.decoder.proj_in.weight
        video = (frames.permute(3, 0, 1, 2)[None].to(weight.device) / 127.5 - 1).to(weight.dtype)
        return self.encode_tiled(video, tiling)[0].float() * scale_factor


def load_vae(folder: Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.bfloat16) -> ViTVAE:
    """The VAE of an official folder (config.json and weights), in evaluation mode. Raises the errors of `empty_vae`."""
    vae = empty_vae(Path(folder))
    take(vae, read({Path(folder) / WEIGHTS: []}), lambda _: dtype, device)
    return vae


def empty_vae(folder: Path) -> ViTVAE:
    """The VAE of `folder` on the meta device.

    Raises:
        WeightsError: a file is missing, damaged or of another model.
    """
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"no MAGI-1 VAE in {folder}: {folder / 'config.json'} is missing; run: hf download sand-ai/MAGI-1 "
            f'--include "ckpt/vae/*" --local-dir {folder}'
        )
    entries = read_json(folder / "config.json", "download it again")
    if entries.get("_class_name") != "ViTVAE":
        raise CheckpointError(f"{folder / 'config.json'} is of a {entries.get('_class_name')}, want a ViTVAE")
    try:
        with torch.device("meta"):
            vae = ViTVAE(VaeConfig.from_dict(entries)).eval()
    except Exception as error:  # a constructor raises many kinds
        raise CheckpointError(f"{folder / 'config.json'} describes no ViTVAE ({one_line(error)})") from None
    check({name: tuple(tensor.shape) for name, tensor in vae.state_dict().items()}, {folder / WEIGHTS: []})
    return vae
