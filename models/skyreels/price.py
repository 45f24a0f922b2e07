"""FLOPs of one forward, taken apart into what grows with its slots, with what they see, and with neither.

2 FLOP per multiply-add, denoiser only, what the stock forward executes (its text projections included, although ours
are computed once per video). torch counts them on the meta device, for forwards of one and two slots and of no and one
block; the rest is arithmetic, in whole numbers. A test holds it against what torch counts as the model runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from engine.ledger import Entry
from engine.method import Method
from engine.row import Decision, Mode, Row, Site
from engine.visit import Visit
from models.skyreels.checkpoint import on_meta
from models.skyreels.forward import condition, forward, read_text
from models.skyreels.settings import SPATIAL, SkyReels

Span = tuple[int, int]  # slots [first, last + 1)


@dataclass(frozen=True)
class Forward:
    """FLOPs of one guidance branch: the whole, each block, and each branch of a block (the rest of it is free)."""

    whole: float
    block: float
    attention: float
    feed_forward: float

    @property
    def cross_attention(self) -> float:
        return self.block - self.attention - self.feed_forward


@dataclass(frozen=True)
class Costs:
    """What a forward is made of. Of each slot, or once a forward; of the ends around the blocks, or of one block."""

    ends_once: float  # text embedding, frame rate
    ends: float
    text_once: float  # the block's keys and values of the text
    cross_attention: float
    projections: float  # of self-attention: queries, keys, values, output
    feed_forward: float
    pair: float  # self-attention of one slot to one slot

    def branch(self, kind: str, slots: int, pairs: int) -> float:
        """What `slots` cost in one block, or in one branch of it; they see `pairs` (slot, slot) in all."""
        each = {
            "attention": slots * self.projections + pairs * self.pair,
            "cross_attention": slots * self.cross_attention,
            "feed_forward": slots * self.feed_forward,
        }
        return sum(each.values()) if kind == "blocks" else each[kind]


@dataclass
class _Without(Method):
    """Leaves out one branch of the first block, to see what it costs."""

    kind: str

    def sites(self, depth: int, row: Row) -> Sequence[Site]:
        return (Site(self.kind, range(1)),)

    def fill(self, site: Site, part: Row, mode: Mode, x: Tensor) -> Tensor:
        return x


class Price:
    """Prices of a model's forwards by the slots that run and those that they see."""

    def __init__(self, settings: SkyReels) -> None:
        self.settings = settings
        self.model = on_meta(settings)
        self.depth = len(self.model.blocks)

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())

    def of(self, slots: int, causal_block: int) -> Forward:
        """One branch's forward of `slots` latents and nothing else; `causal_block` 0 is full attention."""
        pairs, costs = _pairs((0, slots), (0, slots), causal_block), self.costs
        block = costs.text_once + costs.branch("blocks", slots, pairs)
        whole = costs.ends_once + slots * costs.ends + self.depth * block
        kinds = ("attention", "feed_forward")
        attention, feed_forward = (costs.branch(kind, slots, pairs) for kind in kinds)
        return Forward(whole, block, attention, feed_forward)

    def iteration(self, entries: Sequence[Entry]) -> tuple[float, float]:
        """(dense, masked) FLOPs of the decisions of one iteration."""
        dense = masked = 0.0
        for branch, own in groupby(entries, key=lambda entry: entry.branch):
            lines, times = list(own), 1 if branch else len(self.settings.branches)
            dense += times * self._forward(lines, 0)
            masked += times * self._forward(lines, self.settings.block)
        probed = sum(self._probe(signal) for entry in entries for signal in entry.probes)
        return dense + probed, masked + probed

    def _probe(self, signal: str) -> float:
        """A signal measured on the row's slots; those of the timesteps alone are a table, made once per model."""
        name, _, span = signal.partition(" ")
        if name != "patch_embedding":
            return 0.0
        config, (start, stop) = self.model.config, (int(slot) for slot in span.split(":"))
        width = config.num_attention_heads * config.attention_head_dim
        pixels = (self.settings.height // SPATIAL) * (self.settings.width // SPATIAL)  # each is in one patch
        return 2.0 * (stop - start) * pixels * config.patch_size[0] * config.in_channels * width

    def _forward(self, entries: Sequence[Entry], causal_block: int) -> float:
        """One guidance branch of one iteration: a forward, and one before it of what is computed to be kept."""
        total, passed, texts = 0.0, False, set[int]()  # the blocks that read the text
        for entry in entries:
            seen = entry.seen if entry.seen[1] else entry.slots
            runs = [(entry.slots, entry.sites), *((idle, ()) for idle in entry.idle)]
            for slots, sites in runs[1:] if {"velocity", "guidance"} & set(entry.sites) else runs:
                cost, read = self._part(slots, seen, causal_block, sites)
                total, passed, texts = total + cost, True, texts | read
            if entry.kept[1]:
                cost, read = self._part(entry.kept, (seen[0], entry.kept[1]), causal_block, ())
                total += cost + self.costs.ends_once + len(read) * self.costs.text_once
        return total + passed * self.costs.ends_once + len(texts) * self.costs.text_once

    def _part(self, slots: Span, seen: Span, causal_block: int, sites: Sequence[str]) -> tuple[float, set[int]]:
        """What the slots add to a forward that leaves out `sites` for them, and the blocks in which they read text."""
        count, pairs = slots[1] - slots[0], _pairs(slots, seen, causal_block)
        cost = count * self.costs.ends + self.depth * self.costs.branch("blocks", count, pairs)
        read = set(range(self.depth))
        for site in sites:
            kind, _, span = site.partition(" ")
            if kind not in ("blocks", "attention", "cross_attention", "feed_forward"):
                raise ValueError(f"no price for a stand-in at {site!r}")
            start, stop = (int(number) for number in span.split(":"))
            cost -= (stop - start) * self.costs.branch(kind, count, pairs)
            if kind in ("blocks", "cross_attention"):
                read -= set(range(start, stop))
        return cost, read

    @cached_property
    def costs(self) -> Costs:
        """From counts at one and two slots: what grows with the slots, with their square, and what is left."""
        ends, one = ([self._count(slots, depth) for slots in (1, 2)] for depth in (0, 1))
        attention = [one[n] - self._count(n + 1, 1, "attention") for n in (0, 1)]
        feed_forward = one[0] - self._count(1, 1, "feed_forward")
        pair = (attention[1] - 2 * attention[0]) / 2  # attention of n slots: n projections + n^2 pairs
        rest = [one[n] - ends[n] - attention[n] - (n + 1) * feed_forward for n in (0, 1)]
        return Costs(
            ends_once=2 * ends[0] - ends[1],
            ends=ends[1] - ends[0],
            text_once=2 * rest[0] - rest[1],
            cross_attention=rest[1] - rest[0],
            projections=attention[0] - pair,
            feed_forward=feed_forward,
            pair=pair,
        )

    def _count(self, slots: int, depth: int, without: str = "") -> float:
        model, settings = self.model, self.settings
        row = Row(0, 0, range(slots), 1, (0,) * slots, (1.0,) * slots, (0.0,) * slots, (True,) * slots, slots)
        visit = Visit(_Without(without), row, depth, {"": [(row, Decision(Mode.CACHE))]}) if without else None
        with torch.device("meta"), torch.inference_mode(), FlopCounterMode(display=False) as counter:
            latents = torch.empty(
                slots, model.config.in_channels, settings.height // SPATIAL, settings.width // SPATIAL
            )
            text = read_text(model, torch.empty(1, settings.text_length, model.config.text_dim), depth)
            when = condition(model, torch.empty(slots, dtype=torch.int64), settings.fps, torch.float32)
            forward(model, latents, when, text, visit, depth=depth)
        return float(counter.get_total_flops())


def _pairs(slots: Span, seen: Span, causal_block: int) -> int:
    """How many (slot, slot seen) attention covers: all of `seen`, or none past the end of a slot's own block."""
    if not causal_block:
        return (slots[1] - slots[0]) * (seen[1] - seen[0])
    ends = ((slot // causal_block + 1) * causal_block for slot in range(*slots))
    return sum(min(end, seen[1]) - seen[0] for end in ends)
