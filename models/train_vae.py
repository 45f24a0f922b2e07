"""Train the tiny video VAE, and encode rendered videos with it."""

from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanResample
from rich.progress import track
from torch import Tensor, nn

from models.shapes import render_batch, sample
from models.train_loop import fit, save_atomic


def new_vae(base_dim: int) -> AutoencoderKLWan:
    """A Wan VAE of small width with 16 channels, 4x in time and 8x in space, with initial weights for images.

    The weights for earlier frames are zero at first, and the layers that change the frame rate copy frames. So a VAE
    that is trained on single frames also works on videos.
    """
    vae = AutoencoderKLWan(
        base_dim=base_dim,
        z_dim=16,
        dim_mult=[1, 2, 4, 4],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        is_residual=True,
    )
    for module in vae.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            nn.init.xavier_normal_(module.weight)
            module.get_parameter("bias").data.zero_()
        if isinstance(module, nn.Conv3d) and module.kernel_size[0] == 3:
            nn.init.zeros_(module.weight[:, :, :2])
        if isinstance(module, WanResample) and hasattr(module, "time_conv"):
            weight = module.time_conv.weight  # (dim or 2 dim, dim, 3, 1, 1)
            nn.init.zeros_(weight)
            copies = torch.eye(weight.shape[1]).repeat(weight.shape[0] // weight.shape[1], 1)
            weight.data[:, :, 2, 0, 0] = copies
    nn.init.zeros_(vae.quant_conv.weight[16:])
    vae.quant_conv.state_dict()["bias"][16:] = -6.0  # little noise at the start, else the decoder learns to ignore z
    return vae


def encode(vae: AutoencoderKLWan, video: Tensor) -> Tensor:
    """Posterior parameters (B, 32, 1+k, H/8, W/8) of videos (B, 3, 1+4k, H, W) in [-1, 1].

    Equal to `vae.encode`, which encodes four frames at a time. Here all frames after the first are encoded in one call,
    which is a third faster on a CPU.
    """
    vae.clear_cache()
    parts = [vae.encoder(video[:, :, :1], feat_cache=vae._enc_feat_map, feat_idx=[0])]
    if video.shape[2] > 1:
        parts.append(vae.encoder(video[:, :, 1:], feat_cache=vae._enc_feat_map, feat_idx=[0]))
    return vae.quant_conv(torch.cat(parts, 2))


def decode(vae: AutoencoderKLWan, latents: Tensor) -> Tensor:
    """Videos (B, 3, 1+4k, H, W) of latents (B, 16, 1+k, h, w): `vae.decode` without the clamp, in two calls."""
    vae.clear_cache()
    z = vae.post_quant_conv(latents)
    parts = [vae.decoder(z[:, :, :1], feat_cache=vae._feat_map, feat_idx=[0], first_chunk=True)]
    if z.shape[2] > 1:
        parts.append(vae.decoder(z[:, :, 1:], feat_cache=vae._feat_map, feat_idx=[0]))
    return torch.cat(parts, 2)


def to_input(video: Tensor) -> Tensor:
    """Rendered videos (B, T, H, W, 3) in [0, 1] as input of the VAE: (B, 3, T, H, W) in [-1, 1]."""
    return video.permute(0, 4, 1, 2, 3).contiguous() * 2 - 1


def autoencoder_loss(
    vae: AutoencoderKLWan, video: Tensor, mask: Tensor, generator: torch.Generator, kl: float, jitter: float
) -> Tensor:
    """Squared error plus 0.2 absolute error, with five times the weight on the shape, plus `kl` times KL divergence.

    `video` is (B, T, H, W, 3) in [0, 1], `mask` (B, T, H, W) in [0, 1]. `jitter` is the relative noise added to the
    latents before decoding. It makes small errors of generated latents less visible.
    """
    target = to_input(video)
    mean, logvar = encode(vae, target).chunk(2, 1)
    logvar = logvar.clamp(-12, 4)
    noise = torch.randn(2, *mean.shape, generator=generator)
    z = mean + (0.5 * logvar).exp() * noise[0] + jitter * mean.detach().std() * noise[1]
    weight = 1 + 4 * mask[:, None]
    error = decode(vae, z) - target
    divergence = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    return ((error.square() + 0.2 * error.abs()) * weight).mean() / weight.mean() + kl * divergence


def train_vae(
    *,
    base_dim: int,
    image_steps: int,
    image_batch: int,
    video_steps: int,
    video_batch: int,
    frames: int,
    kl: float,
    jitter: float,
    seed: int,
    size: int,
    **training: Any,
) -> AutoencoderKLWan:
    """Train a VAE on new single frames first, then on new videos of `frames` frames. See `autoencoder_loss`.

    `training` are lr, checkpoint_every and work, see `train_loop.fit`.
    """
    torch.manual_seed(seed)
    vae = new_vae(base_dim)

    def loss_of(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        images = step < image_steps
        seeds = torch.randint(2**31, (image_batch if images else video_batch,), generator=generator).tolist()
        video, mask = render_batch([sample(s) for s in seeds], 1 if images else frames, size)
        return autoencoder_loss(vae, video, mask, generator, kl, jitter)

    steps = image_steps + video_steps
    fit("vae", {"vae": vae}, loss_of, steps=steps, warmup=20, decay=0.99, weight_decay=0.0, **training)
    return vae


def refine_decoder(
    vae: AutoencoderKLWan,
    *,
    batch: int,
    frames: int,
    jitter: float,
    seed: int,
    size: int,
    **training: Any,
) -> None:
    """Train only the decoder, in place, for sharp outlines. The encoder and the latents do not change.

    The squared and absolute error have nine times the weight on the shape and in three pixels around it, where a circle
    differs from a square. `jitter` is the relative noise on the latents, as in `autoencoder_loss`.
    `training` are steps, lr, checkpoint_every and work, see `train_loop.fit`.
    """

    def loss_of(step: int) -> Tensor:
        generator = torch.Generator().manual_seed((seed + 1) * 1_000_003 + step)
        seeds = torch.randint(2**31, (batch,), generator=generator).tolist()
        video, mask = render_batch([sample(s) for s in seeds], frames, size)
        target = to_input(video)
        with torch.no_grad():
            z = encode(vae, target)[:, :16]
            z = z + jitter * z.std() * torch.randn(z.shape, generator=generator)
        near = torch.nn.functional.max_pool2d(mask, 7, stride=1, padding=3)  # over H and W, per frame
        weight = 1 + 8 * near[:, None]
        error = decode(vae, z) - target
        return ((error.square() + 0.2 * error.abs()) * weight).mean() / weight.mean()

    modules: dict[str, nn.Module] = {"decoder": vae.decoder, "post_quant_conv": vae.post_quant_conv}
    fit("decoder", modules, loss_of, warmup=20, decay=0.99, weight_decay=0.0, **training)


@torch.no_grad()
def measure_latents(vae: AutoencoderKLWan, videos: int, frames: int, size: int, seed: int) -> None:
    """Measure mean and standard deviation of each latent channel and store them in the VAE's config."""
    sums, squares, count = torch.zeros(16, dtype=torch.float64), torch.zeros(16, dtype=torch.float64), 0
    for first in range(0, videos, 8):
        specs = [sample(seed + i) for i in range(first, min(first + 8, videos))]
        mean = encode(vae, to_input(render_batch(specs, frames, size)[0]))[:, :16].double()
        sums += mean.sum((0, 2, 3, 4))
        squares += mean.square().sum((0, 2, 3, 4))
        count += mean.numel() // 16
    average = sums / count
    deviation = (squares / count - average.square()).clamp_min(1e-6).sqrt()
    vae.register_to_config(latents_mean=average.tolist(), latents_std=deviation.tolist())


def normalise(vae: AutoencoderKLWan, latents: Tensor) -> Tensor:
    """Latents with zero mean and unit variance in each channel, as the transformer uses them."""
    mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1)
    return (latents - mean) / torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1)


@torch.no_grad()
def encode_some(folder: Path, seeds: range, frames: int, size: int) -> Tensor:
    """Normalised latents, float16 (N, 16, 1+k, h, w), of the videos of `seeds`."""
    vae = AutoencoderKLWan.from_pretrained(folder)
    parts = []
    for seed in seeds:  # one by one: larger batches do not fit into a CPU's cache
        video, _ = render_batch([sample(seed)], frames, size)
        parts.append(normalise(vae, encode(vae, to_input(video))[:, :16]).half())
    return torch.cat(parts)


def make_latents(folder: Path, videos: int, frames: int, size: int, workers: int, path: Path) -> Tensor:
    """Latents of the training videos 0..videos-1 by the VAE in `folder`, stored in `path` and read if it exists."""
    if path.exists():
        return torch.load(path, weights_only=True)["latents"]
    pieces = [range(first, min(first + 20, videos)) for first in range(0, videos, 20)]
    if workers == 1:
        latents = torch.cat([encode_some(folder, piece, frames, size) for piece in track(pieces, "latents")])
    else:
        start = partial(torch.set_num_threads, 1)
        with ProcessPoolExecutor(workers, get_context("spawn"), start) as pool:
            jobs = [pool.submit(encode_some, folder, piece, frames, size) for piece in pieces]
            latents = torch.cat([job.result() for job in track(jobs, "latents")])
    save_atomic({"latents": latents}, path)
    return latents
