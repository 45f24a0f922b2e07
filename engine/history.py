"""What is remembered of each latent slot: its last few values and the noise levels they belong to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from engine.forecast import Formula, weights
from engine.method import Row
from engine.transfer import sent


def steps_of(part: Row) -> dict[int, float]:
    """How far this row moves each active slot, in noise level (signed)."""
    moves = zip(part.slots, part.sigma, part.sigma_next, part.active, strict=True)
    return {slot: after - before for slot, before, after, on in moves if on}


def column(values: Sequence[float], like: Tensor) -> Tensor:
    """One float32 factor per slot, shaped to multiply a slot-first tensor."""
    return sent(values, like.device, torch.float32).view(-1, *[1] * (like.dim() - 1))


class History:
    """A ring of `depth` values per slot, in one buffer of depth x slots x value and nothing else.

    Keyed by absolute slot, so that it survives an interval that moves or grows.
    """

    def __init__(self, depth: int, dtype: torch.dtype | None = torch.float32) -> None:
        self.depth, self.dtype = depth, dtype
        self.levels: dict[int, list[float]] = {}  # oldest first
        self._head: dict[int, int] = {}
        self._buffer: Tensor | None = None
        self._first = 0

    def push(self, slots: Sequence[int], levels: Sequence[float], values: Tensor) -> None:
        """Remember `values` (len(slots), ...) at `levels`; a slot forgets its oldest beyond `depth`."""
        if not slots:
            return
        buffer = self._room(slots, values)
        heads = []
        for slot, level in zip(slots, levels, strict=True):
            self._head[slot] = (self._head.get(slot, -1) + 1) % self.depth
            heads.append(self._head[slot])
            self.levels[slot] = [*self.levels.get(slot, []), level][-self.depth :]
        buffer[self._index(heads, buffer), self._rows(slots, buffer)] = values.to(buffer.dtype)

    def count(self, slot: int) -> int:
        """How many values of `slot` are held."""
        return len(self.levels.get(slot, ()))

    def last(self, slots: Sequence[int]) -> Tensor:
        """The newest value of every slot, (len(slots), ...)."""
        return self._past(slots, 0)

    def predict(self, slots: Sequence[int], formula: Formula, at: Sequence[float], orders: Sequence[int]) -> Tensor:
        """`formula` through the newest order + 1 values of every slot, read at its own level; float32 arithmetic."""
        shares: list[list[float]] = [[] for _ in range(max(orders) + 1)]
        for slot, level, order in zip(slots, at, orders, strict=True):
            known = self.levels[slot][-(order + 1) :]
            newest_first = weights(formula, tuple(known), level)[::-1]
            for k, share in enumerate(shares):
                share.append(newest_first[k] if k < len(newest_first) else 0.0)
        total: Tensor | None = None
        for k, share in enumerate(shares):
            past = self._past(slots, k).float()
            weight = column(share, past)
            term = past * weight
            if not all(share):  # a slot without a k-th value has weight 0, but its row of the buffer may hold anything
                term = torch.where(weight == 0, torch.zeros((), device=past.device), term)
            total = term if total is None else total + term
        assert total is not None
        return total

    def tensors(self) -> Iterable[Tensor]:
        return () if self._buffer is None else (self._buffer,)

    def _past(self, slots: Sequence[int], back: int) -> Tensor:
        if self._buffer is None:
            raise RuntimeError("no history yet: nothing was pushed")
        heads = [(self._head[slot] - back) % self.depth for slot in slots]
        return self._buffer[self._index(heads, self._buffer), self._rows(slots, self._buffer)]

    def _room(self, slots: Sequence[int], values: Tensor) -> Tensor:
        """The buffer, grown if a slot lies outside it."""
        lo, hi = min(slots), max(slots) + 1
        old = self._buffer
        if old is not None:
            lo, hi = min(lo, self._first), max(hi, self._first + old.shape[1])
            if hi - lo == old.shape[1]:
                return old
        self._buffer = values.new_zeros((self.depth, hi - lo, *values.shape[1:]), dtype=self.dtype or values.dtype)
        if old is not None:
            self._buffer[:, self._first - lo : self._first - lo + old.shape[1]] = old
        self._first = lo
        return self._buffer

    def _rows(self, slots: Sequence[int], buffer: Tensor) -> Tensor:
        return self._index([slot - self._first for slot in slots], buffer)

    @staticmethod
    def _index(numbers: Sequence[int], buffer: Tensor) -> Tensor:
        return sent(numbers, buffer.device)
