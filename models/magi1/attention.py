"""Parallel self- and cross-attention of a MAGI-1 layer.

Tokens are chunk-first: (chunks, tokens per chunk, channels). The queries of a chunk attend to a contiguous range of
chunks, without a mask inside the range. So attention is bidirectional within a chunk and causal across chunks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from engine.to_device import picked

from .cache import KVCache, Range
from .config import ModelConfig
from .embed import OnePlusLayerNorm, rotate

_INTERLEAVE = 8  # groups in which the two attention outputs alternate before their common projection


@dataclass(frozen=True)
class Call:
    """The inputs of one transformer call besides its tokens. Lists and first dimensions have one entry per chunk.

    `visible` counts chunks of the video if there is a cache, else chunks of this call. A chunk whose `slot` is None
    attends to itself only and is not written to the cache.
    """

    condition: Tensor  # (n, condition size)
    text: Callable[[], Sequence[Tensor]]  # n × (L, hidden); computed at the first call, like `rotary`
    rotary: Callable[[], tuple[Tensor, Tensor]]  # cosines and sines, (n, tokens, angles) each
    slots: Sequence[int | None]
    visible: Sequence[Range]
    cache: KVCache | None = None

    def take(self, chunks: Sequence[int]) -> Call:
        """The same call for the chunks at the positions `chunks`. Keys of the other chunks come from the cache.

        Raises ValueError without a cache, unless every chunk attends only to itself.
        """
        if self.cache is None and any(slot is not None for slot in self.slots):
            raise ValueError("a call without a cache cannot leave out chunks: their keys are missing; give a cache")
        return replace(
            self,
            condition=picked(self.condition, chunks),
            text=lambda: [self.text()[j] for j in chunks],
            rotary=cache(lambda: (picked(self.rotary()[0], chunks), picked(self.rotary()[1], chunks))),
            slots=[self.slots[j] for j in chunks],
            visible=[self.visible[j] for j in chunks],
        )


class Projections(nn.Module):
    """The norm and the four bias-free projections of one token stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden, heads = config.hidden_size, config.attention_width
        groups = config.num_query_groups * config.kv_channels
        self.layer_norm = nn.LayerNorm(hidden, eps=config.layernorm_epsilon)
        self.q = nn.Linear(hidden, heads, bias=False)
        self.qx = nn.Linear(hidden, heads, bias=False)
        self.k = nn.Linear(hidden, groups, bias=False)
        self.v = nn.Linear(hidden, groups, bias=False)


class ParallelAttention(nn.Module):
    """Self- and cross-attention on the same normalised tokens, merged by one projection.

    `proj_precision` is the precision of that projection: "fp32" as in the released model; "tf32" for float32 numbers of
    which a GPU multiplies 10 bits of the fraction; "bf16" for that of the hidden state. The last two are several times
    faster on a GPU but give other numbers. `reference` is slow and for checks only: it attends in float32 with a plain
    softmax and multiplies in the released order, so that the rounding is the same.
    """

    def __init__(self, config: ModelConfig, index: int, proj_precision: str = "fp32", reference: bool = False) -> None:
        super().__init__()
        size, eps = config.kv_channels, config.layernorm_epsilon
        self.index, self.head_dim, self.groups = index, size, config.num_query_groups
        self.proj_precision = proj_precision
        self.reference = reference
        self.linear_qkv = Projections(config)
        self.linear_kv_xattn = nn.Linear(config.hidden_size, 2 * config.num_query_groups * size, bias=False)
        self.linear_proj = nn.Linear(2 * config.attention_width, config.hidden_size, bias=False)
        self.q_layernorm = OnePlusLayerNorm(size, eps=eps)
        self.k_layernorm = OnePlusLayerNorm(size, eps=eps)
        self.q_layernorm_xattn = OnePlusLayerNorm(size, eps=eps)
        self.k_layernorm_xattn = OnePlusLayerNorm(size, eps=eps)

    def forward(self, hidden: Tensor, call: Call) -> tuple[Tensor, Tensor]:
        """(n, tokens, hidden) -> the outputs of self- and of cross-attention, each (n, tokens, heads·head_dim)."""
        normed = self.linear_qkv.layer_norm(hidden)
        return self.attend_video(normed, call), self.attend_text(normed, call)

    def attend_video(self, normed: Tensor, call: Call) -> Tensor:
        """Self-attention of each chunk over its visible range. Writes to the cache before reading from it."""
        project = self.linear_qkv
        queries = rotate(self.q_layernorm(self._heads(project.q(normed))), *call.rotary()).to(normed.dtype)
        keys = rotate(self.k_layernorm(self._heads(project.k(normed))), *call.rotary()).to(normed.dtype)
        values = self._heads(project.v(normed))
        if call.cache is not None and (writers := [j for j, slot in enumerate(call.slots) if slot is not None]):
            call.cache.notice(self.index, queries[writers[-1]])
        seen = self._visible(keys, values, call)
        return self._attend(queries, seen, batch=call.cache is None)

    def _visible(self, keys: Tensor, values: Tensor, call: Call) -> list[tuple[Tensor, Tensor]]:
        alone = [(k, v) for k, v in zip(keys, values, strict=True)]
        if call.cache is None:
            rows, tokens = (keys.flatten(0, 1), values.flatten(0, 1)), keys.shape[1]
            spans = [slice(start * tokens, stop * tokens) for start, stop in call.visible]
            around = [(rows[0][span], rows[1][span]) for span in spans]
        else:
            for slot, (k, v) in zip(call.slots, alone, strict=True):
                if slot is not None:
                    call.cache.write(self.index, slot, k, v)
            around = [call.cache.read(self.index, visible) for visible in call.visible]
        return [own if slot is None else all_ for slot, own, all_ in zip(call.slots, alone, around, strict=True)]

    def attend_text(self, normed: Tensor, call: Call) -> Tensor:
        """Cross-attention of each chunk to its own caption, without position embedding."""
        queries = self.q_layernorm_xattn(self._heads(self.linear_qkv.qx(normed)))
        text = call.text()
        packed = torch.cat(list(text))
        slices = self.linear_kv_xattn.weight.chunk(_INTERLEAVE if self.reference else 1)
        pairs = torch.cat([F.linear(packed, weight) for weight in slices], -1)
        keys, values = pairs.unflatten(-1, (self.groups, 2 * self.head_dim)).chunk(2, dim=-1)
        lengths = [len(tokens) for tokens in text]
        seen = list(zip(self.k_layernorm_xattn(keys).split(lengths), values.split(lengths), strict=True))
        return self._attend(queries, seen, batch=True)

    def merge(self, video: Tensor, text: Tensor) -> Tensor:
        """The common projection of both outputs, (n, tokens, hidden). Their channels alternate in eight groups."""
        pair = torch.stack([out.unflatten(-1, (_INTERLEAVE, -1)) for out in (video, text)], dim=-2).flatten(-3)
        if self.proj_precision == "bf16":
            return self.linear_proj(pair)
        with tf32() if self.proj_precision == "tf32" else nullcontext():
            return F.linear(pair.float(), self.linear_proj.weight.float())

    def _attend(self, queries: Tensor, seen: Sequence[tuple[Tensor, Tensor]], batch: bool) -> Tensor:
        if not self.reference:
            return attend(queries, seen, batch)
        with sdpa_kernel(SDPBackend.MATH):
            return attend(queries.float(), [(k.float(), v.float()) for k, v in seen], batch).to(queries.dtype)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.head_dim))


@contextmanager
def tf32() -> Iterator[None]:
    """While this is open, a GPU may multiply float32 matrices in TF32."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def attend(queries: Tensor, seen: Sequence[tuple[Tensor, Tensor]], batch: bool) -> Tensor:
    """Attention of every chunk's `queries` (n, tokens, heads, d) over its own keys and values (L, groups, d).

    Returns (n, tokens, heads·d). With `batch`, chunks with the same number of keys share one call.
    """
    together: dict[int, list[int]] = defaultdict(list)
    for j, (keys, _) in enumerate(seen):
        together[len(keys) if batch else -j].append(j)
    out: dict[int, Tensor] = {}
    for members in together.values():
        q = picked(queries, members)
        if len(members) > 1:
            k, v = (torch.stack([seen[j][i] for j in members]) for i in (0, 1))
        else:
            k, v = (tensor[None] for tensor in seen[members[0]])
        mixed = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), enable_gqa=True
        ).transpose(1, 2)
        out.update(zip(members, mixed.flatten(2), strict=True))
    return torch.stack([out[j] for j in range(len(seen))])
