"""What a forward of MAGI-1 costs: 2 FLOPs per multiply-add, the transformer only.

A chunk pass of the published model (5,400 tokens) takes 43.9 TFLOP in its linear layers and 12.2 TFLOP for every chunk
it sees. Norms, gates' activations and rotations are not counted, as usual.
"""

from __future__ import annotations

from collections.abc import Sequence

from .config import ModelConfig, RuntimeConfig
from .embed import CaptionEmbedder
from .schedule import Forward, Schedule

_TIME_CHANNELS = 256


def tokens_per_chunk(config: ModelConfig, settings: RuntimeConfig) -> int:
    """Tokens of one chunk of a video of `settings`."""
    h, w = settings.latent_size
    return settings.chunk_width * (h // config.patch_size) * (w // config.patch_size)


def chunk_flops(config: ModelConfig, tokens: int, seen: int, text: int, distill: bool = True) -> float:
    """One chunk through the transformer.

    Args:
        tokens: tokens of a chunk.
        seen: chunks whose keys it attends to, itself included.
        text: caption tokens it attends to.
        distill: whether a step length is embedded beside the time.
    """
    return config.num_layers * layer_flops(config, tokens, seen, text) + _around(config, tokens, text, distill)


def layer_flops(config: ModelConfig, tokens: int, seen: int, text: int) -> float:
    """One chunk through one layer."""
    return attention_flops(config, tokens, seen, text) + feed_forward_flops(config, tokens)


def attention_flops(config: ModelConfig, tokens: int, seen: int, text: int) -> float:
    """One chunk through the attention branch of one layer: projections, self- and cross-attention, and the gates."""
    hidden, heads = config.hidden_size, config.attention_width
    groups = config.num_query_groups * config.kv_channels
    linear = tokens * hidden * (2 * heads + 2 * groups + 2 * heads)  # q and qx, k and v, the merge
    attention = 2 * tokens * (seen * tokens + text) * heads  # scores and their use
    captions = text * hidden * 2 * groups
    return 2.0 * (linear + attention + captions + config.condition_size * 2 * hidden)


def feed_forward_flops(config: ModelConfig, tokens: int) -> float:
    """One chunk through the MLP of one layer."""
    matrices = 3 if config.gated_linear_unit else 2
    return 2.0 * tokens * matrices * config.hidden_size * config.ffn_hidden_size


def _around(config: ModelConfig, tokens: int, text: int, distill: bool) -> float:
    """Embeddings and the final projection of one chunk."""
    hidden, condition, patch = config.hidden_size, config.condition_size, config.patch_size**2
    pixels = tokens * hidden * patch * (config.in_channels + config.out_channels)
    times = (2 if distill else 1) * condition * (_TIME_CHANNELS + condition)
    return 2.0 * (pixels + times + text * config.caption_channels * hidden)


def call_flops(
    config: ModelConfig, tokens: int, seen: Sequence[int], text: Sequence[int], distill: bool = True
) -> float:
    """One transformer call on several chunks; `seen` and `text` have one entry per chunk."""
    constant = 2.0 * config.caption_channels * config.condition_size  # the text's share of the condition
    return constant + sum(chunk_flops(config, tokens, k, n, distill) for k, n in zip(seen, text, strict=True))


def forward_flops(
    config: ModelConfig,
    settings: RuntimeConfig,
    forward: Forward,
    text: int,
    chunks: Sequence[int] | None = None,
) -> float:
    """One forward of the pipeline with its refresh, duplicate and guidance passes.

    Args:
        text: caption tokens of a generated chunk, special tokens included.
        chunks: which of those in flight are computed; all by default.
    """
    tokens = tokens_per_chunk(config, settings)
    chosen = list(forward.chunks) if chunks is None else sorted(chunks)
    spans = [forward.visible[chunk - forward.chunks.start] for chunk in chosen]
    seen = [stop - start for start, stop in spans]
    reads: list[int] = []
    if forward.refresh is not None:
        reads = [forward.refresh_visible[1] - forward.refresh_visible[0]]
    null = CaptionEmbedder.null_tokens

    def call(chunks_seen: list[int], texts: list[int]) -> float:
        return call_flops(config, tokens, chunks_seen, texts, settings.distill) if chunks_seen else 0.0

    if settings.cfg_number == 1:
        twin = [1] if forward.duplicate and forward.chunks.start in chosen else []
        return call(reads + seen + twin, [null] * len(reads) + [text] * len(seen + twin))
    cond = call(reads + seen, [null] * len(reads) + [text] * len(seen)) if seen else 0.0
    past = call(reads + seen, [null] * len(reads + seen))
    return cond + past + call([1] * len(seen), [null] * len(seen))


def video_flops(config: ModelConfig, settings: RuntimeConfig, plan: Schedule, text: int = 40) -> float:
    """Every forward of a video, nothing skipped; a prefix's own pass is left out, as is everything but the transformer.

    The published configuration (240 frames, 480×480, 64 steps, distilled) gives 80.98 PFLOP with the whole history
    visible and 61.05 with the default ranges.
    """
    return sum(forward_flops(config, settings, forward, text) for forward in plan.forwards)
