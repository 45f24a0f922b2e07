"""Parts of a forward on the submodules of a Wan transformer in diffusers: text, cross-attention, feed-forward, head."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.row import Row
from engine.visit import Visit
from models.wan.branch import modulated, only, places, through


@dataclass(frozen=True)
class Text:
    """The keys and values of one prompt for every block, each [(1, heads, length, head width)].

    All padding tokens are equal, and diffusers' forward attends to each of them. One padding token with the logarithm
    of their number added to its score gives the same softmax up to rounding. The rounding grows to 1e-5 over a video.
    """

    keys: list[Tensor]
    values: list[Tensor]
    bias: Tensor | None  # (1, 1, 1, length) added to the scores


def read_text(model: Any, embedding: Tensor, depth: int | None = None, fold: bool = False) -> Text:
    """Project a text embedding (1, length, text width) to the keys and values of all (or the first `depth`) blocks.

    With `fold`, the zero padding at its end becomes one token with the weight of all padding tokens.
    """
    words, bias = _words(embedding) if fold else 0, None
    padding = embedding.shape[1] - words
    if words and padding > 1:
        embedding = embedding[:, : words + 1]
        bias = torch.zeros(1, 1, 1, words + 1, device=embedding.device, dtype=embedding.dtype)
        bias[..., -1] = math.log(padding)
    context = model.condition_embedder.text_embedder(embedding)
    keys, values = [], []
    for block in model.blocks[:depth]:
        attn = block.attn2
        keys.append(heads(attn.norm_k(attn.to_k(context)), attn.heads))
        values.append(heads(attn.to_v(context), attn.heads))
    return Text(keys, values, bias)


def _words(embedding: Tensor) -> int:
    """The number of tokens before the zero padding; 0 if it must not be folded (bfloat16 would round the logarithm)."""
    if embedding.device.type == "meta" or embedding.dtype != torch.float32 or not bool(embedding.any()):
        return 0
    return int(embedding[0].any(-1).nonzero().max()) + 1


def finish_block(
    block: Any, number: int, h: Tensor, table: Tensor, text: Text, visit: Visit | None, branch: str, own: bool
) -> Tensor:
    """The other branches of a block: cross-attention, then feed-forward. Writes to `h` if `own` is true."""
    shift, scale, gate = table[:, 3:].unbind(1)

    def cross_attention(h: Tensor, parts: Sequence[Row]) -> Tensor:
        h = only(h, places(visit, parts))
        z = block.norm2(h.float()).type_as(h)
        attn, flat = block.attn2, z.reshape(len(text.keys[number]), -1, z.shape[-1])
        q = heads(attn.norm_q(attn.to_q(flat)), attn.heads)
        out = F.scaled_dot_product_attention(q, text.keys[number], text.values[number], attn_mask=text.bias)
        return attn.to_out[0](out.transpose(1, 2).flatten(2)).view_as(z)

    def feed_forward(h: Tensor, parts: Sequence[Row]) -> Tensor:
        pick = places(visit, parts)
        return block.ffn(modulated(block.norm3, only(h, pick), only(scale, pick), only(shift, pick)))

    h = through("cross_attention", number, h, None, cross_attention, visit, branch, own)
    return through("feed_forward", number, h, gate, feed_forward, visit, branch, own=True)


def head(model: Any, h: Tensor, time: Tensor, shape: torch.Size) -> Tensor:
    """The output (slots, C, H, W) of hidden states (slots, tokens, width), for the embedding `time` of every slot."""
    shift, scale = (model.scale_shift_table + time[:, None]).unsqueeze(2).unbind(1)
    h = model.proj_out(modulated(model.norm_out, h, scale, shift))
    slots, _, height, width = shape
    _, ph, pw = model.config.patch_size
    h = h.view(slots, height // ph, width // pw, ph, pw, -1)
    return h.permute(0, 5, 1, 3, 2, 4).reshape(slots, -1, height, width)


def heads(x: Tensor, heads: int) -> Tensor:
    """(1, tokens, width) -> (1, heads, tokens, head width)."""
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def rotate(x: Tensor, rotary: Tensor) -> Tensor:
    """Rotate the interleaved pairs of `x` (1, heads, tokens, head width) by `rotary` (tokens, head width / 2)."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * rotary).flatten(-2).type_as(x)
