"""FLOPs of MAGI-1's forwards, 2 per multiply-add, transformer only.

In the published model a chunk (5,400 tokens) takes 43.9 TFLOP in the linear layers and 12.2 TFLOP for each chunk that
it attends to. Norms, activations and rotations are not counted, as usual.
"""

from __future__ import annotations

from collections.abc import Sequence

from .config import BRANCHES, NULL_TOKENS, ModelConfig, RuntimeConfig
from .schedule import Forward, Schedule

TIME_CHANNELS = 256  # the sines and cosines that times are embedded from


def tokens_per_chunk(config: ModelConfig, settings: RuntimeConfig) -> int:
    """The number of tokens of one chunk."""
    h, w = settings.latent_size
    return settings.chunk_width * (h // config.patch_size) * (w // config.patch_size)


def chunk_flops(config: ModelConfig, tokens: int, seen: int, text: int, distill: bool = True) -> float:
    """FLOPs of one chunk in the transformer.

    Args:
        tokens: tokens of a chunk.
        seen: number of chunks that it attends to, itself included.
        text: number of caption tokens that it attends to.
        distill: whether the step length is embedded in addition to the time.
    """
    return config.num_layers * layer_flops(config, tokens, seen, text) + _around(config, tokens, text, distill)


def layer_flops(config: ModelConfig, tokens: int, seen: int, text: int) -> float:
    """FLOPs of one chunk in one layer."""
    branches = attention_flops(config, tokens, seen, text) + feed_forward_flops(config, tokens)
    return branches + gates_flops(config)


def attention_flops(config: ModelConfig, tokens: int, seen: int, text: int) -> float:
    """FLOPs of one chunk in the attention branch of one layer: projections, self- and cross-attention."""
    hidden, heads = config.hidden_size, config.attention_width
    groups = config.num_query_groups * config.kv_channels
    linear = tokens * hidden * (2 * heads + 2 * groups + 2 * heads)  # q and qx, k and v, output projection
    attention = 2 * tokens * (seen * tokens + text) * heads  # scores and weighted sums
    captions = text * hidden * 2 * groups
    return 2.0 * (linear + attention + captions)


def gates_flops(config: ModelConfig) -> float:
    """FLOPs of both gates of one chunk in one layer. They are also computed if a method skips the branches."""
    return 2.0 * config.condition_size * 2 * config.hidden_size


def feed_forward_flops(config: ModelConfig, tokens: int) -> float:
    """FLOPs of one chunk in the MLP of one layer."""
    matrices = 3 if config.gated_linear_unit else 2
    return 2.0 * tokens * matrices * config.hidden_size * config.ffn_hidden_size


def _around(config: ModelConfig, tokens: int, text: int, distill: bool) -> float:
    """FLOPs of the embeddings and the final projection of one chunk."""
    last = 2.0 * tokens * config.hidden_size * config.patch_size**2 * config.out_channels
    return patches_flops(config, tokens) + last + times_flops(config, distill) + captions_flops(config, text)


def patches_flops(config: ModelConfig, tokens: int) -> float:
    """FLOPs of the patch embedding of one chunk."""
    return 2.0 * tokens * config.hidden_size * config.patch_size**2 * config.in_channels


def times_flops(config: ModelConfig, distill: bool) -> float:
    """FLOPs of the embeddings of one chunk's time and, with `distill`, of its step length."""
    return 2.0 * (2 if distill else 1) * config.condition_size * (TIME_CHANNELS + config.condition_size)


def captions_flops(config: ModelConfig, text: int) -> float:
    """FLOPs of the embedding of one chunk's text."""
    return 2.0 * text * config.caption_channels * config.hidden_size


def dropped_flops(config: ModelConfig) -> float:
    """FLOPs of the text's term in the condition, computed once per call."""
    return 2.0 * config.caption_channels * config.condition_size


def call_flops(
    config: ModelConfig, tokens: int, seen: Sequence[int], text: Sequence[int], distill: bool = True
) -> float:
    """FLOPs of one transformer call on several chunks; `seen` and `text` have one entry per chunk."""
    chunks = zip(seen, text, strict=True)
    return dropped_flops(config) + sum(chunk_flops(config, tokens, k, n, distill) for k, n in chunks)


def branch_flops(
    config: ModelConfig,
    settings: RuntimeConfig,
    forward: Forward,
    branch: str,
    text: int,
    chunks: Sequence[int] | None = None,
) -> float:
    """FLOPs of one guidance pass of a forward, its refresh and duplicate included.

    Args:
        branch: one of `BRANCHES`.
        text: caption tokens of a generated chunk, special tokens included.
        chunks: the chunks in flight that are computed; all by default.
    """
    tokens, null = tokens_per_chunk(config, settings), NULL_TOKENS
    chosen = list(forward.chunks) if chunks is None else sorted(chunks)
    seen = [1 if branch == "none" else visible_chunks(forward, chunk) for chunk in chosen]
    texts = [text if branch == "cond" else null] * len(chosen)
    if branch == "cond" and forward.duplicate and forward.chunks.start in chosen:
        seen, texts = [*seen, 1], [*texts, text]
    writer = "cond" if settings.cfg_number == 1 else "past"  # runs for a refresh even if no chunk is computed
    if forward.refresh is not None and (branch == writer or (branch == "cond" and chosen)):
        seen, texts = [forward.seen(forward.refresh_visible), *seen], [null, *texts]
    return call_flops(config, tokens, seen, texts, settings.distill) if seen else 0.0


def given_flops(config: ModelConfig, settings: RuntimeConfig, plan: Schedule) -> float:
    """FLOPs of the chunks that a prefix fills; they are computed once, before the first forward."""
    seen = [stop - start for start, stop in plan.given_visible]
    texts = [NULL_TOKENS] * len(seen)
    tokens = tokens_per_chunk(config, settings)
    return call_flops(config, tokens, seen, texts, settings.distill) if seen else 0.0


def visible_chunks(forward: Forward, chunk: int) -> int:
    """The number of chunks that a chunk in flight attends to, itself included."""
    return forward.seen(forward.visible[chunk - forward.chunks.start])


def forward_flops(
    config: ModelConfig, settings: RuntimeConfig, forward: Forward, text: int, chunks: Sequence[int] | None = None
) -> float:
    """FLOPs of one forward of the pipeline with all its guidance passes; arguments as for `branch_flops`."""
    branches = BRANCHES[settings.cfg_number]
    return sum(branch_flops(config, settings, forward, branch, text, chunks) for branch in branches)


def cache_bytes(config: ModelConfig, settings: RuntimeConfig, plan: Schedule) -> int:
    """Bytes of the key-value cache: 7.5 GB at the published settings (240 frames, 480×480, the whole history)."""
    row = tokens_per_chunk(config, settings) * config.num_query_groups * 2 * config.kv_channels * config.dtype.itemsize
    return config.num_layers * plan.held_chunks * row


def video_flops(config: ModelConfig, settings: RuntimeConfig, plan: Schedule, text: int = 40) -> float:
    """FLOPs of all forwards of a video, and of the chunks of a prefix, with nothing skipped.

    The published settings (240 frames, 480×480, 64 steps, distilled) give 80.98 PFLOP with attention to the whole
    history, and 61.05 PFLOP with the default ranges.
    """
    forwards = sum(forward_flops(config, settings, forward, text) for forward in plan.forwards)
    return given_flops(config, settings, plan) + forwards
