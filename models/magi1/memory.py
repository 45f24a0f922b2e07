"""The device memory that a video of the Original takes, predicted from shapes. No computation depends on it."""

from __future__ import annotations

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


def peak_bytes(settings: Magi1, config: ModelConfig, plan: Schedule, parameters: int) -> float:
    """Peak bytes of a video: weights and the larger of what denoising needs, keys and values included, and decoding; or
    the text encoder's weights, if these are more."""
    tokens = settings.window * tokens_per_chunk(config, settings.runtime)
    itemsize = config.dtype.itemsize
    denoising = cache_bytes(config, settings.runtime, plan) + FORWARD * itemsize / 2 * tokens * config.hidden_size
    beside, decoding = BESIDE, DECODING * (settings.tile / TILE) ** 2
    if settings.vae:  # an autoencoder of another size, of which nothing is known
        beside = decoding = 0.0
    video = parameters * itemsize + beside + max(denoising, decoding)
    encodes = settings.weights == "pretrained" and config.caption_channels == ENCODER_WIDTH
    return max(video, ENCODER) if encodes else video
