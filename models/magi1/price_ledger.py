"""What the decisions of a run of MAGI-1 cost: what every entry of its ledger ran, probes included (price.py)."""

from __future__ import annotations

from collections.abc import Sequence

from engine.ledger import Entry
from engine.row import Mode

from .chunk_forward import BRANCHES
from .config import ModelConfig, RuntimeConfig
from .embed import CaptionEmbedder
from .price import (
    attention_flops,
    branch_flops,
    captions_flops,
    dropped_flops,
    feed_forward_flops,
    gates_flops,
    given_flops,
    layer_flops,
    patches_flops,
    times_flops,
    tokens_per_chunk,
    visible_chunks,
)
from .schedule import Forward, Schedule

READERS = ("blocks", "attention")  # sites whose computation reads the text


class Price:
    """Prices a run's ledger, one iteration at a time.

    Args:
        text: caption tokens, special ones included, that a generated chunk is taken to see.
    """

    def __init__(self, config: ModelConfig, settings: RuntimeConfig, plan: Schedule, text: int) -> None:
        self.config, self.settings, self.plan, self.text = config, settings, plan, text
        self.tokens = tokens_per_chunk(config, settings)

    def iteration(self, entries: Sequence[Entry]) -> float:
        """FLOPs of one iteration given all its ledger entries; the first also pays for the chunks that were given."""
        forward = self.plan.forwards[entries[0].iteration]
        total = given_flops(self.config, self.settings, self.plan) if forward.index == 0 else 0.0
        for branch in BRANCHES[self.settings.cfg_number]:
            total += self._pass(forward, branch, [entry for entry in entries if entry.branch in ("", branch)])
        return total + sum(self._probe(signal, forward) for entry in entries for signal in entry.probes)

    def _pass(self, forward: Forward, branch: str, entries: Sequence[Entry]) -> float:
        """One guidance branch: everything that runs along, less what was stood in for."""
        run = [e for e in entries if e.mode is Mode.RECOMPUTE or "velocity" not in e.sites]
        chosen = [chunk for entry in run for chunk in self._chunks(entry)]
        total = branch_flops(self.config, self.settings, forward, branch, self.text, chosen)
        skips: list[tuple[Sequence[str], int, int]] = []  # of every chunk: sites, how many it sees, its text
        for entry in run:
            text = self.text if branch == "cond" else CaptionEmbedder.null_tokens
            for chunk in self._chunks(entry):
                skips.append((entry.sites, 1 if branch == "none" else visible_chunks(forward, chunk), text))
                if branch == "cond" and forward.duplicate and chunk == forward.chunks.start:
                    skips.append((self._copied(entry, forward), 1, text))
        saved = sum(self._saved(site, seen, text) for sites, seen, text in skips for site in sites)
        carries = forward.refresh is not None and branch != "none"  # a chunk that nothing stands in for
        if skips and not carries and all(self._silent(sites) for sites, _, _ in skips):
            saved += sum(captions_flops(self.config, text) for _, _, text in skips)
        return total - saved

    def _chunks(self, entry: Entry) -> range:
        width = self.settings.chunk_width
        return range(entry.slots[0] // width, entry.slots[1] // width)

    def _saved(self, site: str, seen: int, text: int) -> float:
        """What standing in at `site` for one chunk saves of a pass."""
        kind, span = _parsed(site)
        one = {
            "blocks": layer_flops(self.config, self.tokens, seen, text),
            "attention": attention_flops(self.config, self.tokens, seen, text),
            "feed_forward": feed_forward_flops(self.config, self.tokens),
        }
        if kind not in one:
            raise ValueError(f"no price for a stand-in at {site!r}")
        return len(span) * one[kind]

    def _silent(self, sites: Sequence[str]) -> bool:
        """Whether no layer of a chunk reads the text."""
        spans = [span for kind, span in map(_parsed, sites) if kind in READERS]
        return len({layer for span in spans for layer in span}) == self.config.num_layers

    def _copied(self, entry: Entry, forward: Forward) -> Sequence[str]:
        """What stood in for the duplicate of the oldest chunk, as the entry says.

        Where it does not (a ledger of an older version, a rehearsal), what stood in for the chunk, but nothing in the
        duplicate's first forward, when it has no history.
        """
        if entry.copied is not None:
            return entry.copied
        before = self.plan.forwards[forward.index - 1] if forward.index else None
        known = before is not None and before.duplicate and before.chunks.start == forward.chunks.start
        return entry.sites if known else ()

    def _probe(self, signal: str, forward: Forward) -> float:
        """A signal of the chunks in flight, which is measured anew at every row."""
        config, chunks, name = self.config, len(forward.chunks), signal.partition(" ")[0]
        if name == "patch_embedding":
            return chunks * patches_flops(config, self.tokens)
        times = chunks * times_flops(config, self.settings.distill)
        projected = times + dropped_flops(config) + chunks * gates_flops(config)
        return {"time_embedding": times, "time_projection": projected}.get(name, 0.0)


def _parsed(site: str) -> tuple[str, range]:
    """The kind and the blocks of a site as the ledger names it, "blocks 0:2"."""
    kind, _, span = site.partition(" ")
    start, _, stop = span.partition(":")
    return kind, range(int(start), int(stop)) if stop else range(0)
