"""The MAGI-1 diffusion transformer, with the official state-dict keys (arXiv:2505.13211, Sec. 2).

A layer changes the hidden state h in two steps:

    h <- h + norm(gate_a · proj[self-attention | cross-attention])
    h <- h + norm(gate_m · MLP(h))

Self- and cross-attention run in parallel on the same normalised input. Each branch has one gate, applied before its
norm. Time acts on a layer only through the gates. Hidden states are chunk-first, (chunks, tokens per chunk, width), so
that a span of layers can be skipped for some chunks of a forward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache as once

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import Call, ParallelAttention
from .cache import KVCache, Range
from .config import ModelConfig
from .embed import CaptionEmbedder, OnePlusLayerNorm, Rope, TimeEmbedder

Blocks = Callable[[Tensor, Call], Tensor]
"""Applies all layers to hidden states (n, tokens, hidden); the result has the same shape."""

_FLOAT32 = ("x_embedder", "y_embedder", "t_embedder", "final_linear", "rope")
_FLOAT32_NORMS = ("q_layernorm", "k_layernorm", "self_attn_post_norm", "mlp_post_norm", "final_layernorm")


class Mlp(nn.Module):
    """The norm and the MLP of a layer, (n, tokens, hidden) -> same; SwiGLU if `gated_linear_unit`, else GELU."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layernorm_epsilon)
        self.gated = config.gated_linear_unit
        self.linear_fc1 = nn.Linear(config.hidden_size, (1 + self.gated) * config.ffn_hidden_size, bias=False)
        self.linear_fc2 = nn.Linear(config.ffn_hidden_size, config.hidden_size, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        inner = self.linear_fc1(self.layer_norm(hidden))
        if self.gated:
            gate, inner = inner.chunk(2, dim=-1)
            return self.linear_fc2(F.silu(gate) * inner)
        return self.linear_fc2(F.gelu(inner))


class Gates(nn.Module):
    """Condition (n, c) -> the gates of attention and MLP, each (n, hidden), in (-1, 1)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.proj = nn.Sequential(nn.Linear(config.condition_size, 2 * config.hidden_size))

    def forward(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        gates = torch.tanh(self.proj(F.silu(condition)).float()).to(condition.dtype)
        attention, mlp = gates.chunk(2, dim=-1)
        return attention, mlp


class Layer(nn.Module):
    """One transformer layer. `mix` and `mlp` are its branches before their gates; a method may skip either."""

    def __init__(self, config: ModelConfig, index: int, proj_precision: str, reference: bool) -> None:
        super().__init__()
        hidden, eps = config.hidden_size, config.layernorm_epsilon
        self.ada_modulate_layer = Gates(config)
        self.self_attention = ParallelAttention(config, index, proj_precision, reference)
        self.self_attn_post_norm = OnePlusLayerNorm(hidden, eps=eps)
        self.mlp = Mlp(config)
        self.mlp_post_norm = OnePlusLayerNorm(hidden, eps=eps)

    def gates(self, call: Call) -> tuple[Tensor, Tensor]:
        """The gates of the attention and of the MLP branch, each (n, hidden)."""
        return self.ada_modulate_layer(call.condition)

    def mix(self, hidden: Tensor, call: Call) -> Tensor:
        """The merged self- and cross-attention, (n, tokens, hidden); `self_attention` returns them separately."""
        return self.self_attention.merge(*self.self_attention(hidden, call))

    def gate_attention(self, mixed: Sequence[Tensor], gate: Tensor) -> Tensor:
        """The term that the attention branch adds, float32. `mixed` are results of `mix` or of a method, in order."""
        return self.self_attn_post_norm(gated(mixed, gate))

    def gate_mlp(self, inner: Sequence[Tensor], gate: Tensor) -> Tensor:
        """The term that the MLP branch adds, float32. `inner` are results of `mlp` or of a method, in order."""
        return self.mlp_post_norm(gated(inner, gate))

    def forward(self, hidden: Tensor, call: Call) -> Tensor:
        gate_attention, gate_mlp = self.gates(call)
        hidden = add(hidden, self.gate_attention([self.mix(hidden, call)], gate_attention))
        return add(hidden, self.gate_mlp([self.mlp(hidden)], gate_mlp))


def gated(pieces: Sequence[Tensor], gate: Tensor) -> Tensor:
    """`pieces`, each (some chunks, tokens, hidden), concatenated and times `gate` (n, hidden): float32."""
    gate = gate.float()[:, None]
    if len(pieces) == 1:
        return pieces[0].float() * gate
    out = torch.empty(len(gate), *pieces[0].shape[1:], device=gate.device)
    start = 0
    for piece in pieces:
        stop = start + len(piece)
        torch.mul(piece, gate[start:stop], out=out[start:stop])
        start = stop
    return out


def add(hidden: Tensor, increment: Tensor) -> Tensor:
    """The residual sum, computed in float32 in place of `increment`, returned in the dtype of `hidden`."""
    return increment.add_(hidden.float()).to(hidden.dtype)


class Stack(nn.Module):
    """The layers and the norm after them."""

    def __init__(self, config: ModelConfig, proj_precision: str, reference: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(config, i, proj_precision, reference) for i in range(config.num_layers))
        self.final_layernorm = OnePlusLayerNorm(config.hidden_size, eps=config.layernorm_epsilon)

    def forward(self, hidden: Tensor, call: Call) -> Tensor:
        for layer in self.layers:
            hidden = layer(hidden, call)
        return hidden


class FinalLinear(nn.Module):
    """The projection of hidden states to patches; a module of its own for the official state-dict keys."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.linear = nn.Linear(config.hidden_size, config.patch_size**2 * config.out_channels, bias=False)


class Magi1DiT(nn.Module):
    """The transformer: the velocity (clean minus noise) of some chunks of a video.

    Build it with `checkpoint.load_dit` or `checkpoint.random_dit`. Most weights have the dtype of hidden states; those
    that `stays_float32` names are float32. For `proj_precision` and `reference` see `ParallelAttention`.
    """

    def __init__(self, config: ModelConfig, proj_precision: str = "fp32", reference: bool = False) -> None:
        super().__init__()
        if proj_precision not in ("fp32", "tf32", "bf16"):
            raise ValueError(f"proj_precision={proj_precision!r}; choose fp32 (as released), tf32 or bf16 (faster)")
        self.config = config
        patch = (1, config.patch_size, config.patch_size)
        self.x_embedder = nn.Conv3d(config.in_channels, config.hidden_size, patch, patch, bias=False)
        self.t_embedder = TimeEmbedder(config.condition_size, config.dtype)
        self.y_embedder = CaptionEmbedder(
            config.caption_channels, config.caption_max_length, config.hidden_size, config.condition_size
        )
        self.rope = Rope(config.kv_channels)
        self.videodit_blocks = Stack(config, proj_precision, reference)
        self.final_linear = FinalLinear(config)

    @property
    def layers(self) -> nn.ModuleList:
        """The transformer layers, in order."""
        return self.videodit_blocks.layers

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.rope.bands.device

    def forward(
        self,
        latents: Tensor,
        times: Tensor,
        text: Sequence[Tensor],
        positions: Sequence[int],
        visible: Sequence[Range],
        slots: Sequence[int | None] | None = None,
        cache: KVCache | None = None,
        step_length: float | None = None,
        dropped: bool = False,
        blocks: Blocks | None = None,
    ) -> Tensor:
        """The velocity of every chunk, same shape as `latents`, float32.

        Args:
            latents: (n, C, chunk_width, h, w), float32.
            times: (n,) in [0, 1]; 0 is noise.
            text: n token embeddings (L, caption channels), L at least 1.
            positions: the chunks' numbers in the video, for the rotary embedding of time.
            visible: the range of chunks that each chunk attends to (see `Call`).
            slots: the cache entries that the chunks write; None: only itself, see `Call`. Defaults to `positions`.
            step_length: the distilled model's second time input; None for the base model.
            dropped: whether this is a pass without a caption.
            blocks: the function that runs instead of all layers.
        """
        slots = positions if slots is None else slots
        call = self.prepare(latents.shape, times, text, positions, visible, slots, cache, step_length, dropped)
        hidden = self.embed(latents, apart=all(slot is None for slot in slots))
        hidden = (blocks or self.videodit_blocks)(hidden, call)
        return self.finish(hidden, latents.shape)

    def prepare(
        self,
        shape: Sequence[int],
        times: Tensor,
        text: Sequence[Tensor],
        positions: Sequence[int],
        visible: Sequence[Range],
        slots: Sequence[int | None],
        cache: KVCache | None = None,
        step_length: float | None = None,
        dropped: bool = False,
    ) -> Call:
        """The inputs of the layers besides hidden states, for latents of `shape`; arguments as for `forward`."""
        _, _, chunk_width, h, w = shape
        height, width = h // self.config.patch_size, w // self.config.patch_size
        times = times.to(self.device)
        condition = self.t_embedder(times)
        if step_length is not None:
            condition = condition + self.t_embedder(torch.full_like(times, step_length))
        condition = condition + self.y_embedder.condition(dropped)
        captions = once(lambda: [self.y_embedder(tokens).to(self.config.dtype) for tokens in text])
        rotary = once(lambda: self.rope(positions, chunk_width, height, width))
        return Call(condition.to(self.config.dtype), captions, rotary, list(slots), list(visible), cache)

    def patches(self, latents: Tensor, apart: bool = False) -> Tensor:
        """The patch embedding of (n, C, cw, h, w) as (n, cw·(h/p)·(w/p), hidden), float32, without a forward.

        Chunks are convolved as one long video or, with `apart`, separately, as in the released code. The results differ
        in the last bit only.
        """
        latents = latents.to(self.x_embedder.weight.dtype) * self.config.x_rescale_factor
        if self.config.half_channel_vae:
            latents = torch.cat([latents, latents], 1)
        if apart:
            return self.x_embedder(latents).flatten(2).transpose(1, 2)
        grid = self.x_embedder(latents.transpose(0, 1).flatten(1, 2)[None])
        return grid.flatten(2)[0].T.unflatten(0, (len(latents), -1))

    def embed(self, latents: Tensor, apart: bool = False) -> Tensor:
        """The hidden states before the first layer, (n, tokens, hidden)."""
        return self.patches(latents, apart).to(self.config.dtype)

    def finish(self, hidden: Tensor, shape: Sequence[int]) -> Tensor:
        """The velocities of `shape` (n, C, cw, h, w), float32, from the hidden states after the last layer."""
        n, channels, cw, h, w = shape
        p = self.config.patch_size
        out = self.final_linear.linear(self.videodit_blocks.final_layernorm(hidden.float()))
        out = out.view(n, cw, h // p, w // p, p, p, self.config.out_channels)
        out = out.permute(0, 6, 1, 2, 4, 3, 5).reshape(n, -1, cw, h, w)
        return out[:, :channels] / self.config.x_rescale_factor


def stays_float32(name: str) -> bool:
    """Whether the parameter `name` is float32 for every dtype of hidden states.

    >>> stays_float32("x_embedder.weight"), stays_float32("videodit_blocks.layers.0.self_attention.q.weight")
    (True, False)
    """
    module = name.rsplit(".", 2)[-2]
    return name.split(".", 1)[0] in _FLOAT32 or module in _FLOAT32_NORMS
