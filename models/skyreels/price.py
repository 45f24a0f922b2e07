"""FLOPs of SkyReels-V2's forwards, 2 per multiply-add, denoiser only.

The FLOPs of a forward have three parts: one per slot, one per pair of slots in attention, and a constant one. They
follow from the sizes of the transformer, in whole numbers and without torch. Counted is what diffusers' forward
executes. This includes the text projections of every forward, although our forward computes them once per video. Tests
compare the result with torch's count of the model's class and of running models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from engine.ledger import Entry
from models.skyreels.settings import SkyReels
from models.skyreels.shape import Shape
from models.wan.settings import SPATIAL

Span = tuple[int, int]  # slots [first, last + 1)


@dataclass(frozen=True)
class Forward:
    """FLOPs of a forward of one guidance branch: the whole forward, each block, and each branch of a block."""

    whole: float
    block: float
    attention: float
    feed_forward: float

    @property
    def cross_attention(self) -> float:
        """FLOPs of the cross-attention of each block, the text's keys and values included."""
        return self.block - self.attention - self.feed_forward


@dataclass(frozen=True)
class Costs:
    """FLOPs of the parts of a forward. "ends" are the layers before the first and after the last block."""

    ends_once: float  # per forward: text embedding, frame rate
    ends: float  # per slot
    text_once: float  # per forward and block: keys and values of the text
    cross_attention: float  # per slot and block
    projections: float  # per slot and block: queries, keys, values and output of self-attention
    feed_forward: float  # per slot and block
    pair: float  # per block: self-attention of one slot to one slot

    def branch(self, kind: str, slots: int, pairs: int) -> float:
        """FLOPs of `slots` slots in one block or in one branch of it; attention covers `pairs` pairs of slots."""
        each = {
            "attention": slots * self.projections + pairs * self.pair,
            "cross_attention": slots * self.cross_attention,
            "feed_forward": slots * self.feed_forward,
        }
        return sum(each.values()) if kind == "blocks" else each[kind]


class Price:
    """FLOPs of a model's forwards, by the slots that are forwarded and the slots that they attend to."""

    def __init__(self, settings: SkyReels) -> None:
        self.settings = settings
        self.shape = Shape.of(settings)
        self.depth = self.shape.num_layers

    def of(self, slots: int, causal_block: int) -> Forward:
        """The forward of one guidance branch over `slots` slots without context; `causal_block` 0 is full attention."""
        pairs, costs = _pairs((0, slots), (0, slots), causal_block), self.costs
        block = costs.text_once + costs.branch("blocks", slots, pairs)
        whole = costs.ends_once + slots * costs.ends + self.depth * block
        kinds = ("attention", "feed_forward")
        attention, feed_forward = (costs.branch(kind, slots, pairs) for kind in kinds)
        return Forward(whole, block, attention, feed_forward)

    def iteration(self, entries: Sequence[Entry]) -> tuple[float, float]:
        """(dense, masked) FLOPs of one iteration, from its ledger entries. Raises ValueError for an unknown site."""
        dense = masked = 0.0
        for branch, own in groupby(entries, key=lambda entry: entry.branch):
            lines, times = list(own), 1 if branch else len(self.settings.branches)
            dense += times * self._forward(lines, 0)
            masked += times * self._forward(lines, self.settings.block)
        probed = sum(self._probe(signal) for entry in entries for signal in entry.probes)
        return dense + probed, masked + probed

    def _probe(self, signal: str) -> float:
        """FLOPs of a signal measured on the row's slots. Signals of the timesteps alone are a table and cost 0."""
        name, _, span = signal.partition(" ")
        if name != "patch_embedding":
            return 0.0
        shape, (start, stop) = self.shape, (int(slot) for slot in span.split(":"))
        pixels = (self.settings.height // SPATIAL) * (self.settings.width // SPATIAL)  # each is in one patch
        return 2.0 * (stop - start) * pixels * shape.patch_size[0] * shape.in_channels * shape.width

    def _forward(self, entries: Sequence[Entry], causal_block: int) -> float:
        """FLOPs of one guidance branch of one iteration, with the forward of context slots whose keys are stored."""
        total, passed, texts = 0.0, False, set[int]()  # the blocks that read the text
        for entry in entries:
            seen = entry.seen if entry.seen[1] else entry.slots
            runs = [(entry.slots, entry.sites, self._share(entry)), *((idle, (), 1.0) for idle in entry.idle)]
            for slots, sites, share in runs[1:] if {"velocity", "guidance"} & set(entry.sites) else runs:
                cost, read = self._part(slots, seen, causal_block, sites, share)
                total, passed, texts = total + cost, True, texts | read
            if entry.kept[1]:
                cost, read = self._part(entry.kept, (seen[0], entry.kept[1]), causal_block, ())
                total += cost + self.costs.ends_once + len(read) * self.costs.text_once
        return total + passed * self.costs.ends_once + len(texts) * self.costs.text_once

    def _share(self, entry: Entry) -> float:
        """The share of the tokens of its slots that a forward computed. They attend to all tokens."""
        return entry.tokens / self.tokens if entry.tokens else 1.0

    def _part(
        self, slots: Span, seen: Span, causal_block: int, sites: Sequence[str], share: float = 1.0
    ) -> tuple[float, set[int]]:
        """FLOPs that `slots` add to a forward that skips `sites` for them, and the blocks whose text keys they use.

        Blocks compute a `share` of the tokens; the layers before and after the blocks compute all.
        """
        count, pairs = slots[1] - slots[0], _pairs(slots, seen, causal_block)
        cost = count * self.costs.ends + share * self.depth * self.costs.branch("blocks", count, pairs)
        read = set(range(self.depth))
        for site in sites:
            kind, _, span = site.partition(" ")
            if kind not in ("blocks", "attention", "cross_attention", "feed_forward"):
                raise ValueError(
                    f"the FLOPs of a skipped site {site!r} are unknown; want blocks or a branch of a block"
                )
            start, stop = (int(number) for number in span.split(":"))
            cost -= share * (stop - start) * self.costs.branch(kind, count, pairs)
            if kind in ("blocks", "cross_attention"):
                read -= set(range(start, stop))
        return cost, read

    @cached_property
    def tokens(self) -> float:
        """Tokens per slot."""
        pixels = (self.settings.height // SPATIAL) * (self.settings.width // SPATIAL)
        return pixels * self.shape.patch_size[0] / self.shape.patch

    @cached_property
    def costs(self) -> Costs:
        """2 x inputs x outputs for every vector in a linear layer; of attention, the scores and the weighted values."""
        shape, text = self.shape, self.settings.text_length
        w, out = shape.width, shape.out_channels or shape.in_channels
        tokens = self.tokens
        time = shape.freq_dim * w + w * w + w * 6 * w
        rate = w * w + w * 6 * w if shape.inject_sample_info else 0
        return Costs(
            ends_once=2.0 * (text * (shape.text_dim * w + w * w) + rate),
            ends=2.0 * (tokens * w * shape.patch * (shape.in_channels + out) + time),
            text_once=2.0 * text * 2 * w * w,
            cross_attention=2.0 * tokens * (2 * w * w + 2 * text * w),
            projections=2.0 * tokens * 4 * w * w,
            feed_forward=2.0 * tokens * 2 * w * shape.ffn_dim,
            pair=2.0 * tokens * tokens * 2 * w,
        )


def _pairs(slots: Span, seen: Span, causal_block: int) -> int:
    """The number of pairs (slot, seen slot) of attention. With `causal_block`, none after the end of a slot's block."""
    if not causal_block:
        return (slots[1] - slots[0]) * (seen[1] - seen[0])
    ends = ((slot // causal_block + 1) * causal_block for slot in range(*slots))
    return sum(min(end, seen[1]) - seen[0] for end in ends)
