"""Self-attention between latent slots: full, block-causal, or with stored keys and values of earlier forwards.

Also the rotary embedding of queries and keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from diffusers import SkyReelsV2Transformer3DModel
from torch import Tensor


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
    return table if len(positions) == len(table) else table[list(positions)]


def rotate(x: Tensor, rotary: Tensor) -> Tensor:
    """Rotate the interleaved pairs of `x` (1, heads, tokens, head width) by `rotary` (tokens, head width / 2)."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * rotary).flatten(-2).type_as(x)


class KeyValues:
    """The last computed keys and values of one segment's slots, per guidance branch and transformer block.

    Slots are counted from the segment's first slot. Each branch and block has one buffer (2, heads, slots, tokens, head
    width). It is allocated at the first write and then written in place. A full-size window with two branches takes
    17.5 GiB in bfloat16.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.final: dict[str, set[int]] = {}  # per branch: settled slots whose keys and values are final
        self._buffers: dict[tuple[str, int], Tensor] = {}
        self._known: dict[tuple[str, int], set[int]] = {}

    def knows(self, branch: str, slot: int) -> bool:
        """Whether keys and values of `slot` are stored for every block of `branch`."""
        mine = [known for (name, _), known in self._known.items() if name == branch]
        return bool(mine) and all(slot in known for known in mine)

    def write(self, at: tuple[str, int], slots: Sequence[int], k: Tensor, v: Tensor) -> None:
        """Store the keys and values (1, heads, tokens of all `slots`, head width) of `at`, a (branch, block)."""
        k, v = (x[0].unflatten(1, (len(slots), -1)) for x in (k, v))
        if at not in self._buffers:
            self._buffers[at] = k.new_empty(2, k.shape[0], self.slots, *k.shape[2:])
        buffer = self._buffers[at]
        for i, (a, b) in runs(slots):
            for kind, x in enumerate((k, v)):
                buffer[kind, :, a:b] = x[:, i : i + b - a]
        self._known.setdefault(at, set()).update(slots)

    def known(self, at: tuple[str, int], slots: range) -> list[int]:
        """Those of `slots` whose keys and values are stored for `at`, a (branch, block)."""
        return [slot for slot in slots if slot in self._known[at]]

    def read(self, at: tuple[str, int], slots: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Keys and values of `slots`, (1, heads, tokens, head width) each. A view if the slots are adjacent."""
        buffer = self._buffers[at]
        pieces = [buffer[:, :, a:b] for _, (a, b) in runs(slots)]
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

    def only(self, pick: Sequence[int]) -> View:
        """The same for the slots at the positions `pick`."""
        return replace(self, slots=tuple(self.slots[i] for i in pick))

    def attend(self, branches: Sequence[str], block: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Self-attention in transformer block `block`, q, k, v (1, heads, tokens, head width) -> the same shape.

        The keys and values are stored for all `branches`, which share them.
        """
        for branch in branches:
            self.store.write((branch, block), self.slots, k, v)
        at, tokens = (branches[0], block), k.shape[2] // len(self.slots)
        seen = self.store.known(at, self.seen)
        if seen == list(self.slots):  # bit-identical to attention without a store
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
    """The runs of adjacent slots in a rising sequence: for each its start position and its (first, last + 1)."""
    starts = [i for i, slot in enumerate(slots) if not i or slot != slots[i - 1] + 1]
    stops = [*starts[1:], len(slots)]
    return [(i, (slots[i], slots[j - 1] + 1)) for i, j in zip(starts, stops, strict=True)]
