"""FLOPs of AnyFlow-FAR's rows, 2 per multiply-add, denoiser only.

Counted is what our loop computes. The text's keys and values and the embeddings of the times are computed once per
video, and are counted in its first row. A clean pass computes no more than the keys that change (`Chunks.renewed`), and
of the last block only keys and values. A test compares every kind of row with torch's count.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from engine.ledger import Entry
from models.far.chunks import Chunks
from models.far.settings import Far
from models.far.shape import Shape
from models.wan.settings import SPATIAL

TILE = 128  # with padding=attended, keys of zeros fill up the tokens of a chunk to a multiple of this


class Price:
    """FLOPs of the rows of one model and video."""

    def __init__(self, settings: Far, shape: Shape) -> None:
        self.settings, self.shape, self.depth = settings, shape, shape.num_layers
        self.chunks = Chunks(settings.lengths, shape.full_chunk_limit)
        self.full, self.small = tokens(settings, shape)

    def iteration(self, entries: Sequence[Entry]) -> float:
        """FLOPs of one iteration, from its ledger entries. Raises ValueError for an unknown site."""
        total = self._once() if entries[0].iteration == 0 else 0.0
        for branch, own in groupby(entries, key=lambda entry: entry.branch):
            times = 1 if branch else len(self.settings.branches)
            total += times * sum(map(self._row, own))
        return total + sum(self._probe(entry, signal) for entry in entries for signal in entry.probes)

    def _row(self, entry: Entry) -> float:
        if entry.active[0] == entry.active[1]:
            return self._clean(entry.unit)
        if {"velocity", "guidance"} & set(entry.sites):
            return 0.0
        count = entry.slots[1] - entry.slots[0]
        queries, seen = count * self.full, self.seen(entry.unit)
        anew = self._clean(entry.unit - 1, whole=True) if entry.kept[1] else 0.0
        total = anew + self._ends(count) + self.depth * self._branch("blocks", queries, seen)
        return total - sum(self._saved(site, queries, seen) for site in entry.sites)

    def seen(self, chunk: int) -> int:
        """The tokens that `chunk` attends to: those of earlier chunks, its own, and the padding."""
        far, own = self.chunks.far(chunk), self.chunks.lengths[chunk] * self.full
        past = len(self.chunks.slots(0, far)) * self.small + len(self.chunks.slots(far, chunk)) * self.full
        return past + own + padding(own, self.settings)

    def _saved(self, site: str, queries: int, seen: int) -> float:
        kind, _, span = site.partition(" ")
        if kind not in ("blocks", "attention", "cross_attention", "feed_forward"):
            raise ValueError(f"the FLOPs of a skipped site {site!r} are unknown; want blocks or a branch of a block")
        start, stop = (int(number) for number in span.split(":"))
        return (stop - start) * self._branch(kind, queries, seen)

    def _branch(self, kind: str, queries: int, seen: int) -> float:
        """FLOPs of `queries` tokens in one block or in one branch of it; self-attention covers `seen` tokens."""
        w, text = self.shape.width, self.settings.text_length
        each = {
            "attention": 2.0 * queries * 4 * w * w + 4.0 * queries * seen * w,
            "cross_attention": 2.0 * queries * 2 * w * w + 4.0 * queries * text * w,
            "feed_forward": 2.0 * queries * 2 * w * self.shape.ffn_dim,
        }
        return sum(each.values()) if kind == "blocks" else each[kind]

    def _clean(self, chunk: int, whole: bool = False) -> float:
        """FLOPs of the clean pass after `chunk`; `whole`: of the keys of all chunks."""
        patches, parts = self._renewed(chunk, whole)
        queries, w = sum(count for count, _ in parts), self.shape.width
        blocks = (self.depth - 1) * sum(self._branch("blocks", count, seen) for count, seen in parts)
        return patches + blocks + 2.0 * queries * 2 * w * w  # keys and values of the last block

    def _renewed(self, chunk: int, whole: bool) -> tuple[float, list[tuple[int, int]]]:
        """Of a clean pass: the FLOPs of its first layers, and the tokens and the keys that they see, of every part."""
        far, near = self.chunks.renewed(chunk, whole)
        small = len(self.chunks.slots(far.start, far.stop)) * self.small
        first = self.chunks.far(chunk + 1)
        past = len(self.chunks.slots(0, first)) * self.small
        parts = [
            (self.chunks.lengths[one] * self.small, len(self.chunks.slots(0, one + 1)) * self.small) for one in far
        ]
        for one in near:
            seen = past + len(self.chunks.slots(first, one + 1)) * self.full
            parts.append((self.chunks.lengths[one] * self.full, seen))
        queries, w = sum(count for count, _ in parts), self.shape.width
        patches = 2.0 * self.shape.in_channels * w * (small * self.shape.compressed_patch)
        return patches + 2.0 * self.shape.in_channels * w * ((queries - small) * self.shape.patch), parts

    def _ends(self, count: int) -> float:
        """FLOPs of the layers before the first and after the last block, of `count` slots."""
        channels = self.shape.in_channels + (self.shape.out_channels or self.shape.in_channels)
        return 2.0 * count * self.full * self.shape.width * self.shape.patch * channels

    def _once(self) -> float:
        """FLOPs of the text's keys and values in every branch, and of the embeddings of every step's times."""
        shape, text = self.shape, self.settings.text_length
        w, steps = shape.width, self.settings.steps + 1  # and the time of a clean pass
        embedding = text * (shape.text_dim * w + w * w) + self.depth * text * 2 * w * w
        time = steps * (2 * (shape.freq_dim * w + w * w) + w * 6 * w)
        return 2.0 * (len(self.settings.branches) * embedding + time)

    def _probe(self, entry: Entry, signal: str) -> float:
        """FLOPs of a signal measured on the row's slots. Signals of the times alone are a table and cost 0."""
        name, _, span = signal.partition(" ")
        if name != "patch_embedding":
            return 0.0
        start, stop = (int(slot) for slot in span.split(":"))
        return 2.0 * (stop - start) * self.full * self.shape.patch * self.shape.in_channels * self.shape.width


def tokens(settings: Far, shape: Shape) -> tuple[int, int]:
    """The tokens of a latent slot, in full and in compressed form."""
    height, width = settings.height // SPATIAL, settings.width // SPATIAL
    sizes = shape.patch_size, shape.compressed_patch_size
    full, small = ((height // rows) * (width // columns) for _, rows, columns in sizes)
    return full, small


def padding(queries: int, settings: Far) -> int:
    """The number of zero keys beside a chunk of `queries` tokens."""
    return -queries % TILE if settings.padding == "attended" else 0
