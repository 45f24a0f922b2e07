"""Train a small MAGI-1 VAE, and encode rendered videos with it, 12 frames at a time.

The official decoder computes the pixels of a patch from embed_dim / 256 channels with one convolution. So three colours
need a width of 768, and a small model must have few blocks instead. Its initial weights compute a principal component
analysis of the patches.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from safetensors.torch import save_file
from torch import Tensor

from models.magi1.vae import WEIGHTS, VaeConfig, ViTVAE
from models.shapes import render_batch, sample
from models.train_loop import fit, save_atomic

FRAMES = 12  # frames of a tile: half of a chunk; the pipeline encodes both halves independently
_INPUT_SCALE = 0.3  # scale of a patch relative to a constant that makes the encoder's norm almost linear
_CARRIER = 2.0  # size of such a constant in the decoder, a pattern of pixels that the last convolution removes
_MEASURED = 128  # number of tiles for statistics


def tile_of(seeds: list[int], size: int) -> tuple[Tensor, Tensor]:
    """12 frames of the videos of `seeds`, (B, 3, 12, size, size) in [-1, 1], and the coverage of their shapes."""
    start = FRAMES * (seeds[0] % 10)
    video, mask = render_batch([sample(seed) for seed in seeds], FRAMES, size, start)
    return video.permute(0, 4, 1, 2, 3).contiguous() * 2 - 1, mask


def patches_of(video: Tensor, config: VaeConfig) -> Tensor:
    """Videos (B, 3, T, H, W) as patches (N, pt, ph, pw, 3)."""
    pt, ph, pw = config.patch
    x = video.unflatten(4, (-1, pw)).unflatten(3, (-1, ph)).unflatten(2, (-1, pt))  # B C T pt H ph W pw
    return x.permute(0, 2, 4, 6, 3, 5, 7, 1).flatten(0, 3)


def principal(config: VaeConfig, size: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (P,), principal directions (channels, P) and deviations (channels,) of patches, P = (pt, ph, pw, colour).

    Patches that a shape covers have five times the weight.
    """
    video, mask = zip(*(tile_of([seed + i], size) for i in range(_MEASURED)), strict=True)
    patches = patches_of(torch.cat(video), config).flatten(1).double()
    shown = patches_of(torch.cat(mask)[:, None], config).flatten(1).mean(1, keepdim=True).double()
    weight = (1 + 4 * shown) / (1 + 4 * shown).sum()
    mean = (weight * patches).sum(0)
    centred = patches - mean
    values, vectors = torch.linalg.eigh(centred.T @ (weight * centred))
    keep = slice(-config.z_chans, None)
    return mean.float(), vectors[:, keep].T.float(), values[keep].sqrt().float()


@torch.no_grad()
def start_as_components(vae: ViTVAE, mean: Tensor, directions: Tensor, deviations: Tensor) -> None:
    """Set the weights so that latents are the coordinates of principal components, with unit variance.

    A large constant is added before both norms, so that they are almost linear. Raises ValueError if the width is not
    the number of values in a patch.
    """
    config = vae.config
    pt, ph, pw = config.patch
    width, values = config.embed_dim, 3 * pt * ph * pw
    if width != values:
        raise ValueError(f"embed_dim={width} differs from the {values} values of a patch; set embed_dim={values}")
    for block in [*vae.encoder.blocks, *vae.decoder.blocks]:
        block.attn.proj.weight.mul_(0.05)
        block.mlp.fc2.weight.mul_(0.1)
    colour_first = lambda rows: rows.view(-1, pt, ph, pw, 3).permute(0, 4, 1, 2, 3)  # noqa: E731
    turn = torch.linalg.qr(torch.randn(width, values))[0]
    vae.encoder.patch_embed.proj.weight.copy_(_INPUT_SCALE * colour_first(turn))
    vae.encoder.patch_embed.proj.get_parameter("bias").copy_(-_INPUT_SCALE * turn @ mean)
    read = directions @ turn.T  # (channels, width), orthonormal
    constant = torch.randn(width)
    constant = constant - constant.mean() - read.T @ (read @ constant)
    vae.encoder.pos_embed.add_(constant)
    spread = (constant.square().mean() + _INPUT_SCALE**2 * deviations.square().sum() / width).sqrt()
    vae.encoder.last_layer.weight.zero_()
    vae.encoder.last_layer.weight[: config.z_chans] = spread / _INPUT_SCALE * read / deviations[:, None]
    vae.encoder.last_layer.bias.zero_()
    vae.encoder.last_layer.bias[config.z_chans :] = -6.0  # little noise at the start
    _start_decoder(vae, mean, directions * deviations[:, None])


def _start_decoder(vae: ViTVAE, mean: Tensor, parts: Tensor) -> None:
    """Set the decoder's weights so that a token gives its patch. Alternating signs protect the mean from the norm."""
    pt, ph, pw = vae.config.patch
    t, h, w = torch.meshgrid(torch.arange(pt), torch.arange(ph), torch.arange(pw), indexing="ij")
    spread = lambda sign: (1 - 2 * (sign % 2)).float()[..., None].expand(-1, -1, -1, 3).flatten()  # noqa: E731
    signs, checkers = spread(t), spread(h + w)
    vae.decoder.proj_in.weight.copy_((signs * parts).T)
    vae.decoder.proj_in.bias.copy_(signs * mean)
    vae.decoder.pos_embed.add_(_CARRIER * signs * checkers)
    size = (_CARRIER**2 + mean.square().mean() + parts.square().sum() / len(mean)).sqrt()
    vae.decoder.norm.weight.copy_(size * signs)
    comb = torch.tensor([-0.25, 0.5, -0.25])
    kernel = -comb[:, None] * comb
    kernel[1, 1] += 1.0  # removes only the finest checker pattern
    vae.decoder.last_layer.weight.zero_()
    for colour in range(3):
        vae.decoder.last_layer.weight[colour, colour, 1] = kernel
    vae.decoder.last_layer.get_parameter("bias").zero_()


def autoencoder_loss(
    vae: ViTVAE, video: Tensor, mask: Tensor, generator: torch.Generator, kl: float, jitter: float
) -> Tensor:
    """Squared error plus 0.2 absolute error, with five times the weight on the shape, plus `kl` times KL divergence.

    `video` is (B, 3, T, H, W) in [-1, 1], `mask` (B, T, H, W). `jitter` is the relative noise added to the latents.
    """
    mean, logvar = vae.encoder(video).float().chunk(2, 1)
    logvar = logvar.clamp(-12, 4)
    noise = torch.randn(2, *mean.shape, generator=generator)
    z = mean + (0.5 * logvar).exp() * noise[0] + jitter * mean.detach().std() * noise[1]
    weight = 1 + 4 * mask[:, None]
    error = vae.decoder(z).float() - video
    divergence = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    return ((error.square() + 0.2 * error.abs()) * weight).mean() / weight.mean() + kl * divergence


def train_vae(
    *,
    architecture: dict[str, Any],
    batch: int,
    kl: float,
    jitter: float,
    bfloat16: bool,
    seed: int,
    size: int,
    **training: Any,
) -> ViTVAE:
    """Train a VAE on new tiles of 12 frames. Its latents have zero mean and unit variance in each channel.

    `training` are steps, lr, checkpoint_every and work, see `train_loop.fit`.
    """
    torch.manual_seed(seed)
    vae = ViTVAE(VaeConfig(**architecture))
    start_as_components(vae, *principal(vae.config, size, 20_000_000))

    def loss_of(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        seeds = torch.randint(2**31, (batch,), generator=generator).tolist()
        video, mask = tile_of(seeds, size)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            return autoencoder_loss(vae, video, mask, generator, kl, jitter)

    fit("vae", {"vae": vae}, loss_of, warmup=30, decay=0.99, weight_decay=0.0, **training)
    standardise(vae, size)
    return vae


def refine_decoder(
    vae: ViTVAE,
    *,
    batch: int,
    jitter: float,
    edges: float,
    bfloat16: bool,
    seed: int,
    size: int,
    **training: Any,
) -> None:
    """Train only the decoder, in place, so that errors of generated latents are less visible.

    `jitter` is the standard deviation of the noise on the latents, which have unit variance. Generated latents have an
    independent error in every patch, which is visible as blocks. The error has nine times the weight on the shape and
    in three pixels around it. `edges` is the weight of the absolute error of differences between adjacent pixels, which
    is large at the borders of patches. `training` are steps, lr, checkpoint_every and work, see `train_loop.fit`.
    """
    vae.decoder.requires_grad_(True)

    def loss_of(step: int) -> Tensor:
        generator = torch.Generator().manual_seed((seed + 1) * 1_000_003 + step)
        seeds = torch.randint(2**31, (batch,), generator=generator).tolist()
        video, mask = tile_of(seeds, size)
        near = torch.nn.functional.max_pool2d(mask, 7, stride=1, padding=3)  # over H and W, per frame
        weight = 1 + 8 * near[:, None]
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            with torch.no_grad():
                z = vae.encode(video).float()
                spread = jitter * torch.rand(batch, 1, 1, 1, 1, generator=generator)
                z = z + spread * torch.randn(z.shape, generator=generator)
            error = vae.decoder(z).float() - video
        steep = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        return ((error.square() + 0.2 * error.abs()) * weight).mean() / weight.mean() + edges * steep

    fit("decoder", {"decoder": vae.decoder}, loss_of, warmup=20, decay=0.99, weight_decay=0.0, **training)


@torch.no_grad()
def standardise(vae: ViTVAE, size: int) -> None:
    """Include mean and deviation of each latent channel in the weights, so that the scale factor is 1."""
    latents = torch.cat([vae.encode(tile_of([10_000_000 + i], size)[0]) for i in range(_MEASURED)])
    mean, deviation = latents.mean((0, 2, 3, 4)), latents.std((0, 2, 3, 4))
    last, first, n = vae.encoder.last_layer, vae.decoder.proj_in, vae.config.z_chans
    first.bias.add_(first.weight @ mean)
    first.weight.mul_(deviation)
    last.weight[:n] /= deviation[:, None]
    last.bias[:n] = (last.bias[:n] - mean) / deviation
    last.bias[n:] -= 2 * deviation.log()


@torch.no_grad()
def reconstruction(vae: ViTVAE, size: int, tiles: int = 32) -> float:
    """The mean PSNR in dB of tiles of held-out videos that are encoded and decoded."""
    found = []
    for i in range(tiles):
        video, _ = render_batch([sample(30_000_000 + i, "held_out")], FRAMES, size, FRAMES * (i % 10))
        target = video.permute(0, 4, 1, 2, 3) * 2 - 1
        error = (vae.decode(vae.encode(target)).clamp(-1, 1) - target) / 2
        found.append(-10 * error.square().mean().log10())
    return float(torch.stack(found).mean())


def save_vae(vae: ViTVAE, folder: Path) -> None:
    """Write the VAE in the official layout, with weights in float16."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = {"_class_name": "ViTVAE", "model_type": "vit", "ddconfig": asdict(vae.config)}
    (folder / "config.json").write_text(json.dumps(entries, indent=2) + "\n")
    save_file({name: tensor.half().contiguous() for name, tensor in vae.state_dict().items()}, folder / WEIGHTS)


@torch.no_grad()
def make_latents(vae: ViTVAE, videos: int, chunks: int, size: int, path: Path) -> Tensor:
    """Latents of the training videos 0..videos-1, float16 (videos, chunks, 16, 6, h, w), stored in `path`."""
    if path.exists():
        return torch.load(path, weights_only=True)["latents"]
    found = []
    for seed in track(range(videos), "latents"):
        video, _ = render_batch([sample(seed)], 2 * FRAMES * chunks, size)
        tiles = (video[0].permute(3, 0, 1, 2) * 2 - 1).unflatten(1, (2 * chunks, FRAMES)).transpose(0, 1)
        with torch.autocast("cpu", torch.bfloat16):
            halves = vae.encode(tiles)
        found.append(halves.unflatten(0, (chunks, 2)).transpose(1, 2).flatten(2, 3).half())
    latents = torch.stack(found)
    save_atomic({"latents": latents}, path)
    return latents
