"""FLOPs of a run of MAGI-1, from the entries of its ledger, measured signals included; see price.py."""

from __future__ import annotations

from collections.abc import Sequence

from engine.ledger import Entry
from engine.row import Mode

from .config import BRANCHES, NULL_TOKENS, ModelConfig, RuntimeConfig
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
    """Counts the FLOPs of a ledger, one iteration at a time.

    Args:
        text: assumed number of caption tokens of a generated chunk, special tokens included.
    """

    def __init__(self, config: ModelConfig, settings: RuntimeConfig, plan: Schedule, text: int) -> None:
        self.config, self.settings, self.plan, self.text = config, settings, plan, text
        self.tokens = tokens_per_chunk(config, settings)

    def iteration(self, entries: Sequence[Entry]) -> float:
        """FLOPs of one iteration, from all its ledger entries. The first one includes the chunks of the prefix."""
        forward = self.plan.forwards[entries[0].iteration]
        total = given_flops(self.config, self.settings, self.plan) if forward.index == 0 else 0.0
        for branch in BRANCHES[self.settings.cfg_number]:
            total += self._pass(forward, branch, [entry for entry in entries if entry.branch in ("", branch)])
        return total + sum(self._probe(signal, forward) for entry in entries for signal in entry.probes)

    def _pass(self, forward: Forward, branch: str, entries: Sequence[Entry]) -> float:
        """FLOPs of one guidance branch: all that runs in the pass, minus what the method skipped."""
        run = [e for e in entries if e.mode is Mode.RECOMPUTE or "velocity" not in e.sites]
        chosen = [chunk for entry in run for chunk in self._chunks(entry)]
        total = branch_flops(self.config, self.settings, forward, branch, self.text, chosen)
        skips: list[tuple[Sequence[str], int, int]] = []  # per chunk: skipped sites, chunks it attends to, text tokens
        for entry in run:
            text = self.text if branch == "cond" else NULL_TOKENS
            for chunk in self._chunks(entry):
                skips.append((entry.sites, 1 if branch == "none" else visible_chunks(forward, chunk), text))
                if branch == "cond" and forward.duplicate and chunk == forward.chunks.start:
                    skips.append((self._copied(entry, forward), 1, text))
        saved = sum(self._saved(site, seen, text) for sites, seen, text in skips for site in sites)
        carries = forward.refresh is not None and branch != "none"  # a refreshed chunk is always computed
        if skips and not carries and all(self._silent(sites) for sites, _, _ in skips):
            saved += sum(captions_flops(self.config, text) for _, _, text in skips)
        return total - saved

    def _chunks(self, entry: Entry) -> range:
        width = self.settings.chunk_width
        return range(entry.slots[0] // width, entry.slots[1] // width)

    def _saved(self, site: str, seen: int, text: int) -> float:
        """FLOPs that skipping `site` for one chunk saves in a pass."""
        kind, span = _parsed(site)
        one = {
            "blocks": layer_flops(self.config, self.tokens, seen, text),
            "attention": attention_flops(self.config, self.tokens, seen, text),
            "feed_forward": feed_forward_flops(self.config, self.tokens),
        }
        if kind not in one:
            raise ValueError(f"the FLOPs of a skipped site {site!r} are unknown; want blocks, attention, feed_forward")
        return len(span) * one[kind]

    def _silent(self, sites: Sequence[str]) -> bool:
        """Whether no layer of a chunk uses the text."""
        spans = [span for kind, span in map(_parsed, sites) if kind in READERS]
        return len({layer for span in spans for layer in span}) == self.config.num_layers

    def _copied(self, entry: Entry, forward: Forward) -> Sequence[str]:
        """The skipped sites of the duplicate of the oldest chunk, from the entry.

        If the entry has none (a ledger of an older version, a dry run): those of the chunk itself. In its first forward
        the duplicate has no history, so none is skipped.
        """
        if entry.copied is not None:
            return entry.copied
        before = self.plan.forwards[forward.index - 1] if forward.index else None
        known = before is not None and before.duplicate and before.chunks.start == forward.chunks.start
        return entry.sites if known else ()

    def _probe(self, signal: str, forward: Forward) -> float:
        """FLOPs of a signal of the chunks in flight; it is measured at every row."""
        config, chunks, name = self.config, len(forward.chunks), signal.partition(" ")[0]
        if name == "patch_embedding":
            return chunks * patches_flops(config, self.tokens)
        times = chunks * times_flops(config, self.settings.distill)
        projected = times + dropped_flops(config) + chunks * gates_flops(config)
        return {"time_embedding": times, "time_projection": projected}.get(name, 0.0)


def _parsed(site: str) -> tuple[str, range]:
    """The kind and the blocks of a site in the ledger's form, "blocks 0:2"."""
    kind, _, span = site.partition(" ")
    start, _, stop = span.partition(":")
    return kind, range(int(start), int(stop)) if stop else range(0)
