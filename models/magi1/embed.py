"""MAGI-1's embeddings of positions, times and captions, and its LayerNorm with an offset gain."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.to_device import sent

from .config import NULL_TOKENS

FREQUENCIES = 128  # number of cosines, and of sines, in a time embedding
_ROPE_AREA = 256  # positions are scaled to a frame of this many patches
_ROPE_BASE = 10_000.0


class OnePlusLayerNorm(nn.LayerNorm):
    """LayerNorm whose stored gain is an offset from one: y = norm(x) · (w + 1) + b, in the dtype of w."""

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.to(self.weight.dtype), self.normalized_shape, self.weight + 1, self.bias, self.eps)


class Rope(nn.Module):
    """Rotary embedding over (time, height, width) with learned frequency bands.

    Time counts latent frames from the start of the video, so the position of a chunk does not depend on the other
    chunks in a call. Height and width are centred and scaled to the extent of a 16×16 grid of the same area.
    """

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        count = head_dim // 8
        self.bands = nn.Parameter(_ROPE_BASE ** (-torch.arange(count, dtype=torch.float32) / count))

    def forward(self, positions: Sequence[int], chunk_width: int, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Chunk numbers -> cosines and sines (n, chunk_width·height·width, 3·bands), float32.

        `height` and `width` are in patches.
        """
        bands = self.bands.float()
        ratio = math.sqrt(height * width / _ROPE_AREA)
        starts = sent(positions, bands.device)[:, None] * chunk_width
        frames = (starts + torch.arange(chunk_width, device=bands.device)).float()
        # The released model scales by the last frame and back, which changes the last bit.
        last = max((max(positions) + 1) * chunk_width - 1, 1)
        times = (frames / last * last)[..., None] * bands  # (n, cw, bands)
        rows, columns = (_centred(size, size / ratio, bands.device)[:, None] * bands for size in (height, width))
        shape = (len(positions), chunk_width, height, width, len(bands))
        parts = (times[:, :, None, None], rows[None, None, :, None], columns[None, None, None, :])
        angles = torch.cat([part.expand(shape) for part in parts], -1).flatten(1, 3)
        return angles.cos(), angles.sin()


def _centred(size: int, extent: float, device: torch.device) -> Tensor:
    places = torch.arange(size, dtype=torch.float32, device=device) - (size - 1) / 2
    return places if size == 1 else places / (size - 1) * (extent - 1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the first 2·a channels of each head by `a` angles. Channel i is paired with i + a; the rest is unchanged.

    `x` is (n, tokens, heads, head_dim), `cos` and `sin` are (n, tokens, a).
    """
    angles = cos.shape[-1]
    first, second, rest = x.split([angles, angles, x.shape[-1] - 2 * angles], dim=-1)
    cos, sin = cos[:, :, None], sin[:, :, None]
    return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], -1)


@lru_cache
def _frequencies(last_bits: tuple[tuple[int, int], ...], device: torch.device) -> Tensor:
    """10000 ** (-k / 128) for k < 128, rounded from float64 to float32; `last_bits` (k, units) are then added."""
    with torch.inference_mode(False):  # the cached table is also used in training
        steps = torch.arange(FREQUENCIES, dtype=torch.float32)
        table = torch.exp((-math.log(_ROPE_BASE) * steps / FREQUENCIES).double()).float().view(torch.int32)
        for k, units in last_bits:
            table[k] += units
        return table.view(torch.float32).to(device)


class TimeEmbedder(nn.Module):
    """The embedding of a time in [0, 1] (0 noise, 1 clean), or of the distilled model's step length.

    Angles reach 32,000 radians (the step length for 64 steps), where the last bit of a float32 frequency changes the
    result. The last bit of `exp` depends on the processor. So the frequencies come from a table that is the same on all
    machines. `last_bits` changes two frequencies that lie almost halfway between two float32 numbers to the other one,
    as in the recordings of the official code.
    """

    last_bits: Mapping[int, int] = {12: 1, 106: 1}  # frequency -> units in the last place

    def __init__(self, size: int, stream_dtype: torch.dtype) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(2 * FREQUENCIES, size), nn.SiLU(), nn.Linear(size, size))
        self.stream_dtype = stream_dtype

    def forward(self, times: Tensor) -> Tensor:
        """(n,) -> (n, size), float32. The sinusoid is rounded to the dtype of hidden states, as in training."""
        frequencies = _frequencies(tuple(self.last_bits.items()), times.device)
        angles = times.float()[:, None] * frequencies * 1000  # the order of the products matters for rounding
        sinusoid = torch.cat([angles.cos(), angles.sin()], -1).to(self.stream_dtype)
        return self.mlp(sinusoid.to(next(self.mlp.parameters()).dtype))


class CaptionEmbedder(nn.Module):
    """The text for cross-attention, and one constant vector each for passes with and without a caption."""

    def __init__(self, captions: int, length: int, hidden: int, condition: int) -> None:
        super().__init__()
        self.null_caption_embedding = nn.Parameter(torch.empty(length, captions))
        self.y_proj_xattn = nn.Sequential(nn.Linear(captions, hidden), nn.SiLU())
        self.y_proj_adaln = nn.Sequential(nn.Linear(captions, condition))
        nn.init.normal_(self.null_caption_embedding, std=captions**-0.5)

    @property
    def null_text(self) -> Tensor:
        """The text of a pass without a prompt, (50, caption channels)."""
        return self.null_caption_embedding[:NULL_TOKENS]

    def condition(self, dropped: bool) -> Tensor:
        """The term of the text in the condition, (size,). It does not depend on the prompt."""
        return self.y_proj_adaln(self.null_caption_embedding[-1 if dropped else -2])

    def forward(self, text: Tensor) -> Tensor:
        """Token embeddings (L, caption channels) -> (L, hidden)."""
        return self.y_proj_xattn(text.to(self.null_caption_embedding.dtype))
