"""FLOPs of one forward, counted by torch on the meta device once per distinct shape.

2 FLOP per multiply-add, denoiser only, what the stock forward executes (its text projections included, although ours
are computed once per video). Blocks are alike, so a forward of depth 0 and one of depth 1 price them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from engine.ledger import Entry
from engine.method import Decision, Method, Mode, Row, Site
from engine.visit import Visit
from models.skyreels.checkpoint import on_meta
from models.skyreels.forward import condition, forward, read_text
from models.skyreels.settings import SPATIAL, SkyReels


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


@dataclass
class _Without(Method):
    """Leaves out one branch of the first block, to see what it costs."""

    kind: str

    def sites(self, depth: int, row: Row) -> Sequence[Site]:
        return (Site(self.kind, range(1)),)

    def fill(self, site: Site, part: Row, mode: Mode, x: Tensor) -> Tensor:
        return x


class Price:
    """Prices of a model's forwards by number of slots, under full and under block-causal attention."""

    def __init__(self, settings: SkyReels) -> None:
        self.settings = settings
        self.model = on_meta(settings)
        self.depth = len(self.model.blocks)
        self._known: dict[tuple[int, int], Forward] = {}

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())

    def of(self, slots: int, causal_block: int) -> Forward:
        """One branch's forward of `slots` latents; `causal_block` 0 is full attention."""
        key = (slots, causal_block)
        if key not in self._known:
            ends, one = (self._count(*key, depth=depth) for depth in (0, 1))
            attention, feed_forward = (one - self._count(*key, 1, kind) for kind in ("attention", "feed_forward"))
            self._known[key] = Forward(ends + self.depth * (one - ends), one - ends, attention, feed_forward)
        return self._known[key]

    def iteration(self, entries: Sequence[Entry]) -> tuple[float, float]:
        """(dense, masked) FLOPs of the decisions of one iteration."""
        causal = self.settings.block
        return self._iteration(entries, 0), self._iteration(entries, causal)

    def _iteration(self, entries: Sequence[Entry], causal_block: int) -> float:
        total = 0.0
        for entry in entries:
            price = self.of(entry.slots[1] - entry.slots[0], causal_block)
            skipped = min(price.whole, sum(_share(site, price) for site in entry.sites))
            total += (1 if entry.branch else len(self.settings.branches)) * (price.whole - skipped)
        return total

    def _count(self, slots: int, causal_block: int, depth: int, without: str = "") -> float:
        model, settings = self.model, self.settings
        row = Row(0, 0, range(slots), 1, (0,) * slots, (1.0,) * slots, (0.0,) * slots, (True,) * slots, slots)
        visit = Visit(_Without(without), row, depth, {"": [(row, Decision(Mode.CACHE))]}) if without else None
        with torch.device("meta"), torch.inference_mode(), FlopCounterMode(display=False) as counter:
            latents = torch.empty(
                slots, model.config.in_channels, settings.height // SPATIAL, settings.width // SPATIAL
            )
            text = read_text(model, torch.empty(1, settings.text_length, model.config.text_dim), depth)
            when = condition(model, torch.empty(slots, dtype=torch.int64), settings.fps, torch.float32)
            forward(model, latents, when, text, visit, causal_block=causal_block, depth=depth)
        return float(counter.get_total_flops())


def _share(site: str, price: Forward) -> float:
    """What standing in at `site` saves of a forward."""
    kind, _, span = site.partition(" ")
    if kind in ("velocity", "guidance"):
        return price.whole
    each = {
        "blocks": price.block, "attention": price.attention, "cross_attention": price.cross_attention,
        "feed_forward": price.feed_forward,
    }  # fmt: skip
    if kind in each:
        start, stop = (int(number) for number in span.split(":"))
        return (stop - start) * each[kind]
    raise ValueError(f"no price for a stand-in at {site!r}")
