"""Decoding with the Wan VAE, one latent at a time: the memory does not grow with the length of the video.

On a CPU, torch computes a convolution over one small video by unfolding it. `quicken` lets oneDNN do it, and computes
the norm over channels by a plain sum: the decoder of the small model takes 40 % of its time, and frames differ from the
stock decoder's by at most one level in about one of 100,000 values.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanRMS_norm
from torch import Tensor, nn

from engine.to_device import sent


@torch.inference_mode()
def decode(vae: AutoencoderKLWan, latents: Tensor, device: torch.device) -> Iterator[Tensor]:
    """Frames of `latents` (slots, C, H, W), as uint8 batches (T, H, W, 3) on the CPU.

    The first latent gives 1 frame, each further latent gives 4.
    """
    mean, std = (sent(values, device).view(1, -1, 1, 1) for values in (vae.config.latents_mean, vae.config.latents_std))
    z = (latents * std + mean).transpose(0, 1)[None].to(vae.dtype)
    vae.clear_cache()
    try:
        for i in range(z.shape[2]):
            vae._conv_idx = [0]
            one = vae.post_quant_conv(z[:, :, i : i + 1])
            frames = vae.decoder(one, feat_cache=vae._feat_map, feat_idx=vae._conv_idx, first_chunk=i == 0)
            frames = (frames[0].float() / 2 + 0.5).clamp(0, 1)
            yield (frames * 255).round().to(torch.uint8).permute(1, 2, 3, 0).cpu()
    finally:
        vae.clear_cache()


@torch.inference_mode()
def encode(vae: AutoencoderKLWan, frames: Tensor, device: torch.device) -> Tensor:
    """The latents (slots, C, H, W), float32, of uint8 `frames` (T, H, W, 3) with T = 4 k + 1: means, not samples."""
    mean, std = (sent(values, device).view(1, -1, 1, 1) for values in (vae.config.latents_mean, vae.config.latents_std))
    x = frames.to(device).permute(3, 0, 1, 2)[None].to(vae.dtype) / 127.5 - 1
    z: Tensor = vae.encode(x).latent_dist.mode()[0].transpose(0, 1).float()
    return (z - mean) / std


def quicken(vae: AutoencoderKLWan) -> None:
    """Set faster forwards on the convolutions and norms of a VAE that computes in float32 on a CPU. It changes nothing
    where torch was built without oneDNN."""
    if not torch.backends.mkldnn.is_available():
        return
    for module in vae.modules():
        if isinstance(module, nn.Conv3d) and module.groups == 1:
            module._conv_forward = _convolved.__get__(module)  # type: ignore[method-assign]
        elif isinstance(module, WanRMS_norm) and module.channel_first:
            module.forward = _normed.__get__(module)  # type: ignore[method-assign]


def _convolved(self: nn.Conv3d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution by oneDNN; `x` (batch, C, T, H, W) is padded already."""
    options = self.padding, self.stride, self.dilation, self.groups
    return torch.ops.aten.mkldnn_convolution(x.contiguous(), weight, bias, *options)  # type: ignore[no-any-return]


def _normed(self: WanRMS_norm, x: Tensor) -> Tensor:
    """`x` (batch, C, ...) over its norm over the channels, scaled: the same formula as the class's own."""
    norm = (x * x).sum(1, keepdim=True).sqrt().clamp_min(1e-12)
    return x * (self.scale / norm) * self.gamma + self.bias
