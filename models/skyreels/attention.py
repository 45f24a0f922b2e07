"""Self-attention among latent slots: full, block-causal, and over keys and values that earlier forwards left behind;
and the rotations of its queries and keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from diffusers import SkyReelsV2Transformer3DModel
from torch import Tensor


def attention(q: Tensor, k: Tensor, v: Tensor, causal_tokens: int) -> Tensor:
    """Attention of (1, heads, tokens, width); `causal_tokens` > 0: blocks of so many tokens see no later block."""
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
    return table if len(positions) == len(table) else table[list(positions)]


def rotate(x: Tensor, rotary: Tensor) -> Tensor:
    """Turn interleaved pairs of (1, heads, tokens, width) by `rotary`."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * rotary).flatten(-2).type_as(x)


class KeyValues:
    """Keys and values of one segment's slots, by guidance branch and transformer block, as they were last computed.

    Slots are counted from the segment's first. One buffer (2, heads, slots, tokens, head width) per branch and block,
    made at the first write and then written in place: 17.5 GiB for two branches of a full-size window in bfloat16.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.final: dict[str, set[int]] = {}  # by branch: what has settled and is held as it will stay
        self._buffers: dict[tuple[str, int], Tensor] = {}
        self._known: dict[tuple[str, int], set[int]] = {}

    def knows(self, branch: str, slot: int) -> bool:
        """Whether `slot` has been through every block of `branch`."""
        mine = [known for (name, _), known in self._known.items() if name == branch]
        return bool(mine) and all(slot in known for known in mine)

    def write(self, at: tuple[str, int], slots: Sequence[int], k: Tensor, v: Tensor) -> None:
        """Keep the keys and values (1, heads, tokens of all `slots`, head width) of (branch, block) `at`."""
        k, v = (x[0].unflatten(1, (len(slots), -1)) for x in (k, v))
        if at not in self._buffers:
            self._buffers[at] = k.new_empty(2, k.shape[0], self.slots, *k.shape[2:])
        buffer = self._buffers[at]
        for i, (a, b) in runs(slots):
            for kind, x in enumerate((k, v)):
                buffer[kind, :, a:b] = x[:, i : i + b - a]
        self._known.setdefault(at, set()).update(slots)

    def known(self, at: tuple[str, int], slots: range) -> list[int]:
        """Which of `slots` are held."""
        return [slot for slot in slots if slot in self._known[at]]

    def read(self, at: tuple[str, int], slots: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Keys and values of `slots`, (1, heads, tokens, head width) each; a view where the slots are neighbours."""
        buffer = self._buffers[at]
        pieces = [buffer[:, :, a:b] for _, (a, b) in runs(slots)]
        joined = (pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=2)).flatten(2, 3)
        return joined[:1], joined[1:]


@dataclass(frozen=True)
class View:
    """What the self-attention of one pass sees besides itself. Slots are counted from the segment's first."""

    store: KeyValues
    slots: tuple[int, ...]  # that run, in order
    seen: range  # that attention may look at, so far as they were ever computed
    causal_block: int  # slots; 0 is full attention

    def only(self, pick: Sequence[int]) -> View:
        """The same for some of its slots, by their place."""
        return replace(self, slots=tuple(self.slots[i] for i in pick))

    def attend(self, branches: Sequence[str], block: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention in transformer block `block`; all `branches` have these keys and values, and keep them."""
        for branch in branches:
            self.store.write((branch, block), self.slots, k, v)
        at, tokens = (branches[0], block), k.shape[2] // len(self.slots)
        seen = self.store.known(at, self.seen)
        if seen == list(self.slots):  # as without a store, to the last bit
            return attention(q, k, v, self.causal_block * tokens)
        if not self.causal_block:
            return F.scaled_dot_product_attention(q, *self.store.read(at, seen))
        out, units = [], [slot // self.causal_block for slot in self.slots]
        for unit in sorted(set(units)):
            mine = units.index(unit) * tokens, (units.index(unit) + units.count(unit)) * tokens
            end = (unit + 1) * self.causal_block
            kept = self.store.read(at, [slot for slot in seen if slot < end])
            out.append(F.scaled_dot_product_attention(q[:, :, mine[0] : mine[1]], *kept))
        return torch.cat(out, dim=2)


def runs(slots: Sequence[int]) -> list[tuple[int, tuple[int, int]]]:
    """Stretches of neighbours in a rising sequence: where each begins in it, and its (first, last + 1)."""
    starts = [i for i, slot in enumerate(slots) if not i or slot != slots[i - 1] + 1]
    stops = [*starts[1:], len(slots)]
    return [(i, (slots[i], slots[j - 1] + 1)) for i, j in zip(starts, stops, strict=True)]
