"""What a forward of MAGI-1 costs: 2 FLOPs per multiply-add, the transformer only.

A chunk pass of the published model (5,400 tokens) takes 43.9 TFLOP in its linear layers and 12.2 TFLOP for every chunk
it sees. Norms, gates' activations and rotations are not counted, as usual.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.ledger import Entry
from engine.method import Mode

from .config import ModelConfig, RuntimeConfig
from .dispatch import BRANCHES
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


def branch_flops(
    config: ModelConfig,
    settings: RuntimeConfig,
    forward: Forward,
    branch: str,
    text: int,
    chunks: Sequence[int] | None = None,
) -> float:
    """One guidance pass of a forward, with the refresh and the duplicate that travel along.

    Args:
        branch: one of `BRANCHES`.
        text: caption tokens of a generated chunk, special tokens included.
        chunks: which of those in flight are computed; all by default.
    """
    tokens, null = tokens_per_chunk(config, settings), CaptionEmbedder.null_tokens
    chosen = list(forward.chunks) if chunks is None else sorted(chunks)
    seen = [1 if branch == "none" else visible_chunks(forward, chunk) for chunk in chosen]
    texts = [text if branch == "cond" else null] * len(chosen)
    if branch == "cond" and forward.duplicate and forward.chunks.start in chosen:
        seen, texts = [*seen, 1], [*texts, text]
    writer = "cond" if settings.cfg_number == 1 else "past"  # runs for a refresh even if no chunk is computed
    if forward.refresh is not None and (branch == writer or (branch == "cond" and chosen)):
        seen, texts = [forward.seen(forward.refresh_visible), *seen], [null, *texts]
    return call_flops(config, tokens, seen, texts, settings.distill) if seen else 0.0


def visible_chunks(forward: Forward, chunk: int) -> int:
    """How many chunks a chunk in flight attends to, itself included."""
    return forward.seen(forward.visible[chunk - forward.chunks.start])


def forward_flops(
    config: ModelConfig, settings: RuntimeConfig, forward: Forward, text: int, chunks: Sequence[int] | None = None
) -> float:
    """One forward of the pipeline with all its guidance passes; arguments as for `branch_flops`."""
    branches = BRANCHES[settings.cfg_number]
    return sum(branch_flops(config, settings, forward, branch, text, chunks) for branch in branches)


def cache_bytes(config: ModelConfig, settings: RuntimeConfig, plan: Schedule) -> int:
    """Keys and values held at once: 7.5 GB at the published configuration (240 frames, 480×480, the whole history)."""
    row = tokens_per_chunk(config, settings) * config.num_query_groups * 2 * config.kv_channels * config.dtype.itemsize
    return config.num_layers * plan.held_chunks * row


def video_flops(config: ModelConfig, settings: RuntimeConfig, plan: Schedule, text: int = 40) -> float:
    """Every forward of a video, nothing skipped; a prefix's own pass is left out, as is everything but the transformer.

    The published configuration (240 frames, 480×480, 64 steps, distilled) gives 80.98 PFLOP with the whole history
    visible and 61.05 with the default ranges.
    """
    return sum(forward_flops(config, settings, forward, text) for forward in plan.forwards)


class Price:
    """Prices a run's ledger, one iteration at a time.

    Args:
        text: caption tokens, special ones included, that a generated chunk is taken to see.
    """

    def __init__(self, config: ModelConfig, settings: RuntimeConfig, plan: Schedule, text: int) -> None:
        self.config, self.settings, self.plan, self.text = config, settings, plan, text
        self.tokens = tokens_per_chunk(config, settings)

    def iteration(self, entries: Sequence[Entry]) -> float:
        """FLOPs of one iteration given all its ledger entries."""
        forward, total = self.plan.forwards[entries[0].iteration], 0.0
        for branch in BRANCHES[self.settings.cfg_number]:
            mine = [entry for entry in entries if entry.branch in ("", branch)]
            partly = [e for e in mine if e.mode is not Mode.RECOMPUTE and "velocity" not in e.sites]
            run = [e for e in mine if e.mode is Mode.RECOMPUTE] + partly
            chosen = [chunk for entry in run for chunk in self._chunks(entry)]
            total += branch_flops(self.config, self.settings, forward, branch, self.text, chosen)
            for entry in partly:
                total -= sum(self._saved(site, forward, branch, self._chunks(entry)) for site in entry.sites)
        return total

    def _chunks(self, entry: Entry) -> range:
        width = self.settings.chunk_width
        return range(entry.slots[0] // width, entry.slots[1] // width)

    def _saved(self, site: str, forward: Forward, branch: str, chunks: range) -> float:
        """What standing in at `site` for `chunks` saves of a pass."""
        kind, _, span = site.partition(" ")
        start, stop = (int(number) for number in span.split(":"))
        seen = [1 if branch == "none" else visible_chunks(forward, chunk) for chunk in chunks]
        if branch == "cond" and forward.chunks.start in chunks and self._skips_duplicate(forward):
            seen.append(1)
        if kind == "feed_forward":
            return (stop - start) * len(seen) * feed_forward_flops(self.config, self.tokens)
        cost = {"blocks": layer_flops, "attention": attention_flops}.get(kind)
        if cost is None:
            raise ValueError(f"no price for a stand-in at {site!r}")
        text = self.text if branch == "cond" else CaptionEmbedder.null_tokens
        return (stop - start) * sum(cost(self.config, self.tokens, n, text) for n in seen)

    def _skips_duplicate(self, forward: Forward) -> bool:
        """Whether a stand-in serves the duplicate too: not in its first forward, when it has no history."""
        if not forward.duplicate or forward.index == 0:
            return False
        before = self.plan.forwards[forward.index - 1]
        return before.duplicate and before.chunks.start == forward.chunks.start
