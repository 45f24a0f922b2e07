"""FLOPs of the forwards of diffusers' own pipeline of AnyFlow-FAR, 2 per multiply-add, denoiser only.

Our loop computes less (models/far/price.py): there every forward projects the text and embeds the times of all its
slots, a step fills its queries up to a multiple of 128, and a clean pass computes all chunks so far, and all of the
last block.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.ledger import Entry
from models.far.price import TILE, Price


class StockPrice(Price):
    """FLOPs of the rows of one model and video in the stock pipeline."""

    def both(self, entries: Sequence[Entry]) -> tuple[float, float]:
        """(dense, masked) FLOPs of one iteration, which are equal."""
        cost = self.iteration(entries)
        return cost, cost

    def _once(self) -> float:
        return 0.0  # nothing is shared by the forwards

    def _row(self, entry: Entry) -> float:
        if entry.active[0] == entry.active[1]:
            patches, parts = self._renewed(entry.unit, whole=True)
            blocks = self.depth * sum(self._branch("blocks", count, seen) for count, seen in parts)
            return patches + blocks + self._conditions(len(self.chunks.slots(0, entry.unit + 1)))
        if entry.sites:
            return 0.0
        count = entry.slots[1] - entry.slots[0]
        queries, seen = count * self.full, self.seen(entry.unit)
        filled = self.depth * 4.0 * (-queries % TILE) * seen * self.shape.width
        blocks = self.depth * self._branch("blocks", queries, seen)
        return self._ends(count) + blocks + filled + self._conditions(count)

    def _conditions(self, slots: int) -> float:
        """FLOPs of the text's keys and values, and of the embeddings of the times of `slots` slots, in one branch."""
        shape, text = self.shape, self.settings.text_length
        w = shape.width
        embedding = text * (shape.text_dim * w + w * w) + self.depth * text * 2 * w * w
        return 2.0 * (embedding + slots * (2 * (shape.freq_dim * w + w * w) + w * 6 * w))
