"""Self-attention between latent slots: full, block-causal, or with stored keys and values of earlier forwards.

Also the rotary embedding of queries and keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch
import torch.nn.functional as F
from diffusers import SkyReelsV2Transformer3DModel
from torch import Tensor

from engine.to_device import picked

KV = tuple[Tensor, Tensor]  # keys, values


def attention(q: Tensor, k: Tensor, v: Tensor, causal_tokens: int) -> Tensor:
    """Attention of q, k, v (1, heads, tokens, head width) -> the same shape.

    With `causal_tokens` > 0, a block of `causal_tokens` tokens does not attend to later blocks; 0 is full attention.
    """
    if not causal_tokens or causal_tokens >= q.shape[2]:
        return F.scaled_dot_product_attention(q, k, v)
    ends = range(causal_tokens, q.shape[2] + 1, causal_tokens)
    return torch.cat(
        [F.scaled_dot_product_attention(q[:, :, e - causal_tokens : e], k[:, :, :e], v[:, :, :e]) for e in ends], dim=2
    )


def rotary_table(model: SkyReelsV2Transformer3DModel, x: Tensor, positions: Sequence[int]) -> Tensor:
    """Rotations as complex numbers (slots, tokens, head width / 2) of `x` (1, C, slots, H, W) at `positions`."""
    cos, sin = model.rope(x[:, :, :1].expand(-1, -1, positions[-1] + 1, -1, -1))
    table = torch.complex(cos[0, :, 0, 0::2].float(), sin[0, :, 0, 1::2].float()).unflatten(0, (positions[-1] + 1, -1))
    return picked(table, positions)


class KeyValues:
    """The last computed keys and values of some slots of a segment, per guidance branch and transformer block.

    Slots are counted from the segment's first slot. Each branch and block has one buffer (2, heads, slots, tokens, head
    width) in the model's dtype, for the slots from the first to the last that was written. A write inside that range
    is in place. At full size a slot takes 0.75 GB in bfloat16 with two branches.
    """

    def __init__(self) -> None:
        self.final: dict[str, set[int]] = {}  # per branch: settled slots whose keys and values are final
        self._buffers: dict[tuple[str, int], Tensor] = {}
        self._first: dict[tuple[str, int], int] = {}  # the slot of a buffer's first entry
        self._known: dict[tuple[str, int], set[int]] = {}

    def knows(self, branch: str, slot: int) -> bool:
        """Whether keys and values of `slot` are stored for every block of `branch`."""
        mine = [known for (name, _), known in self._known.items() if name == branch]
        return bool(mine) and all(slot in known for known in mine)

    def write(self, at: tuple[str, int], slots: Sequence[int], k: Tensor, v: Tensor) -> None:
        """Store the keys and values (1, heads, tokens of all `slots`, head width) of `at`, a (branch, block)."""
        k, v = (x[0].unflatten(1, (len(slots), -1)) for x in (k, v))
        buffer, first = self._room(at, slots, k), self._first[at]
        for i, (a, b) in runs(slots):
            for kind, x in enumerate((k, v)):
                buffer[kind, :, a - first : b - first] = x[:, i : i + b - a]
        self._known.setdefault(at, set()).update(slots)

    def write_tokens(
        self, at: tuple[str, int], slots: Sequence[int], whole: Sequence[int], where: tuple[Tensor, Tensor], kv: KV
    ) -> None:
        """Store keys and values `kv`, each (1, heads, tokens, head width), of tokens at `where`: (slot, position).

        They are of `slots`, rising, of which those in `whole` have all their tokens here. Raises RuntimeError for
        another slot without stored values.
        """
        lacking = sorted(set(slots) - set(whole) - self._known.get(at, set()))
        if lacking or at not in self._buffers:
            raise RuntimeError(
                f"slots {lacking or list(slots)} of the segment have no stored keys and values; compute all their "
                "tokens before some of them"
            )
        buffer, first = self._room(at, slots, self._buffers[at][0]), self._first[at]
        for kind, x in enumerate(kv):
            buffer[kind][:, where[0] - first, where[1]] = x[0]
        self._known[at].update(whole)

    def _room(self, at: tuple[str, int], slots: Sequence[int], k: Tensor) -> Tensor:
        """The buffer of `at` with room for `slots`; keys `k` (heads, slots, tokens, head width) give its shape."""
        old, first = self._buffers.get(at), self._first.get(at, slots[0])
        lo, hi = min(first, slots[0]), max(first + (0 if old is None else old.shape[2]), slots[-1] + 1)
        if old is None or hi - lo > old.shape[2]:
            new = k.new_empty(2, k.shape[0], hi - lo, *k.shape[2:])
            if old is not None:
                new[:, :, first - lo : first - lo + old.shape[2]] = old
            self._buffers[at], self._first[at] = new, lo
        return self._buffers[at]

    def known(self, at: tuple[str, int], slots: range) -> list[int]:
        """Those of `slots` whose keys and values are stored for `at`, a (branch, block)."""
        return [slot for slot in slots if slot in self._known.get(at, ())]

    def read(self, at: tuple[str, int], slots: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Keys and values of `slots`, (1, heads, tokens, head width) each. A view if the slots are adjacent."""
        buffer, first = self._buffers[at], self._first[at]
        pieces = [buffer[:, :, a - first : b - first] for _, (a, b) in runs(slots)]
        joined = (pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=2)).flatten(2, 3)
        return joined[:1], joined[1:]


@dataclass(frozen=True)
class View:
    """The slots of one forward, and those whose stored keys and values it attends to, counted from the segment's first.

    Slots in `seen` without stored keys and values are not attended to.
    """

    store: KeyValues
    slots: tuple[int, ...]  # slots that are forwarded, in order
    seen: range  # slots that attention covers
    causal_block: int  # slots per block of block-causal attention; 0 is full attention
    keeps: bool = True  # whether the keys and values of `slots` are stored: a later forward may read them

    def only(self, pick: Sequence[int]) -> View:
        """The same for the slots at the positions `pick`."""
        return replace(self, slots=tuple(self.slots[i] for i in pick))

    def attend(self, branches: Sequence[str], block: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Self-attention in transformer block `block`, q, k, v (1, heads, tokens, head width) -> the same shape.

        If they are stored, it is for all `branches`, which share them.
        """
        at, tokens = (branches[0], block), k.shape[2] // len(self.slots)
        if self.keeps:
            for branch in branches:
                self.store.write((branch, block), self.slots, k, v)
            seen = self.store.known(at, self.seen)
        else:
            seen = [*self.store.known(at, range(self.seen.start, self.slots[0])), *self.slots]
        if seen == list(self.slots):  # bit-identical to attention without a store
            return attention(q, k, v, self.causal_block * tokens)
        keys, values = self._around(at, seen, k, v)
        if not self.causal_block:
            return F.scaled_dot_product_attention(q, keys, values)
        out, units = [], [slot // self.causal_block for slot in self.slots]
        for unit in sorted(set(units)):
            mine = units.index(unit) * tokens, (units.index(unit) + units.count(unit)) * tokens
            end = sum(slot < (unit + 1) * self.causal_block for slot in seen) * tokens
            kept = keys[:, :, :end], values[:, :, :end]
            out.append(F.scaled_dot_product_attention(q[:, :, mine[0] : mine[1]], *kept))
        return torch.cat(out, dim=2)

    def _around(self, at: tuple[str, int], seen: Sequence[int], k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the slots `seen`: all from the store, or those of this forward (`k`, `v`) at the end."""
        if self.keeps:
            return self.store.read(at, seen)
        before = self.store.read(at, seen[: len(seen) - len(self.slots)])
        return torch.cat([before[0], k], dim=2), torch.cat([before[1], v], dim=2)


@dataclass(frozen=True)
class TokenView:
    """The tokens of one forward, and the slots whose stored keys and values they attend to.

    It stands in for `View` in a forward of chosen tokens. Slots count from the segment's first.
    """

    store: KeyValues
    counts: tuple[tuple[int, int], ...]  # (slot, number of its tokens), rising
    where: tuple[Tensor, Tensor]  # the slot of every token, and its position there
    fresh: tuple[int, ...]  # the slots whose tokens are all computed
    seen: range  # slots that attention covers
    causal_block: int  # slots per block of block-causal attention; 0 is full attention

    def attend(self, branches: Sequence[str], block: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Self-attention of the tokens in transformer block `block`, q, k, v (1, heads, tokens, head width)."""
        at = (branches[0], block)
        for branch in branches:
            slots = [slot for slot, _ in self.counts]
            self.store.write_tokens((branch, block), slots, self.fresh, self.where, (k, v))
        seen = self.store.known(at, self.seen)
        keys, values = self.store.read(at, seen)
        if not self.causal_block:
            return F.scaled_dot_product_attention(q, keys, values)
        out, begin, per_slot = [], 0, keys.shape[2] // len(seen)
        for unit, own in groupby(self.counts, key=lambda count: count[0] // self.causal_block):
            stop = begin + sum(tokens for _, tokens in own)
            end = sum(slot < (unit + 1) * self.causal_block for slot in seen) * per_slot
            out.append(F.scaled_dot_product_attention(q[:, :, begin:stop], keys[:, :, :end], values[:, :, :end]))
            begin = stop
        return torch.cat(out, dim=2)


def runs(slots: Sequence[int]) -> list[tuple[int, tuple[int, int]]]:
    """The runs of adjacent slots in a rising sequence: for each its start position and its (first, last + 1)."""
    starts = [i for i, slot in enumerate(slots) if not i or slot != slots[i - 1] + 1]
    stops = [*starts[1:], len(slots)]
    return [(i, (slots[i], slots[j - 1] + 1)) for i, j in zip(starts, stops, strict=True)]
