"""Keys and values that a chunk leaves for the younger ones, for the whole history or for a bounded part of it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .config import ModelConfig

Range = tuple[int, int]

Rank = Callable[[Tensor, Tensor], Tensor]
"""Keys (tokens, groups, head_dim) and late queries (n, heads, head_dim) -> what each is worth (tokens, groups)."""


class KVCache:
    """Keys and values of the chunks of one video, one tensor (held, tokens, groups, 2·head_dim) per layer.

    A row holds what was last written for its chunk: a finished chunk's come from its clean pass, an unfinished one's
    from its last computed step. `compress` merges the finished chunks into fewer tokens, and the others move up.

    `forget` gives up the oldest.

    Args:
        chunks: of the video.
        tokens: of a chunk.
        held: how many chunks there is room for; all by default.
        queries: how many of the last queries of the youngest chunk each layer remembers, for `compress`.
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

        Once compressed, finished chunks can only be read together.
        """
        rows = self.layers[layer].flatten(0, 1)[self._starts[visible[0]] : self._starts[visible[1]]]
        keys, values = rows.chunk(2, dim=-1)
        return keys, values

    def forget(self, oldest: int) -> None:
        """Give up all chunks before `oldest`; the others move up."""
        shift = self._starts[oldest]
        if not shift:
            return
        for rows in self.layers:
            flat = rows.flatten(0, 1)
            flat[: len(flat) - shift] = flat[shift:].clone()
        self._starts = [max(0, start - shift) for start in self._starts]

    def notice(self, layer: int, queries: Tensor) -> None:
        """Remember the last queries of a chunk, (tokens, heads, head_dim)."""
        if self.kept_queries:
            self.queries[layer] = queries[-self.kept_queries :].clone()

    def compress(self, finished: int, written: int, rank: Rank) -> None:
        """Give up one chunk's worth of the first `finished` chunks' tokens: for each group, those that rank lowest.

        Args:
            finished: chunks that are not written any more.
            written: chunks that have been written.
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
