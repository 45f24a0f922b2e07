"""Train the tiny transformer and its text encoder: flow matching with a noise level of its own per latent frame.

The training covers the schedules of SkyReels-V2's diffusion forcing (arXiv 2504.13074, section 3.3): the synchronous
one, the staircase, in which each block lags behind the block before it, and both after a clean prefix.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import SkyReelsV2Transformer3DModel
from diffusers.models.normalization import RMSNorm
from diffusers.models.transformers.transformer_anyflow_far import AnyFlowAttention
from diffusers.models.transformers.transformer_skyreels_v2 import SkyReelsV2Attention
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

from models.shapes import BACKGROUNDS, COLOURS, DIRECTIONS, SHAPES, Spec, caption
from models.train_loop import fit

BLOCK = 5  # latent frames of a block
TEXT_LENGTH = 512  # number of tokens to which inference pads every prompt


@dataclass(frozen=True)
class Noise:
    """The noise of a batch of windows."""

    sigma: Tensor  # (B, F) in [0, 1]; larger is noisier
    timestep: Tensor  # (B, F) int64 in 0..999, the input of the model
    weight: Tensor  # (B, F), 1 if the frame is being denoised, else 0
    prefix: Tensor  # (B,) bool, whether the window starts with a clean block


def shifted(sigma: Tensor, shift: Tensor) -> Tensor:
    """The flow shift. A shift above 1 moves noise levels in [0, 1] towards 1."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def draw_noise(batch: int, blocks: int, generator: torch.Generator) -> Noise:
    """Random noise levels as in the schedules.

    55 % of the windows have the levels of a staircase (most with a lag of 5 rows in 50 steps), 25 % have one level for
    all blocks, and 20 % have independent levels. 35 % start with a clean block (timestep 0, or 20 as with
    `addnoise_condition=20`).
    """
    rand = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    kind, index = rand(batch, 1), torch.arange(blocks)
    prefix = rand(batch) < 0.35
    position = (index - prefix[:, None].long()).clamp_min(0)  # index of a block, without the prefix
    lag = torch.where(kind < 0.42, torch.tensor(0.1), torch.where(kind < 0.55, 0.02 + 0.4 * rand(batch, 1), 0.0))
    progress = rand(batch, 1) * (1 + lag * position.max(1, keepdim=True).values) - lag * position
    progress = torch.where(kind >= 0.8, rand(batch, blocks), progress)
    active = (progress >= 0) & (progress < 1)
    sigma = shifted(1 - progress.clamp(0, 1), 3 + 5 * rand(batch, 1))
    told = (1000 * sigma).floor().clamp(0, 999)
    first = prefix[:, None] & (index == 0)
    noised = (rand(batch, 1) < 0.6).float()
    sigma = torch.where(first, 0.02 * noised, sigma)
    told = torch.where(first, 20 * noised, told).long()
    weight = (active & ~first).float()
    spread = lambda x: x.repeat_interleave(BLOCK, 1)  # noqa: E731
    return Noise(spread(sigma), spread(told), spread(weight), prefix)


def embed_prompts(
    tokenizer: PreTrainedTokenizerFast, encoder: UMT5EncoderModel, texts: list[str], length: int = TEXT_LENGTH
) -> tuple[Tensor, Tensor]:
    """Embeddings (B, L+1, D) and attention bias (B, 1, 1, L+1), equal to prompts padded with zeros to `length` tokens.

    All padding tokens are equal. One padding token with the logarithm of their number added to its score gives the same
    softmax.
    """
    tokens = tokenizer(texts, padding=True, truncation=True, max_length=length, return_tensors="pt")
    mask = tokens.attention_mask
    hidden = encoder(tokens.input_ids, attention_mask=mask).last_hidden_state * mask[..., None]
    hidden = torch.cat([hidden, torch.zeros_like(hidden[:, :1])], 1)
    padding = (length - mask.sum(1, keepdim=True)).float().log()
    bias = torch.cat([torch.zeros(mask.shape).masked_fill(mask == 0, -math.inf), padding], 1)
    return hidden, bias[:, None, None]


def rotate(x: Tensor, turns: Tensor) -> Tensor:
    """The rotary embedding of (B, N, heads, d): each pair of adjacent channels is multiplied by a complex number."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turns).flatten(-2).to(x.dtype)


def rms_norm(norm: nn.RMSNorm | RMSNorm, x: Tensor) -> Tensor:
    """The norm over the last axis in the precision of `x`, so that PyTorch uses its fused kernel under autocast."""
    weight = norm.weight
    assert weight is not None, "the norms of these models have a weight"
    return F.rms_norm(x, tuple(weight.shape), weight.to(x.dtype), norm.eps)


def attend(
    attn: SkyReelsV2Attention | AnyFlowAttention, x: Tensor, context: Tensor, bias: Tensor | None, turns: Tensor | None
) -> Tensor:
    """The attention of a transformer block, for batches with a bias on the scores.

    It is written out because on a CPU in bfloat16 it takes half the time of the fused kernel, forward and backward.
    """
    q = rms_norm(attn.norm_q, attn.to_q(x)).unflatten(2, (attn.heads, -1))
    k = rms_norm(attn.norm_k, attn.to_k(context)).unflatten(2, (attn.heads, -1))
    v = attn.to_v(context).unflatten(2, (attn.heads, -1))
    if turns is not None:
        q, k = rotate(q, turns), rotate(k, turns)
    with torch.autocast("cpu", enabled=False):
        scores = (q * q.shape[-1] ** -0.5).transpose(1, 2) @ k.permute(0, 2, 3, 1)
        if bias is not None:
            scores = scores + bias.to(scores.dtype)
        out = torch.softmax(scores, -1) @ v.transpose(1, 2)
    return attn.to_out[0](out.transpose(1, 2).flatten(2))


def block_causal_bias(frames: int, tokens: int, block: int) -> Tensor:
    """The score bias (1, 1, N, N): frame i attends to frame j if the block of j is not after that of i."""
    index = torch.arange(frames).div(block, rounding_mode="floor").repeat_interleave(tokens)
    hidden = index[None, :] > index[:, None]
    return torch.zeros(hidden.shape).masked_fill(hidden, -math.inf)[None, None]


def velocity(
    model: SkyReelsV2Transformer3DModel,
    latents: Tensor,
    timestep: Tensor,
    text: Tensor,
    text_bias: Tensor | None = None,
    causal_block: int = 1,
) -> Tensor:
    """`SkyReelsV2Transformer3DModel.forward` (diffusion forcing, fps id 1) with the same submodules, for batches.

    diffusers' own forward is wrong for more than one sample if `inject_sample_info` is set: it repeats the fps term
    along the wrong dimension. `latents` is (B, C, F, H, W), `timestep` (B, F), `text` (B, L, D). `causal_block` above 1
    hides later blocks. Returns the velocity, noise minus data, in the shape of `latents`.
    """
    batch, _, frames, height, width = latents.shape
    _, p_h, p_w = model.config.patch_size
    rows, columns = height // p_h, width // p_w
    cos, sin = model.rope(latents)
    turns = torch.complex(cos[..., 0::2].float(), sin[..., 1::2].float())
    bias = block_causal_bias(frames, rows * columns, causal_block) if causal_block > 1 else None
    temb, modulation, text, _ = model.condition_embedder(timestep, text, None)
    modulation = modulation.unflatten(-1, (6, -1))
    if model.config.inject_sample_info:
        fps = model.fps_projection(model.fps_embedding(torch.ones(1, dtype=torch.long)))
        modulation = modulation + fps.view(1, 1, 6, -1)
    x = model.patch_embedding(latents).flatten(2).transpose(1, 2)
    by_frame = lambda y: y.unflatten(1, (frames, -1))  # noqa: E731
    for block in model.blocks:
        e = (block.scale_shift_table[:, None] + modulation)[..., None, :]  # (B, F, 6, 1, D)
        y = (by_frame(block.norm1(x)) * (1 + e[:, :, 1]) + e[:, :, 0]).flatten(1, 2)
        x = x + (by_frame(attend(block.attn1, y, y, bias, turns)) * e[:, :, 2]).flatten(1, 2)
        x = x + attend(block.attn2, block.norm2(x), text, text_bias, None)
        y = (by_frame(block.norm3(x)) * (1 + e[:, :, 4]) + e[:, :, 3]).flatten(1, 2)
        x = x + (by_frame(block.ffn(y)) * e[:, :, 5]).flatten(1, 2)
    head = model.scale_shift_table + temb[:, :, None]  # (B, F, 2, D)
    x = by_frame(model.norm_out(x)) * (1 + head[:, :, 1:]) + head[:, :, :1]
    x = model.proj_out(x).view(batch, frames, rows, columns, p_h, p_w, -1)
    return x.permute(0, 6, 1, 2, 4, 3, 5).reshape(batch, -1, frames, height, width)


def loosen(text: str, generator: torch.Generator) -> str:
    """A variation of the caption: one in ten words that name no property is dropped or becomes unknown."""
    kept = []
    for word in text.split():
        chance = float(torch.rand(1, generator=generator))
        names = word in COLOURS or word in SHAPES or word in DIRECTIONS or word in BACKGROUNDS
        if names or chance >= 0.1:
            kept.append(word)
        elif chance < 0.05:
            kept.append("<unk>")
    return " ".join(kept)


def draw_windows(latents: Tensor, frames: int, noise: Noise, generator: torch.Generator) -> tuple[Tensor, list[int]]:
    """Windows of random videos, and the indices of the videos. A window with a prefix starts after the first frame."""
    chosen = torch.randint(len(latents), (len(noise.prefix),), generator=generator)
    later = torch.randint(1, latents.shape[2] - frames + 1, chosen.shape, generator=generator) * noise.prefix
    windows = [latents[i, :, j : j + frames] for i, j in zip(chosen.tolist(), later.tolist(), strict=True)]
    return torch.stack(windows).float(), chosen.tolist()


def train_flow(
    transformer: SkyReelsV2Transformer3DModel,
    encoder: UMT5EncoderModel,
    tokenizer: PreTrainedTokenizerFast,
    latents: Tensor,
    specs: list[Spec],
    *,
    frames: int,
    batch: int,
    causal: float,
    drop_text: float,
    bfloat16: bool,
    seed: int,
    **training: Any,
) -> None:
    """Train transformer and text encoder together, in place, on `latents` (N, 16, at least frames+1, h, w) of `specs`.

    `causal` is the share of batches with the block-causal mask, `drop_text` the share of empty prompts (for guidance).
    `training` are steps, lr, decay, checkpoint_every and work, see `train_loop.fit`.
    """

    def loss_of(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        noise = draw_noise(batch, frames // BLOCK, generator)
        data, chosen = draw_windows(latents, frames, noise, generator)
        dropped = torch.rand(batch, generator=generator) < drop_text
        texts = ["" if drop else loosen(caption(specs[i]), generator) for i, drop in zip(chosen, dropped, strict=True)]
        sample = torch.randn(data.shape, generator=generator)
        sigma = noise.sigma[:, None, :, None, None]
        block = BLOCK if float(torch.rand(1, generator=generator)) < causal else 1
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            text, bias = embed_prompts(tokenizer, encoder, texts)
            noisy = (1 - sigma) * data + sigma * sample
            found = velocity(transformer, noisy, noise.timestep, text, bias, block)
        error = (found.float() - (sample - data)).square().mean((1, 3, 4))
        return (error * noise.weight).sum() / noise.weight.sum().clamp_min(1)

    modules: dict[str, nn.Module] = {"transformer": transformer, "text_encoder": encoder}
    fit("flow", modules, loss_of, warmup=100, weight_decay=0.01, **training)
