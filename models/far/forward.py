"""The forwards of diffusers' AnyFlowFARTransformer3DModel, rewritten on its submodules: a step and a clean pass.

The arithmetic is that of diffusers' forward; a test compares whole videos to 1e-5. The differences:

* every block and branch of a step is a site of `visit`, where a method may supply the result;
* the modulation is one vector per row, not one per token: all slots of a chunk have the same times;
* keys and values of the text and the embeddings of the times are computed once per video;
* keys of earlier chunks are stored as attention needs them, and a clean pass computes no more than those that change.

Hidden states between blocks are (slots, tokens per slot, width); in a clean pass (1, tokens, width).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from engine.row import Row, Site
from engine.visit import Visit
from models.far.past import Past
from models.far.times import Condition
from models.wan.blocks import Text, finish_block, head, heads, rotate
from models.wan.branch import modulated, modulation, through

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]  # block, queries, keys, values -> result


def step(
    model: Any,
    latents: Tensor,
    when: Condition,
    text: Text,
    past: Past,
    chunk: int,
    rotary: Tensor,
    visit: Visit | None = None,
    branch: str = "",
) -> Tensor:
    """The velocity (slots, C, H, W) of `chunk` at `latents` (slots, C, H, W), in the model's dtype.

    `rotary` (slots, tokens, head width / 2) are the rotations of its slots.
    """
    h, flat = embedded(model.patch_embedding, latents), rotary.flatten(0, 1)
    start, pieces = past.denoised(chunk)

    def attend(block: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return past.attend((branch, block), start, pieces, rotate(q, flat), rotate(k, flat), v)

    h = _through_blocks(model.blocks, h, when, text, attend, visit, branch)
    return head(model, h, when.time, latents.shape)


def clean(
    model: Any,
    latents: Tensor,
    when: Condition,
    text: Text,
    past: Past,
    chunk: int,
    rotary: tuple[Tensor, Tensor],
    branch: str,
    whole: bool = False,
) -> None:
    """Compute and store the keys and values that change when `chunk` is finished; with `whole` those of all chunks.

    `latents` (slots, C, H, W) and `rotary` (in full, in compressed form) are those of the whole video.
    """
    far, near = (past.chunks.slots(part.start, part.stop) for part in past.chunks.renewed(chunk, whole))
    small = embedded(model.far_patch_embedding, latents[far.start : far.stop]) if far else None
    full = embedded(model.patch_embedding, latents[near.start : near.stop])
    h = torch.cat([part.flatten(0, 1) for part in (small, full) if part is not None])[None]
    turn = torch.cat([rotary[1][far.start : far.stop].flatten(0, 1), rotary[0][near.start : near.stop].flatten(0, 1)])
    start, pieces = past.cleaned(chunk, whole)

    def attend(block: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return past.attend((branch, block), start, pieces, rotate(q, turn), rotate(k, turn), v)

    last = len(model.blocks) - 1
    h = _through_blocks(model.blocks[:last], h, when, text, attend, None, branch)
    block = model.blocks[last]  # only its keys and values are wanted
    table = modulation(block, when.blocks)
    z, attn = modulated(block.norm1, h, table[:, 1], table[:, 0]), block.attn1
    k = rotate(heads(attn.norm_k(attn.to_k(z)), attn.heads), turn)
    past.store((branch, last), start, k, heads(attn.to_v(z), attn.heads))


def embedded(patch: Any, latents: Tensor) -> Tensor:
    """`latents` (slots, C, H, W) after the layer `patch`, (slots, tokens, width)."""
    x = patch(latents.transpose(0, 1)[None])
    hidden: Tensor = x.flatten(3)[0].permute(1, 2, 0).contiguous()  # later sums keep this memory layout
    return hidden


def _through_blocks(
    blocks: Sequence[Any], h: Tensor, when: Condition, text: Text, attend: Attend, visit: Visit | None, branch: str
) -> Tensor:
    """The hidden states after all `blocks`. With `visit`, each span of blocks that its method names is a site."""

    def run(i: int, h: Tensor) -> Tensor:
        table = modulation(blocks[i], when.blocks)
        h = _attend_to_video(blocks[i], i, h, table, partial(attend, i), visit, branch)
        return finish_block(blocks[i], i, h, table, text, visit, branch, own=True)

    i = 0
    while i < len(blocks):
        stop = visit.stop("blocks", i) if visit else None
        if visit is None or stop is None:
            h = run(i, h)
            i += 1
            continue

        def compute(h: Tensor, parts: Sequence[Row], span: range = range(i, stop)) -> Tensor:
            for j in span:
                h = run(j, h)
            return h

        h = visit(Site("blocks", range(i, stop), branch), h, compute)
        i = stop
    return h


def _attend_to_video(
    block: Any, number: int, h: Tensor, table: Tensor, attend: Callable[..., Tensor], visit: Visit | None, branch: str
) -> Tensor:
    """The first branch of a block: self-attention. `h` is not written to, because it may be the input of a site."""
    shift, scale, gate = table[:, :3].unbind(1)

    def self_attention(h: Tensor, parts: Sequence[Row]) -> Tensor:
        z, attn = modulated(block.norm1, h, scale, shift), block.attn1
        flat = z.reshape(1, -1, z.shape[-1])
        q, k = heads(attn.norm_q(attn.to_q(flat)), attn.heads), heads(attn.norm_k(attn.to_k(flat)), attn.heads)
        out = attend(q, k, heads(attn.to_v(flat), attn.heads))
        result: Tensor = attn.to_out[0](out.transpose(1, 2).flatten(2)).view_as(z)
        return result

    return through("attention", number, h, gate, self_attention, visit, branch, own=False)
