"""Decoding with the Wan VAE, one latent at a time: the memory does not grow with the length of the video."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

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
