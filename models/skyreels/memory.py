"""The device memory that a video takes, predicted from shapes; only the choice to run branches as a batch uses it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from engine.footprint import Footprint, Sizes
from engine.row import Row
from models.skyreels.settings import SkyReels
from models.skyreels.shape import Shape
from models.wan.memory import AUTOENCODER, DECODING, ENCODER, ENCODER_WIDTH, ITEMSIZE, STOCK
from models.wan.settings import SPATIAL


def activation_bytes(
    architecture: Mapping[str, Any], tokens: int, branches: int, itemsize: int, text_length: int = 0
) -> int:
    """Peak bytes that a forward with `tokens` tokens per branch holds beside the weights.

    They are the rotations, the text's keys and values in every block, and the larger of two moments in a block, with w
    the width of the block and f that of its feed-forward. Both moments hold 3 w: the block's input, the input of the
    first block and, once for all branches, that before it was repeated and the first attention. To these come

        feed-forward     the stream, z, and the inner layer before and after its activation   itemsize (2 w + 2 f)
        attention        z, q, k, and a rotation's input; its pairs, float32, before and after    itemsize 4 w + 8 w
    """
    w = architecture["num_attention_heads"] * architecture["attention_head_dim"]
    f = architecture["ffn_dim"]
    block = branches * tokens * max(itemsize * (5 * w + 2 * f), (7 * itemsize + 8) * w)
    rotations = tokens * architecture["attention_head_dim"] * 4  # complex numbers of two float32, one a pair
    copies = branches if branches == 1 else 2 * branches  # a batch holds the texts joined, beside each by itself
    return block + rotations + copies * 2 * architecture["num_layers"] * text_length * w * itemsize


def stock_bytes(settings: SkyReels, shape: Shape, tokens: int) -> float:
    """Peak bytes that diffusers' own forward holds beside the weights, for one branch of `tokens` tokens.

    It repeats the modulation of every slot for all of its tokens. At every moment of a block it holds, with w the width
    and f that of the feed-forward, the modulation (6 w, and in float32 once more) and the embedding of times (w). To
    these come

        feed-forward   the block's input, the stream, attention, the norm, the inner layer twice   itemsize (4 w + 2 f)
        its start      the block's input, and the modulation in float32 before its own is added    itemsize w + 24 w

    and the rotations (cosine and sine, float32), the text's keys and values, and the mask of block-causal attention.
    """
    itemsize, w, f = ITEMSIZE[settings.precision], shape.width, shape.ffn_dim
    always = itemsize * 7 * w + 24 * w
    start = itemsize * w + (24 * w if itemsize < 4 else 0)
    block = tokens * (always + max(itemsize * (4 * w + 2 * f), start))
    texts = 2 * shape.num_layers * settings.text_length * w * itemsize
    mask = tokens**2 if settings.attention == "block_causal" else 0
    return block + tokens * shape.attention_head_dim * 2 * 4 + texts + mask


def sizes(settings: SkyReels, shape: Shape) -> Sizes:
    """The numbers that one latent slot has in each kind of tensor."""
    p, q = (
        side // SPATIAL // patch
        for side, patch in zip((settings.height, settings.width), shape.patch_size[1:], strict=True)
    )
    latent = shape.in_channels * (settings.height // SPATIAL) * (settings.width // SPATIAL)
    signals = {"time_projection": 6 * shape.width, "time_embedding": shape.width}
    signals |= {"patch_embedding": p * q * shape.width, "latent": latent}
    return Sizes(p * q, shape.width, latent, ITEMSIZE[settings.precision], signals)


def footprint(settings: SkyReels, shape: Shape, rows: Sequence[Row], partial: bool, stock: bool = False) -> Footprint:
    """Peak bytes of a video that forwards `rows`. A longer video of the same window needs hardly more.

    Keys and values are kept of the rows' context, and with `partial` (a decision per AR unit) of the whole window.
    """
    size, width = sizes(settings, shape), settings.vae.get("base_dim", STOCK) / STOCK
    weights = shape.parameters * size.itemsize + AUTOENCODER * width**2
    loading = shape.parameters * (4 if settings.weights == "random" else size.itemsize) + AUTOENCODER * width**2
    batch = len(settings.branches) if settings.batch_guidance == "always" else 1
    one = 2 * size.tokens * shape.width * size.itemsize  # keys and values of a slot in a block
    every = one * shape.num_layers * len(settings.branches)
    texts = (len(settings.branches) - batch) * shape.num_layers * 2 * settings.text_length * shape.width * size.itemsize
    denoising = 0.0  # `texts`: the text's keys and values of the branches that wait
    for seen, slots in {(len(row.context), len(row.slots)) for row in rows}:
        acting: float = activation_bytes(asdict(shape), slots * size.tokens, batch, size.itemsize, settings.text_length)
        acting = stock_bytes(settings, shape, slots * size.tokens) if stock else acting
        denoising = max(
            denoising, acting + (slots * every if partial else seen * every + bool(seen) * (seen + slots) * one)
        )
    decoding = DECODING * settings.height * settings.width * width
    encodes = settings.weights == "pretrained" and shape.text_dim == ENCODER_WIDTH
    alone = shape.parameters * size.itemsize
    return Footprint(ENCODER * encodes, loading, weights + denoising + texts, weights + decoding, alone)
