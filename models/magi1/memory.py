"""The device memory that a video takes, predicted from shapes. No computation depends on it."""

from __future__ import annotations

from engine.footprint import Footprint, Sizes

from .config import ModelConfig
from .price import cache_bytes, tokens_per_chunk
from .schedule import Schedule
from .settings import Magi1

BESIDE = 1.3e9  # bytes of the published autoencoder, and of what the denoiser keeps in float32
FORWARD = 43.0  # bytes of a forward beside weights and keys, per token of the window and unit of width; measured
DECODING = 7.8e9  # bytes that the published autoencoder needs beside weights, for a tile of 256 pixels; measured
TILE = 256
ENCODER = 19.0e9  # bytes of the stock text encoder, float32; it leaves the device before a video begins
ENCODER_WIDTH = 4096  # by which it is known
ITEMSIZE = {"fp32": 4, "bf16": 2}


def sizes(settings: Magi1, config: ModelConfig) -> Sizes:
    """The numbers that one latent slot has in each kind of tensor."""
    h, w = settings.runtime.latent_size
    tokens, latent = tokens_per_chunk(config, settings.runtime) // settings.chunk, config.latent_channels * h * w
    signals = {"time_projection": 2 * config.hidden_size, "time_embedding": config.condition_size}
    signals |= {"patch_embedding": tokens * config.hidden_size, "latent": latent}
    twice = settings.distill and settings.nearly_clean < 1
    return Sizes(tokens, config.hidden_size, latent, ITEMSIZE[settings.precision], signals, twice)


def footprint(settings: Magi1, config: ModelConfig, plan: Schedule, parameters: int) -> Footprint:
    """Peak bytes of a video, keys and values of the finished chunks included."""
    tokens, itemsize = settings.window * tokens_per_chunk(config, settings.runtime), ITEMSIZE[settings.precision]
    denoising = cache_bytes(config, settings.runtime, plan) + FORWARD * itemsize / 2 * tokens * config.hidden_size
    beside, decoding = BESIDE, DECODING * (settings.tile / TILE) ** 2
    if settings.vae:  # an autoencoder of another size, of which nothing is known
        beside = decoding = 0.0
    weights = parameters * itemsize + beside
    encodes = settings.weights == "pretrained" and config.caption_channels == ENCODER_WIDTH
    return Footprint(ENCODER * encodes, weights, weights + denoising, weights + decoding, parameters * itemsize)
