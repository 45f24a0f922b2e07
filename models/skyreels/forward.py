"""The forward of diffusers' SkyReelsV2Transformer3DModel, rewritten on its submodules.

The arithmetic is that of diffusers' forward. A test compares both to 1e-5; under full attention on a CPU they are
identical. The differences:

* every block and branch is a site of `visit`, where a method may supply the result;
* modulation is broadcast over the tokens of a frame, not repeated for each (saves 0.9 GiB per forward at full size);
* keys and values of the text are computed once per video, not once per forward; its padding may count as one token;
* all layers before the first cross-attention are computed once for both guidance branches;
* block-causal attention runs block by block, without a dense mask (saves 2.4 GiB at full size);
* a part of the slots, or of their tokens, can be forwarded alone and attend to stored keys and values of the others
  (`attention.py`, `tokens.py`).

Hidden states between blocks are (slots, tokens per slot, width).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from diffusers import SkyReelsV2Transformer3DModel
from torch import Tensor

from engine.row import Row, Site
from engine.to_device import sent
from engine.visit import Visit
from models.skyreels.attention import View, rotary_table
from models.skyreels.frames import Condition, Frames
from models.skyreels.tokens import through_tokens
from models.wan.blocks import Text, finish_block, head, heads, rotate
from models.wan.branch import modulated, modulation, only, places, through

FPS_ID = {16: 0}  # any other frame rate (usually 24) has id 1


def condition(model: SkyReelsV2Transformer3DModel, timesteps: Tensor, fps: int, dtype: torch.dtype) -> Condition:
    """The modulation of every slot from its integer timestep (slots,), rounded to `dtype` as in diffusers' forward."""
    embed = model.condition_embedder
    time = embed.time_embedder(embed.timesteps_proj(timesteps).to(embed.time_embedder.linear_1.weight.dtype))
    time = time.to(dtype)
    blocks = embed.time_proj(embed.act_fn(time)).unflatten(-1, (6, -1))
    rate = frame_rate(model, fps, timesteps.device)
    return Condition(time, blocks if rate is None else blocks + rate)


def frame_rate(model: SkyReelsV2Transformer3DModel, fps: int, device: torch.device) -> Tensor | None:
    """The term of the frame rate in every slot's modulation, (1, 6, width); None if the model has no such input."""
    if not model.config.inject_sample_info:
        return None
    rate: Tensor = model.fps_projection(model.fps_embedding(sent([FPS_ID.get(fps, 1)], device)))
    return rate.unflatten(1, (6, -1))


@dataclass(frozen=True)
class Opening:
    """The part of a forward that does not depend on the text. All guidance branches of one input share it."""

    hidden: Tensor  # (slots, tokens, width)
    frames: Frames
    attended: bool  # whether the first block's self-attention was applied to `hidden`


def opening(
    model: SkyReelsV2Transformer3DModel,
    latents: Tensor,
    cond: Condition,
    causal_block: int = 0,
    branches: Sequence[str] = (),
    view: View | None = None,
) -> Opening:
    """Begin a forward of `latents` (slots, C, H, W). With `branches`, include the first block's self-attention."""
    x = latents.transpose(0, 1)[None]
    h = model.patch_embedding(x).flatten(3)[0].permute(1, 2, 0).contiguous()  # later sums keep this memory layout
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

    With `causal_block` > 0, a block of `causal_block` slots attends to itself and earlier blocks; 0 is full attention.
    `depth` limits the forward to the first blocks (to count the FLOPs of one block). `begun` is the `opening` of the
    same latents. `view` names the slots and those they attend to; its store keeps their keys and values.
    """
    begun = begun or opening(model, latents, cond, causal_block, view=view)
    blocks = model.blocks if depth is None else model.blocks[:depth]
    h = _through_blocks(blocks, begun, text, visit, branch)
    return head(model, h, cond.time, latents.shape)


def _through_blocks(blocks: Sequence[Any], begun: Opening, text: Text, visit: Visit | None, branch: str) -> Tensor:
    """The hidden states after all `blocks`. With `visit`, each span of blocks that its method names is a site."""

    def run(i: int, h: Tensor, frames: Frames, visit: Visit | None) -> Tensor:
        table = modulation(blocks[i], frames.cond.blocks)
        own = i > 0 or not begun.attended  # else all branches share this hidden state
        if own:
            h = attend_to_video(blocks[i], i, h, table, frames, visit, (branch,))
        return finish_block(blocks[i], i, h, table, text, visit, branch, own)

    def whole(h: Tensor, frames: Frames, span: range, visit: Visit | None) -> Tensor:
        for j in span:
            h = run(j, h, frames, visit)
        return h

    h, i = begun.hidden, 0
    while i < len(blocks):
        stop = visit.stop("blocks", i) if visit else None
        if visit is None or stop is None:
            h = run(i, h, begun.frames, visit)
            i += 1
            continue
        span = range(i, stop)

        def compute(h: Tensor, parts: Sequence[Row], span: range = span) -> Tensor:
            if visit and any(part.tokens for part in parts):
                return through_tokens(visit.row, parts, h, begun.frames, partial(whole, span=span, visit=None))
            pick = places(visit, parts)
            inside = visit if pick is None else None  # no sites inside the forward of a part
            return whole(only(h, pick), begun.frames.only(pick), span, inside)

        h = visit(Site("blocks", span, branch), h, compute)
        i = stop
    return h


def attend_to_video(
    block: Any,  # a SkyReelsV2TransformerBlock
    number: int,
    h: Tensor,
    table: Tensor,
    frames: Frames,
    visit: Visit | None,
    branches: Sequence[str],
) -> Tensor:
    """The first branch of a block: self-attention. `h` is not written to, because it may be the input of a site."""
    shift, scale, gate = table[:, :3].unbind(1)

    def self_attention(h: Tensor, parts: Sequence[Row]) -> Tensor:
        pick = places(visit, parts)
        common = number == 0 and pick is None and frames.view is None  # the result is the same for all branches
        if common and frames.once:
            return frames.once[0]
        own, z = frames.only(pick), modulated(block.norm1, only(h, pick), only(scale, pick), only(shift, pick))
        attn, flat, rotary = block.attn1, z.reshape(own.batch, -1, z.shape[-1]), own.rotary.flatten(0, 1)
        q = rotate(heads(attn.norm_q(attn.to_q(flat)), attn.heads), rotary)
        k = rotate(heads(attn.norm_k(attn.to_k(flat)), attn.heads), rotary)
        out = own.attend(branches, number, q, k, heads(attn.to_v(flat), attn.heads))
        out = attn.to_out[0](out.transpose(1, 2).flatten(2)).view_as(z)
        if common:
            frames.once.append(out)
        return out

    return through("attention", number, h, gate, self_attention, visit, branches[0], own=False)
