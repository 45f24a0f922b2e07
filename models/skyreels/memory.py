"""The device memory that a video of the Original takes, predicted from shapes. No computation depends on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.skyreels.batch import activation_bytes
from models.skyreels.settings import SPATIAL, SkyReels

STOCK = 96  # base channels of the stock Wan autoencoder
AUTOENCODER = 0.51e9  # bytes of its weights, float32
DECODING = 20.2e3  # bytes that it needs beside them, per pixel of a frame; measured at 544x960 and 720x1280
ENCODER = 11.4e9  # bytes of the stock text encoder, bfloat16; it leaves the device before a video begins
ENCODER_WIDTH = 4096  # by which it is known


def peak_bytes(settings: SkyReels, architecture: Mapping[str, Any], parameters: int) -> float:
    """Peak bytes of a video: weights and the larger of the denoiser's activations and those of the autoencoder; or the
    text encoder's weights, if these are more. A longer video of the same window needs hardly more.
    """
    itemsize = {"fp32": 4, "bf16": 2}[settings.precision]
    p, q = (
        side // SPATIAL // patch
        for side, patch in zip((settings.height, settings.width), architecture["patch_size"][1:], strict=True)
    )
    tokens = max(segment.length for segment in settings.segments) * p * q
    branches = len(settings.branches) if settings.batch_guidance == "always" else 1
    denoising = activation_bytes(architecture, tokens, branches, itemsize, settings.text_length)
    width = settings.vae.get("base_dim", STOCK) / STOCK
    decoding = DECODING * settings.height * settings.width * width
    video = parameters * itemsize + AUTOENCODER * width**2 + max(denoising, decoding)
    encodes = settings.weights == "pretrained" and architecture["text_dim"] == ENCODER_WIDTH
    return max(video, ENCODER) if encodes else video
