"""One forward of MAGI-1's pipeline: the velocities of the chunks in flight (the chunks that are being denoised).

The released loop calls the transformer once per forward (three times with guidance). The call holds the chunks in
flight, a finished chunk to be computed again (refresh), and a duplicate of the oldest chunk. `Dispatcher.velocity` does
the same for all or some of the chunks in flight. For a chunk that is left out, later chunks use the keys and values of
its last computed step.

Latents are chunk-first: (chunks of the video, C, chunk_width, h, w), float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.to_device import sent

from .cache import KVCache, Range, Rank
from .config import RuntimeConfig
from .dit import Blocks, Magi1DiT
from .schedule import Forward, Schedule

_LAST_TOKENS = 50  # number of last queries of a chunk for kv_queries="token"

BranchBlocks = Callable[[str], Blocks]


@dataclass(frozen=True)
class Member:
    """One chunk of a transformer call; see `Magi1DiT.forward` for its values."""

    latents: Tensor  # (C, chunk_width, h, w)
    time: float
    text: Tensor  # (L, caption channels)
    position: int
    visible: Range
    slot: int | None


def to_chunks(video: Tensor, chunk_width: int) -> Tensor:
    """(C, T, h, w) -> (chunks, C, chunk_width, h, w)."""
    return video.unflatten(1, (-1, chunk_width)).transpose(0, 1).contiguous()


def from_chunks(chunks: Tensor) -> Tensor:
    """(chunks, C, chunk_width, h, w) -> (C, T, h, w)."""
    return chunks.transpose(0, 1).flatten(1, 2)


class Dispatcher:
    """The forwards of one video.

    Args:
        model: the transformer.
        settings: guidance, times and thresholds.
        schedule: `schedule(settings, prefix frames)`.
        text: one (L, caption channels) per generated chunk, oldest first; None: no prompt in any pass.
        prefix: the given latent frames (C, P, h, w), or None.
        null_text: the text of passes without a prompt; the model's learned caption by default.
    """

    def __init__(
        self,
        model: Magi1DiT,
        settings: RuntimeConfig,
        schedule: Schedule,
        text: Sequence[Tensor] | None,
        prefix: Tensor | None = None,
        null_text: Tensor | None = None,
    ) -> None:
        given = 0 if prefix is None else prefix.shape[1]
        if given != schedule.prefix:
            raise ValueError(f"the prefix has {given} latent frames, want {schedule.prefix} as in the schedule")
        generated = schedule.chunks - schedule.given
        if text is not None and len(text) != generated:
            raise ValueError(f"{len(text)} texts for {generated} generated chunks; give one per chunk")
        self.model, self.settings, self.schedule, self.prefix = model, settings, schedule, prefix
        self.null_text = model.y_embedder.null_text if null_text is None else null_text
        self.text = [self.null_text] * generated if text is None else list(text)
        self.cache: KVCache | None = None

    def begin(self) -> None:
        """Clear the state of the last video and compute the keys of the chunks that the prefix fills."""
        self.cache = self._empty_cache()
        plan = self.schedule
        if not plan.given or self.prefix is None:
            return
        given = to_chunks(self.prefix[:, : plan.given * plan.chunk_width], plan.chunk_width)
        members = [
            Member(given[k], self.settings.clean_t, self.null_text, k, visible, k)
            for k, visible in enumerate(plan.given_visible)
        ]
        self._call(members, plan.given_step_length, dropped=self.settings.cfg_number == 3)

    def chunk(self, latents: Tensor, number: int) -> Tensor:
        """The input of the model for a chunk, (C, chunk_width, h, w), with the prefix in the frames that it covers."""
        start = self.schedule.given * self.schedule.chunk_width
        if number != self.schedule.given or self.prefix is None or self.schedule.prefix == start:
            return latents[number]
        pinned = latents[number].clone()
        pinned[:, : self.schedule.prefix - start] = self.prefix[:, start:]
        return pinned

    def velocity(
        self,
        latents: Tensor,
        forward: Forward,
        chunks: Sequence[int] | None = None,
        blocks: BranchBlocks | None = None,
    ) -> Tensor:
        """The velocities (n, C, chunk_width, h, w) of `chunks`, by default of all in flight, after guidance.

        A refresh that belongs to the forward always runs. `blocks` maps a branch of `BRANCHES` to the function that
        runs instead of all layers. Raises ValueError if a chunk is not in flight.
        """
        if self.cache is None:
            self.begin()
        assert self.cache is not None
        self.cache.forget(self.schedule.oldest_held[forward.index])
        chosen = list(forward.chunks) if chunks is None else sorted(chunks)
        foreign = set(chosen) - set(forward.chunks)
        if foreign:
            raise ValueError(f"chunks {sorted(foreign)} are not in flight; {forward.chunks} are")
        members = [self._member(latents, forward, chunk) for chunk in chosen]
        refresh = [] if forward.refresh is None else [self._refreshed(latents, forward)]
        if not members and not refresh:
            return torch.empty_like(latents[:0])
        if self.settings.cfg_number == 1:
            return self._one_pass(refresh, members, forward, blocks)
        return self._three_passes(refresh, members, forward, blocks)

    def _one_pass(
        self, refresh: list[Member], members: list[Member], forward: Forward, blocks: BranchBlocks | None
    ) -> Tensor:
        doubled = forward.duplicate and bool(members) and members[0].slot == forward.chunks.start
        twin = [_alone(members[0], forward.chunks.stop)] if doubled else []
        out = self._call([*refresh, *members, *twin], forward.step_length, False, "cond", blocks)
        velocity = out[len(refresh) : len(refresh) + len(members)]
        if doubled:
            share = self.settings.nearly_clean_weight
            velocity = torch.cat([velocity[:1] * share + out[-1:] * (1 - share), velocity[1:]])
        return velocity

    def _three_passes(
        self, refresh: list[Member], members: list[Member], forward: Forward, blocks: BranchBlocks | None
    ) -> Tensor:
        length, skip = forward.step_length, len(refresh)
        nameless = [self._unprompted(member) for member in members]
        cond = self._call([*refresh, *members], length, False, "cond", blocks)[skip:] if members else None
        # The pass without the prompt is the last to write the cache: it holds those keys of finished chunks.
        past = self._call([*refresh, *nameless], length, True, "past", blocks)[skip:]
        if cond is None:
            return past
        lone = self._call([_alone(member, 0) for member in nameless], length, True, "none", blocks)
        weights = [self.guidance(member.time) for member in members]
        p, q = (sent(w, past.device)[:, None, None, None, None] for w in zip(*weights, strict=True))
        return (1 - p) * lone + (p - q) * past + q * cond

    def guidance(self, time: float) -> tuple[float, float]:
        """The guidance weights (past, text) of a chunk at `time`, piecewise constant."""
        edges = torch.tensor(self.settings.cfg_t_range) - 1e-7
        index = int(torch.searchsorted(edges, torch.tensor(time))) - 1
        if index < 0:
            raise ValueError(f"time {time} is below cfg_t_range, which starts at {self.settings.cfg_t_range[0]}")
        return self.settings.prev_chunk_scales[index], self.settings.text_scales[index]

    def advance(self, latents: Tensor, forward: Forward, velocity: Tensor, chunks: range | None = None) -> Tensor:
        """One Euler step x + v·(t' - t) of `chunks`, by default all in flight; `velocity` (chunks, C, width, h, w)."""
        chunks = forward.chunks if chunks is None else chunks
        latents = latents.clone()
        for chunk, v in zip(chunks, velocity, strict=True):
            j = chunk - forward.chunks.start
            latents[chunk] = self.chunk(latents, chunk) + v * (forward.times_next[j] - forward.times[j])
        return latents

    def compress(self, forward: Forward, rank: Rank) -> None:
        """Compress the cache if the schedule asks for it after `forward`; `rank` gives the importance of keys."""
        if forward.compresses and self.cache is not None:
            self.cache.compress(forward.compresses, forward.chunks.stop, rank)

    def _member(self, latents: Tensor, forward: Forward, chunk: int) -> Member:
        j = chunk - forward.chunks.start
        text = self.text[chunk - self.schedule.given]
        return Member(self.chunk(latents, chunk), forward.times[j], text, chunk, forward.visible[j], chunk)

    def _refreshed(self, latents: Tensor, forward: Forward) -> Member:
        k = forward.refresh
        assert k is not None
        return Member(self.chunk(latents, k), self.settings.clean_t, self.null_text, k, forward.refresh_visible, k)

    def _unprompted(self, member: Member) -> Member:
        return Member(member.latents, member.time, self.null_text, member.position, member.visible, member.slot)

    def _call(
        self,
        members: Sequence[Member],
        step_length: float,
        dropped: bool,
        branch: str = "cond",
        blocks: BranchBlocks | None = None,
    ) -> Tensor:
        alone = all(member.slot is None for member in members)
        return self.model(
            torch.stack([member.latents for member in members]),
            sent([member.time for member in members], self.model.device),
            [member.text for member in members],
            [member.position for member in members],
            [member.visible for member in members],
            [member.slot for member in members],
            cache=None if alone else self.cache,
            step_length=step_length if self.settings.distill else None,
            dropped=dropped,
            blocks=blocks(branch) if blocks else None,
        )

    def _empty_cache(self) -> KVCache:
        h, w = self.settings.latent_size
        tokens = self.schedule.chunk_width * (h // self.model.config.patch_size) * (w // self.model.config.patch_size)
        late = {"token": _LAST_TOKENS, "frame": tokens // self.schedule.chunk_width, "chunk": tokens}
        queries = late[self.settings.kv_queries] if self.settings.kv_capacity else 0
        held = self.schedule.held_chunks
        return KVCache(self.model.config, self.schedule.chunks, tokens, self.model.device, held=held, queries=queries)


def _alone(member: Member, position: int) -> Member:
    return Member(member.latents, member.time, member.text, position, (0, 1), None)


@torch.no_grad()
def rollout(dispatcher: Dispatcher, noise: Tensor) -> Iterator[tuple[Forward, Tensor, Tensor]]:
    """Denoise `noise` (chunks, C, chunk_width, h, w); yields (forward, velocity, latents) after each forward."""
    dispatcher.begin()
    latents = noise
    for forward in dispatcher.schedule.forwards:
        velocity = dispatcher.velocity(latents, forward)
        latents = dispatcher.advance(latents, forward, velocity)
        yield forward, velocity, latents
