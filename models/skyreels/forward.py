"""The forward of diffusers' SkyReelsV2Transformer3DModel, written over its own submodules.

Same arithmetic as the stock forward (a test holds both to 1e-5; under full attention on a CPU they are the same bits),
with what a harness of accelerators needs:

* every block and branch is offered to a `visit`, so that a method may stand in for it;
* modulation is broadcast over a frame's tokens instead of being repeated for each (0.9 GiB a forward at full size);
* keys and values of the text are computed once per video, not once per forward; its padding may count as one token;
* what comes before the text, the first self-attention included, is computed once for both guidance branches;
* block-causal attention runs block by block instead of under a dense mask (2.4 GiB at full size);
* some of the slots can run alone, and see the others through keys and values kept of earlier forwards (`attention.py`).

Hidden states are (slots, tokens per slot, width) between blocks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import SkyReelsV2Transformer3DModel
from torch import Tensor

from engine.row import Row, Site
from engine.to_device import sent
from engine.visit import Visit
from models.skyreels.attention import View, attention, rotary_table, rotate
from models.skyreels.branch import modulated, modulation, only, places, through

FPS_ID = {16: 0}  # any other frame rate, 24 above all, is id 1


@dataclass(frozen=True)
class Text:
    """What every block needs of one prompt: its keys and values, [(1, heads, length, head width)] x 2.

    Padding tokens are all alike and the stock forward attends to each of them; one of them with the logarithm of their
    number added to its score does the same in the softmax, to rounding (which a trajectory magnifies to 1e-5).
    """

    keys: list[Tensor]
    values: list[Tensor]
    bias: Tensor | None  # (1, 1, 1, length) added to the scores


@dataclass(frozen=True)
class Condition:
    """Per-slot modulation: `time` (slots, width) for the head, `blocks` (slots, 6, width) for the blocks."""

    time: Tensor
    blocks: Tensor

    def only(self, pick: Sequence[int]) -> Condition:
        return Condition(self.time[pick], self.blocks[pick])


@dataclass(frozen=True)
class Frames:
    """What belongs to the slots of one pass beside their hidden states."""

    cond: Condition
    rotary: Tensor  # (slots, tokens, head width / 2)
    causal_block: int
    view: View | None
    batch: int = 1  # guidance branches among the slots of hidden states, one after the other
    once: list[Tensor] = field(default_factory=list)  # what the first self-attention gave, the same in all branches

    def only(self, pick: Sequence[int] | None) -> Frames:
        """The same for some of the slots, by their place; None is all of them."""
        if pick is None:
            return self
        view = self.view.only(pick) if self.view else None
        return replace(self, cond=self.cond.only(pick), rotary=self.rotary[pick], view=view)

    def attend(self, branches: Sequence[str], block: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Self-attention of all tokens in `block`, the same for `branches`."""
        if self.view:
            return self.view.attend(branches, block, q, k, v)
        return attention(q, k, v, self.causal_block * self.rotary.shape[1])


def read_text(
    model: SkyReelsV2Transformer3DModel, embedding: Tensor, depth: int | None = None, fold: bool = False
) -> Text:
    """Project a text embedding (1, length, text width) once for all (or the first `depth`) blocks and forwards.

    With `fold`, zeros at its end become one token with the weight of all.
    """
    words, bias = _words(embedding) if fold else 0, None
    padding = embedding.shape[1] - words
    if words and padding > 1:
        embedding = embedding[:, : words + 1]
        bias = torch.zeros(1, 1, 1, words + 1, device=embedding.device, dtype=embedding.dtype)
        bias[..., -1] = math.log(padding)
    context = model.condition_embedder.text_embedder(embedding)
    keys, values = [], []
    for block in model.blocks[:depth]:
        attn = block.attn2
        keys.append(_heads(attn.norm_k(attn.to_k(context)), attn.heads))
        values.append(_heads(attn.to_v(context), attn.heads))
    return Text(keys, values, bias)


def _words(embedding: Tensor) -> int:
    """Tokens before the zero padding; 0 where padding is not to be folded (bfloat16 would round its logarithm)."""
    if embedding.device.type == "meta" or embedding.dtype != torch.float32 or not bool(embedding.any()):
        return 0
    return int(embedding[0].any(-1).nonzero().max()) + 1


def condition(model: SkyReelsV2Transformer3DModel, timesteps: Tensor, fps: int, dtype: torch.dtype) -> Condition:
    """Modulation of every slot from its integer timestep (slots,), as the stock forward rounds it to `dtype`."""
    embed = model.condition_embedder
    time = embed.time_embedder(embed.timesteps_proj(timesteps).to(embed.time_embedder.linear_1.weight.dtype))
    time = time.to(dtype)
    blocks = embed.time_proj(embed.act_fn(time)).unflatten(-1, (6, -1))
    rate = frame_rate(model, fps, timesteps.device)
    return Condition(time, blocks if rate is None else blocks + rate)


def frame_rate(model: SkyReelsV2Transformer3DModel, fps: int, device: torch.device) -> Tensor | None:
    """What the frame rate adds to every slot's modulation, (1, 6, width); None for a model that is not told of it."""
    if not model.config.inject_sample_info:
        return None
    rate: Tensor = model.fps_projection(model.fps_embedding(sent([FPS_ID.get(fps, 1)], device)))
    return rate.unflatten(1, (6, -1))


@dataclass(frozen=True)
class Opening:
    """The part of a forward that no text enters: all guidance branches of one input have it in common."""

    hidden: Tensor  # (slots, tokens, width)
    frames: Frames
    attended: bool  # whether `hidden` has been through the first block's self-attention


def opening(
    model: SkyReelsV2Transformer3DModel,
    latents: Tensor,
    cond: Condition,
    causal_block: int = 0,
    branches: Sequence[str] = (),
    view: View | None = None,
) -> Opening:
    """Begin a forward of `latents` (slots, C, H, W), with `branches` as far as the first block's cross-attention."""
    x = latents.transpose(0, 1)[None]
    h = model.patch_embedding(x).flatten(3)[0].permute(1, 2, 0).contiguous()  # every sum takes over its layout
    positions = view.slots if view else range(len(latents))
    frames = Frames(cond, rotary_table(model, x, positions), causal_block, view)
    if branches:
        block = model.blocks[0]
        h = attend_to_video(block, 0, h, modulation(block, cond.blocks), frames, None, branches)
    return Opening(h, frames, bool(branches))


def forward(
    model: SkyReelsV2Transformer3DModel,
    latents: Tensor,
    cond: Condition,
    text: Text,
    visit: Visit | None = None,
    branch: str = "",
    causal_block: int = 0,
    depth: int | None = None,
    begun: Opening | None = None,
    view: View | None = None,
) -> Tensor:
    """Velocity (slots, C, H, W) of `latents` (slots, C, H, W) in the model's dtype.

    `causal_block` > 0 lets a block of so many slots attend to itself and earlier blocks only; 0 is full attention.
    `depth` runs only the first blocks (used to price one block). `begun` is the `opening` of the same latents.
    `view` says which slots these are and what they see besides themselves; its store keeps their keys and values.
    """
    begun = begun or opening(model, latents, cond, causal_block, view=view)
    h, blocks = begun.hidden, model.blocks if depth is None else model.blocks[:depth]

    def run(i: int, h: Tensor, frames: Frames, visit: Visit | None) -> Tensor:
        table = modulation(blocks[i], frames.cond.blocks)
        own = i > 0 or not begun.attended  # else all branches begin with this stream
        if own:
            h = attend_to_video(blocks[i], i, h, table, frames, visit, (branch,))
        return finish_block(blocks[i], i, h, table, text, visit, branch, own)

    i = 0
    while i < len(blocks):
        stop = visit.stop("blocks", i) if visit else None
        if visit is None or stop is None:
            h = run(i, h, begun.frames, visit)
            i += 1
            continue
        span = range(i, stop)

        def compute(h: Tensor, parts: Sequence[Row], span: range = span) -> Tensor:
            pick = places(visit, parts)
            frames, h = begun.frames.only(pick), only(h, pick)
            for j in span:
                h = run(j, h, frames, visit if pick is None else None)  # a part of the row has no sites of its own
            return h

        h = visit(Site("blocks", span, branch), h, compute)
        i = stop
    return _head(model, h, cond.time, latents.shape)


def attend_to_video(
    block: Any,  # a SkyReelsV2TransformerBlock
    number: int,
    h: Tensor,
    table: Tensor,
    frames: Frames,
    visit: Visit | None,
    branches: Sequence[str],
) -> Tensor:
    """The first branch of a block. `h` stays as it is: it may be a site's input."""
    shift, scale, gate = table[:, :3].unbind(1)

    def self_attention(h: Tensor, parts: Sequence[Row]) -> Tensor:
        pick = places(visit, parts)
        common = number == 0 and pick is None and frames.view is None  # else its keys belong to one branch
        if common and frames.once:
            return frames.once[0]
        own, z = frames.only(pick), modulated(block.norm1, only(h, pick), only(scale, pick), only(shift, pick))
        attn, flat, rotary = block.attn1, z.reshape(own.batch, -1, z.shape[-1]), own.rotary.flatten(0, 1)
        q = rotate(_heads(attn.norm_q(attn.to_q(flat)), attn.heads), rotary)
        k = rotate(_heads(attn.norm_k(attn.to_k(flat)), attn.heads), rotary)
        out = own.attend(branches, number, q, k, _heads(attn.to_v(flat), attn.heads))
        out = attn.to_out[0](out.transpose(1, 2).flatten(2)).view_as(z)
        if common:
            frames.once.append(out)
        return out

    return through("attention", number, h, gate, self_attention, visit, branches[0], own=False)


def finish_block(
    block: Any, number: int, h: Tensor, table: Tensor, text: Text, visit: Visit | None, branch: str, own: bool
) -> Tensor:
    """The other branches of a block: attention to the text, then the feed-forward; `own` stream `h` is written to."""
    shift, scale, gate = table[:, 3:].unbind(1)

    def cross_attention(h: Tensor, parts: Sequence[Row]) -> Tensor:
        h = only(h, places(visit, parts))
        z = block.norm2(h.float()).type_as(h)
        attn, flat = block.attn2, z.reshape(len(text.keys[number]), -1, z.shape[-1])
        q = _heads(attn.norm_q(attn.to_q(flat)), attn.heads)
        out = F.scaled_dot_product_attention(q, text.keys[number], text.values[number], attn_mask=text.bias)
        return attn.to_out[0](out.transpose(1, 2).flatten(2)).view_as(z)

    def feed_forward(h: Tensor, parts: Sequence[Row]) -> Tensor:
        pick = places(visit, parts)
        return block.ffn(modulated(block.norm3, only(h, pick), only(scale, pick), only(shift, pick)))

    h = through("cross_attention", number, h, None, cross_attention, visit, branch, own)
    return through("feed_forward", number, h, gate, feed_forward, visit, branch, own=True)


def _head(model: SkyReelsV2Transformer3DModel, h: Tensor, time: Tensor, shape: torch.Size) -> Tensor:
    shift, scale = (model.scale_shift_table + time[:, None]).unsqueeze(2).unbind(1)
    h = model.proj_out(modulated(model.norm_out, h, scale, shift))
    slots, _, height, width = shape
    _, ph, pw = model.config.patch_size
    h = h.view(slots, height // ph, width // pw, ph, pw, -1)
    return h.permute(0, 5, 1, 3, 2, 4).reshape(slots, -1, height, width)


def _heads(x: Tensor, heads: int) -> Tensor:
    """(1, tokens, width) -> (1, heads, tokens, head width)."""
    return x.unflatten(2, (heads, -1)).transpose(1, 2)
