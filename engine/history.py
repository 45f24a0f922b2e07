"""The history of each latent slot: its last few values and their noise levels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING

import torch

from engine.forecast import Formula, weights
from engine.row import Row
from engine.to_device import sent

if TYPE_CHECKING:
    from torch import Tensor


def steps_of(part: Row) -> dict[int, float]:
    """The signed change of noise level of each active slot in this row, {slot: change}."""
    moves = zip(part.slots, part.sigma, part.sigma_next, part.active, strict=True)
    return {slot: after - before for slot, before, after, on in moves if on}


def column(values: Sequence[float], like: Tensor) -> Tensor:
    """One float32 factor per slot, in a shape that broadcasts over the slot-first tensor `like`."""
    return sent(values, like.device, torch.float32).view(-1, *[1] * (like.dim() - 1))


class History:
    """A ring buffer of `depth` values per slot. It holds one tensor, (depth, slots, ...).

    Its keys are absolute slots, so the interval of slots may move or grow. New slots take the place of settled ones.
    So the buffer of a window that moves along a video is no larger than the window.
    """

    def __init__(self, depth: int, dtype: torch.dtype | str | None = "float32") -> None:
        """`dtype`: of the stored values, or its name in torch; None takes that of the first pushed values."""
        self.depth = depth
        self.dtype = dtype  # of the stored values; a name, because a plan of a sweep does without torch
        self.levels: dict[int, list[float]] = {}  # oldest first
        self._head: dict[int, int] = {}
        self._buffer: Tensor | None = None
        self._first = 0

    def push(self, slots: Sequence[int], levels: Sequence[float], values: Tensor, settled: int = 0) -> None:
        """Store `values` (len(slots), ...) at noise levels `levels`. A slot keeps its newest `depth` values.

        The caller will not read slots before `settled` again, unless they are among `slots`.
        """
        if not slots:
            return
        buffer = self._room(slots, values, min(settled, *slots))
        for slot, level in zip(slots, levels, strict=True):
            self._head[slot] = (self._head.get(slot, -1) + 1) % self.depth
            self.levels[slot] = [*self.levels.get(slot, []), level][-self.depth :]
        buffer[self._where(slots, buffer)] = values.to(buffer.dtype)

    def count(self, slot: int) -> int:
        """The number of stored values of `slot`."""
        return len(self.levels.get(slot, ()))

    def last(self, slots: Sequence[int]) -> Tensor:
        """The newest value of every slot, (len(slots), ...).

        The result may be a view of the buffer: do not write to it, and copy it to keep it after the next `push`.
        """
        return self._past(slots)(0)

    def predict(self, slots: Sequence[int], formula: Formula, at: Sequence[float], orders: Sequence[int]) -> Tensor:
        """Extrapolate every slot to its noise level in `at`, (len(slots), ...), in float32.

        `formula` uses the newest order + 1 values of each slot, with its order from `orders`.
        """
        known = tuple(tuple(self.levels[slot]) for slot in slots)
        past = self._past(slots)
        newest = past(0).float()
        shares, affine = _shares(formula, known, tuple(at), tuple(orders), newest.dim(), newest.device)
        if affine and [stretches for _, stretches in shares[1:]] == [[(0, len(slots))]]:  # order 1
            return torch.lerp(newest, past(1).float(), shares[1][0])
        total = newest * shares[0][0]
        for k, (share, stretches) in enumerate(shares[1:], 1):
            values = past(k).float()
            for a, b in stretches:  # a slot without a k-th value is left out: its place may hold any numbers
                total[a:b].addcmul_(values[a:b], share[a:b])
        return total

    def tensors(self) -> Iterable[Tensor]:
        """The buffer, for the account of a method's memory."""
        return () if self._buffer is None else (self._buffer,)

    def _past(self, slots: Sequence[int]) -> Callable[[int], Tensor]:
        """A function k -> the k-th newest values of `slots`: a view without a copy if they are adjacent."""
        if self._buffer is None:
            raise RuntimeError("no history yet: nothing was pushed")
        buffer, where = self._buffer, self._where(slots, self._buffer)
        return lambda back: buffer[(where[0] - back) % self.depth, where[1]]

    def _where(self, slots: Sequence[int], buffer: Tensor) -> tuple[int, slice] | tuple[Tensor, Tensor]:
        """The index in the buffer of the newest values of `slots`: (ring position, slots)."""
        heads, first = [self._head[slot] for slot in slots], slots[0] - self._first
        if heads.count(heads[0]) == len(heads) and list(slots) == list(range(slots[0], slots[0] + len(slots))):
            return heads[0], slice(first, first + len(slots))
        return sent(heads, buffer.device), sent([slot - self._first for slot in slots], buffer.device)

    def _room(self, slots: Sequence[int], values: Tensor, live: int) -> Tensor:
        """The buffer with room for `slots`. Slots before `live` may be dropped for it; else the buffer grows."""
        lo, hi = min(slots), max(slots) + 1
        old, first = self._buffer, self._first
        if old is None:
            self.dtype = self.dtype or values.dtype
            self._buffer, self._first = self._empty(hi - lo, values), lo
            return self._buffer
        end = first + old.shape[1]
        if first <= lo and hi <= end:
            return old
        lo, hi = min(lo, max(first, live)), max(hi, end)
        a, b = max(first, lo), max(end, lo)  # the slots that stay
        new = old if hi - lo == end - first else self._empty(hi - lo, values)
        for ring, kept in zip(new, old, strict=True):
            stays = kept[a - first : b - first]
            ring[a - lo : b - lo] = stays.clone() if new is old else stays
        self._buffer, self._first = new, lo
        self.levels = {slot: known for slot, known in self.levels.items() if slot >= lo}
        self._head = {slot: head for slot, head in self._head.items() if slot >= lo}
        return new

    def _empty(self, slots: int, values: Tensor) -> Tensor:
        dtype: torch.dtype | None = getattr(torch, self.dtype) if isinstance(self.dtype, str) else self.dtype
        return values.new_zeros((self.depth, slots, *values.shape[1:]), dtype=dtype)


@lru_cache(maxsize=64)  # all sites of a row use the same arguments
def _shares(
    formula: Formula,
    levels: tuple[tuple[float, ...], ...],
    at: tuple[float, ...],
    orders: tuple[int, ...],
    dim: int,
    device: torch.device,
) -> tuple[list[tuple[Tensor, list[tuple[int, int]]]], bool]:
    """The weights of `formula`: for each k from 0, (weights, runs) of the k-th newest value of every slot.

    Weights are columns that broadcast over tensors of `dim` dimensions. Runs are the ranges [a, b) of slots with a
    weight other than 0; a slot of a lower order has weight 0. The second result: whether every slot's weights sum to 1.
    """
    shares: list[list[float]] = [[] for _ in range(max(orders) + 1)]
    affine = True
    for known, level, order in zip(levels, at, orders, strict=True):
        newest_first = weights(formula, known[-(order + 1) :], level)[::-1]
        affine &= abs(sum(newest_first) - 1) <= 1e-9 * sum(map(abs, newest_first))
        for k, share in enumerate(shares):
            share.append(newest_first[k] if k < len(newest_first) else 0.0)
    return [(sent(s, device, torch.float32).view(-1, *[1] * (dim - 1)), _runs(s)) for s in shares], affine


def _runs(share: Sequence[float]) -> list[tuple[int, int]]:
    """The ranges [a, b) of consecutive entries other than 0.

    >>> _runs([0.0, 2.0, 1.0, 0.0, 3.0])
    [(1, 3), (4, 5)]
    """
    stretches = [(on, [*group]) for on, group in groupby(range(len(share)), key=lambda i: share[i] != 0)]
    return [(stretch[0], stretch[-1] + 1) for on, stretch in stretches if on]
