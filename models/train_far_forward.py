"""Training windows of the small AnyFlow-FAR model, and its class's own training forward on a CPU.

`AnyFlowFARTransformer3DModel.forward` without a cache is the training forward of FAR (arXiv 2503.19325): the last
`full_chunk_limit` chunks are noisy, each sees the clean copies of earlier chunks, and still earlier ones are clean and
compressed. Its attention has no gradient on a CPU (flex_attention), so the attention is computed here with a dense mask
of the same rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AnyFlowFARTransformer3DModel
from diffusers.models.transformers.transformer_anyflow_far import AnyFlowAttention
from torch import Tensor, nn
from torch.nn.attention.flex_attention import create_mask

from models.train_flow import attend

TIMES = 1000  # the model reads 1000 times the noise level


@dataclass(frozen=True)
class Window:
    """Clean latents of the first chunks of some videos, with their text."""

    clean: Tensor  # (B, F, C, h, w), what the model sees of the past
    chunks: tuple[int, ...]  # latent frames of each chunk; the sum is F
    text: Tensor  # (B, L, D) embeddings
    text_bias: Tensor  # (B, 1, 1, L), added to the scores of the text tokens


class CausalAttention:
    """The self-attention of a block with a dense bias instead of flex_attention's block mask."""

    def __call__(
        self,
        attn: AnyFlowAttention,
        hidden_states: Tensor,
        attention_mask: Tensor,
        rotary_emb: dict[str, Tensor],
        **_: Any,
    ) -> Tensor:
        turns = rotary_emb["query"].to(torch.complex64).transpose(1, 2)  # (1, N, 1, d / 2)
        return attend(attn, hidden_states, hidden_states, attention_mask, turns)


class TextAttention:
    """The cross-attention of a block with a bias on the scores of the text tokens, set before every forward."""

    bias: Tensor | None = None

    def __call__(
        self, attn: AnyFlowAttention, hidden_states: Tensor, encoder_hidden_states: Tensor, **_: Any
    ) -> Tensor:
        return attend(attn, hidden_states, encoder_hidden_states, self.bias, None)


class Trainee(nn.Module):
    """The transformer with attention that has a gradient on a CPU. `model` holds the weights."""

    def __init__(self, model: AnyFlowFARTransformer3DModel) -> None:
        super().__init__()
        self.model = model
        self.text_attention = TextAttention()
        self.masks: dict[tuple[Any, ...], Tensor] = {}
        for block in model.blocks:
            block.attn1.set_processor(CausalAttention())
            block.attn2.set_processor(self.text_attention)

    def bias(self, chunks: tuple[int, ...], size: tuple[int, int]) -> Tensor:
        """The score bias (N, N), 0 or -inf, of the class's own mask for a window with clean copies."""
        key = (chunks, size)
        if key not in self.masks:
            mask = self.model.build_attention_mask(
                chunk_partition=list(chunks), height=size[0], width=size[1], has_clean_context=True, device="cpu"
            )
            tokens = self._tokens(chunks, size)
            rows, columns = mask.seq_lengths
            allowed = create_mask(mask.mask_mod, None, None, rows, columns, "cpu")[0, 0, :tokens, :tokens]
            self.masks[key] = torch.zeros(allowed.shape).masked_fill(~allowed, -torch.inf)
        return self.masks[key]

    def learned(self, chunks: tuple[int, ...]) -> tuple[int, ...]:
        """The chunks at the end of a window that are noisy and in full resolution."""
        return chunks[-self.model.config.full_chunk_limit :]

    def velocity(self, window: Window, noisy: Tensor, t: Tensor, r: Tensor) -> Tensor:
        """The mean velocity, noise minus data, from the noise level `t` to `r` (equal: the velocity at `t`).

        `noisy` is (B, f, C, h, w) for the f frames of the learned chunks; `t` and `r` are (B, f) in [0, 1]. Returns the
        shape of `noisy`.
        """
        past = window.clean.shape[1] - noisy.shape[1]
        told = [torch.cat([level.new_zeros(len(level), past), level], 1) * TIMES for level in (t, r)]
        self.text_attention.bias = window.text_bias
        return self.model(
            hidden_states=torch.cat([window.clean[:, :past], noisy], 1),
            timestep=told[0],
            r_timestep=told[1],
            encoder_hidden_states=window.text,
            chunk_partition=list(window.chunks),
            clean_hidden_states=window.clean[:, past:],
            clean_timestep=torch.zeros_like(t),
            attention_mask=self.bias(window.chunks, (noisy.shape[-2], noisy.shape[-1])),
            return_dict=False,
        )[0]

    def _tokens(self, chunks: tuple[int, ...], size: tuple[int, int]) -> int:
        """The number of tokens of a window: compressed past, noisy chunks and their clean copies."""
        count = lambda patch: (size[0] // patch[1]) * (size[1] // patch[2])  # noqa: E731
        full = sum(self.learned(chunks))
        config = self.model.config
        return (sum(chunks) - full) * count(config.compressed_patch_size) + 2 * full * count(config.patch_size)
