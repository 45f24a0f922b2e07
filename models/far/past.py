"""The keys and values of a video's chunks: far chunks in compressed form, the last ones in full, then the present one.

diffusers' pipeline computes the keys of all earlier chunks anew in every clean pass, and joins and rotates them in
every step. Here keys are stored rotated, each is computed once per change (`Chunks.renewed`), and those that a chunk
attends to lie one after the other, so that nothing is copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from models.far.chunks import Chunks


@dataclass(frozen=True)
class Grid:
    """The tokens of a latent slot: rows and columns, in full and in compressed form."""

    full: tuple[int, int]
    small: tuple[int, int]

    @classmethod
    def of(cls, config: Any, height: int, width: int) -> Grid:
        """The grid of latents of `height` x `width` under the transformer's `config`."""
        (_, a, b), (_, c, d) = config.patch_size, config.compressed_patch_size
        return cls((height // a, width // b), (height // c, width // d))

    @property
    def tokens(self) -> tuple[int, int]:
        """Tokens of a slot, (in full, in compressed form)."""
        return self.full[0] * self.full[1], self.small[0] * self.small[1]


def rotations(model: Any, slots: int, grid: Grid, device: torch.device) -> tuple[Tensor, Tensor]:
    """The rotations (slots, tokens, head width / 2) of all slots, (in full, in compressed form), complex64."""
    found = []
    for far in (0, slots):
        shapes = {"full_frame_shape": grid.full, "compressed_frame_shape": grid.small}
        table = model.rope(far_cfg={"total_frames": slots, "num_compressed_frames": far, **shapes}, device=device)
        found.append(table["query"][0, 0].to(torch.complex64).unflatten(0, (slots, -1)))
    return found[0], found[1]


@dataclass(frozen=True)
class Piece:
    """Tokens of one forward that attend to the same keys: where they lie among its tokens, and the end of the keys."""

    tokens: slice
    end: int


class Past:
    """One buffer (2, heads, tokens, head width) per guidance branch and transformer block, in the model's dtype."""

    def __init__(self, chunks: Chunks, grid: Grid, padding: Sequence[int], room: int) -> None:
        """`padding`: the zero keys beside each chunk; `room`: tokens of a buffer."""
        self.chunks, (self.full, self.small), self.padding, self.room = chunks, grid.tokens, padding, room
        self._buffers: dict[tuple[str, int], Tensor] = {}

    def start(self, chunk: int, far: int) -> int:
        """The place of `chunk`, in full, in a buffer that holds `far` compressed chunks."""
        return len(self.chunks.slots(0, far)) * self.small + len(self.chunks.slots(far, chunk)) * self.full

    def denoised(self, chunk: int) -> tuple[int, list[Piece]]:
        """For a step of `chunk`: the place of its keys, and what its tokens attend to."""
        start, own = self.start(chunk, self.chunks.far(chunk)), self.chunks.lengths[chunk] * self.full
        return start, [Piece(slice(0, own), start + own + self.padding[chunk])]

    def cleaned(self, chunk: int, whole: bool = False) -> tuple[int, list[Piece]]:
        """For the clean pass after `chunk`: the place of the first computed key, and what every part attends to."""
        far, near = self.chunks.renewed(chunk, whole)
        seen = self.chunks.far(chunk + 1)
        counts = [self.chunks.lengths[one] * self.small for one in far]
        counts += [self.chunks.lengths[one] * self.full for one in near]
        start = len(self.chunks.slots(0, far.start)) * self.small if far else self.start(near.start, seen)
        place, pieces = start, []
        for count in counts:
            pieces.append(Piece(slice(place - start, place - start + count), place + count))
            place += count
        return start, pieces

    def attend(
        self, at: tuple[str, int], start: int, pieces: Sequence[Piece], q: Tensor, k: Tensor, v: Tensor
    ) -> Tensor:
        """Store `k`, `v` (1, heads, tokens, head width) from `start` on, and attend: the same shape as `q`.

        `at` is a guidance branch and a transformer block.
        """
        keys, values = self.store(at, start, k, v)
        outs = [
            F.scaled_dot_product_attention(q[:, :, piece.tokens], keys[:, :, : piece.end], values[:, :, : piece.end])
            for piece in pieces
        ]
        return outs[0] if len(outs) == 1 else torch.cat(outs, dim=2)

    def store(self, at: tuple[str, int], start: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write `k`, `v` from `start` on. Returns all keys and values, (1, heads, room, head width) each."""
        buffer = self._buffers.get(at)
        if buffer is None:
            buffer = self._buffers[at] = k.new_zeros(2, k.shape[1], self.room, k.shape[3])
        end = start + k.shape[2]
        buffer[0, :, start:end], buffer[1, :, start:end] = k[0], v[0]
        return buffer[:1], buffer[1:]

    def clear_behind(self, start: int) -> None:
        """Set all keys from `start` on to zero: the padding keys of the next chunk."""
        for buffer in self._buffers.values():
            buffer[:, :, start:].zero_()
