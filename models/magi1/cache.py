"""The cache of keys and values of earlier chunks, of the whole history or of a limited part of it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .config import ModelConfig
from .schedule import Range

Rank = Callable[[Tensor, Tensor], Tensor]
"""Keys (tokens, groups, head_dim) and late queries (n, heads, head_dim) -> importance (tokens, groups)."""


class KVCache:
    """Keys and values of the chunks of one video, one tensor (held, tokens, groups, 2·head_dim) per layer.

    Each chunk has one entry, which holds what was last written: keys and values of the clean pass for a finished chunk,
    of the last computed step for an unfinished one. `compress` reduces the finished chunks to fewer tokens, `forget`
    drops the oldest chunks. The other entries then move to the front.

    Args:
        chunks: number of chunks of the video.
        tokens: tokens per chunk.
        held: number of chunks that fit into the cache; all by default.
        queries: number of last queries of the newest chunk that each layer stores for `compress`.
    """

    def __init__(
        self,
        config: ModelConfig,
        chunks: int,
        tokens: int,
        device: torch.device | str,
        fill: float = 0.0,
        held: int | None = None,
        queries: int = 0,
    ) -> None:
        rows = chunks if held is None else held
        shape = (rows, tokens, config.num_query_groups, 2 * config.kv_channels)
        self.layers = [torch.full(shape, fill, device=device, dtype=config.dtype) for _ in range(config.num_layers)]
        self.tokens, self.kept_queries = tokens, queries
        self.queries: dict[int, Tensor] = {}
        self._starts = [k * tokens for k in range(chunks + 1)]  # the first token of every chunk

    def write(self, layer: int, slot: int, keys: Tensor, values: Tensor) -> None:
        """Store one chunk's keys and values, each (tokens, groups, head_dim)."""
        start = self._starts[slot]
        rows = self.layers[layer].flatten(0, 1)[start : start + self.tokens]
        rows[..., : keys.shape[-1]].copy_(keys)
        rows[..., keys.shape[-1] :].copy_(values)

    def read(self, layer: int, visible: Range) -> tuple[Tensor, Tensor]:
        """Keys and values of the chunks [start, stop), each (tokens, groups, head_dim), without a copy.

        After `compress`, finished chunks can only be read together.
        """
        rows = self.layers[layer].flatten(0, 1)[self._starts[visible[0]] : self._starts[visible[1]]]
        keys, values = rows.chunk(2, dim=-1)
        return keys, values

    def forget(self, oldest: int) -> None:
        """Drop all chunks before `oldest`. The others move to the front."""
        shift = self._starts[oldest]
        if not shift:
            return
        for rows in self.layers:
            flat = rows.flatten(0, 1)
            flat[: len(flat) - shift] = flat[shift:].clone()
        self._starts = [max(0, start - shift) for start in self._starts]

    def notice(self, layer: int, queries: Tensor) -> None:
        """Store the last queries of a chunk, (tokens, heads, head_dim), for `compress`."""
        if self.kept_queries:
            self.queries[layer] = queries[-self.kept_queries :].clone()

    def compress(self, finished: int, written: int, rank: Rank) -> None:
        """Drop as many tokens of the first `finished` chunks as one chunk has: in each group the lowest-ranked ones.

        Args:
            finished: number of chunks that are no longer written.
            written: number of chunks that have been written.
            rank: the importance of each key.
        """
        stop, end = self._starts[finished], self._starts[written]
        keep = stop - self.tokens
        for layer, queries in self.queries.items():
            rows = self.layers[layer].flatten(0, 1)
            old = rows[:stop]
            worth = rank(old.chunk(2, dim=-1)[0], queries)
            best = worth.topk(keep, dim=0).indices.sort(0).values  # in their order in the video
            kept = old.gather(0, best[..., None].expand(-1, -1, rows.shape[-1]))
            rows[keep : end - self.tokens] = rows[stop:end].clone()
            rows[:keep] = kept
        self._starts = [
            min(start, keep) if k < finished else start - self.tokens for k, start in enumerate(self._starts)
        ]
