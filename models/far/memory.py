"""The device memory that a video takes, predicted from shapes. No computation depends on it."""

from __future__ import annotations

from engine.footprint import Footprint, Sizes
from models.far.chunks import Chunks
from models.far.price import padding, tokens
from models.far.settings import Far
from models.far.shape import Shape
from models.wan.memory import AUTOENCODER, DECODING, ENCODER, ENCODER_WIDTH, ITEMSIZE, STOCK
from models.wan.settings import SPATIAL


def sizes(settings: Far, shape: Shape) -> Sizes:
    """The numbers that one latent slot has in each kind of tensor."""
    full, _ = tokens(settings, shape)
    latent = shape.in_channels * (settings.height // SPATIAL) * (settings.width // SPATIAL)
    signals = {"time_projection": 6 * shape.width, "time_embedding": shape.width}
    signals |= {"patch_embedding": full * shape.width, "latent": latent}
    return Sizes(full, shape.width, latent, ITEMSIZE[settings.precision], signals)


def longest(settings: Far, shape: Shape, chunks: Chunks) -> int:
    """The most tokens whose keys and values are held at once, padding included."""
    full, small = tokens(settings, shape)
    found = 0
    for chunk, length in enumerate(chunks.lengths):
        far = chunks.far(chunk)
        held = len(chunks.slots(0, far)) * small + len(chunks.slots(far, chunk + 1)) * full
        found = max(found, held + padding(length * full, settings))
    return found


def footprint(settings: Far, shape: Shape, chunks: Chunks) -> Footprint:
    """Peak bytes of a video. They grow with its length by the keys of compressed chunks alone."""
    itemsize, width = ITEMSIZE[settings.precision], settings.vae.get("base_dim", STOCK) / STOCK
    full, small = tokens(settings, shape)
    autoencoder = AUTOENCODER * width**2
    weights = shape.parameters * itemsize + autoencoder
    loading = shape.parameters * (4 if settings.weights == "random" else itemsize) + autoencoder
    branches, w, f = len(settings.branches), shape.width, shape.ffn_dim
    keys = 2 * w * itemsize * shape.num_layers * branches * longest(settings, shape, chunks)
    texts = 2 * w * itemsize * shape.num_layers * branches * settings.text_length
    most = max(chunks.lengths) * full  # tokens of a row; a clean pass computes several chunks at once
    for chunk in range(chunks.count - 1):
        far, near = (chunks.slots(part.start, part.stop) for part in chunks.renewed(chunk))
        most = max(most, len(far) * small + len(near) * full)
    acting = most * max(itemsize * (5 * w + 2 * f), (7 * itemsize + 8) * w)  # see models/skyreels/memory.py
    encodes = settings.weights == "pretrained" and shape.text_dim == ENCODER_WIDTH
    decoding = DECODING * settings.height * settings.width * width
    denoising = weights + keys + texts + acting
    return Footprint(ENCODER * encodes, loading, denoising, weights + decoding, weights - autoencoder)
