"""MAGI-1's chunk pipeline as plain data (arXiv:2505.13211, Sec. 2.4): when each chunk is denoised, and its attention.

A new chunk enters after every num_steps / window_size forwards. Up to `window_size` chunks are being denoised ("in
flight"); the oldest is the cleanest. Time rises from 0 (noise) to 1 (clean). A forward may also compute

* a *refresh*: the chunk that just finished, at `clean_t` and without text, for its keys and values;
* a *duplicate* (one-pass guidance only): the oldest chunk once more, nearly clean, without its past.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, replace
from functools import cached_property

from .config import RuntimeConfig

Range = tuple[int, int]  # of chunks, [first, last + 1)

_SHIFT = 3.0
_FLOAT32 = struct.Struct("f")
_SHORTCUT_STEPS = 12  # the only grid with unequal step lengths
_KEPT_QUARTERS = {"16,16,8": (0, 1, 2)}  # of four sub-steps; other modes keep 0, 2, 3
_LENGTHS = {"16,16,8": (1, 1, 2)}  # step lengths in sub-steps; other modes 2, 1, 1
_PREFIX_RANGE = 8  # chunks that a given chunk attends to if no range is configured


@dataclass(frozen=True)
class Forward:
    """One forward of the pipeline. Tuples have one entry per chunk in flight, oldest first."""

    index: int
    stage: int
    inner: int  # number of forwards since the stage began
    chunks: range  # chunks in flight, numbered through the video
    steps: tuple[int, ...]  # updates that each chunk has had
    times: tuple[float, ...]  # time before the update
    times_next: tuple[float, ...]  # time after the update
    visible: tuple[Range, ...]  # chunks that each chunk attends to
    step_length: float  # the distilled model's second time input
    refresh: int | None = None  # a finished chunk that is computed again
    refresh_visible: Range = (0, 0)  # chunks that it attends to
    duplicate: bool = False  # whether the oldest chunk also runs without its past
    dropped: int = 0  # keys of finished chunks dropped before this forward, in chunks
    compresses: int = 0  # after this forward, drop one chunk's worth of keys of this many finished chunks; 0: none

    @property
    def passes(self) -> int:
        """The number of chunks in the transformer call."""
        return len(self.chunks) + (self.refresh is not None) + self.duplicate

    def seen(self, visible: Range) -> int:
        """The number of keys in a range of chunks, in chunks."""
        return visible[1] - visible[0] - self.dropped


@dataclass(frozen=True)
class Schedule:
    """Every forward of one video."""

    forwards: tuple[Forward, ...]
    chunks: int  # of the whole video, given ones included
    given: int  # chunks that the prefix fills; they are computed once, before the first forward
    prefix: int  # latent frames of the prefix
    chunk_width: int
    given_visible: tuple[Range, ...]
    given_step_length: float

    @property
    def chunk_steps(self) -> int:
        """The total number of updates of all chunks."""
        return sum(len(forward.chunks) for forward in self.forwards)

    @property
    def chunk_passes(self) -> int:
        """The number of chunk passes: updates, refreshes and duplicates, without the prefix."""
        return sum(forward.passes for forward in self.forwards)

    @property
    def visible_chunks(self) -> int:
        """The number of keys in attention, in chunks, summed over all chunk passes."""
        seen = sum(f.seen(reach) for f in self.forwards for reach in f.visible)
        refreshed = sum(f.seen(f.refresh_visible) for f in self.forwards if f.refresh is not None)
        return seen + refreshed + sum(f.duplicate for f in self.forwards)

    @cached_property
    def oldest_held(self) -> tuple[int, ...]:
        """For every forward, the oldest chunk that it or a later forward reads or writes. Older ones can be dropped.

        Compressed chunks are read together, so none is dropped if the schedule compresses.
        """
        if any(f.compresses for f in self.forwards):
            return (0,) * len(self.forwards)
        oldest, found = self.chunks, []
        for f in reversed(self.forwards):
            refreshed = [] if f.refresh is None else [f.refresh, f.refresh_visible[0]]
            oldest = min(oldest, f.chunks.start, *(start for start, _ in f.visible), *refreshed)
            found.append(oldest)
        return tuple(reversed(found))

    @property
    def held_chunks(self) -> int:
        """The largest number of chunks in the key-value cache."""
        pairs = zip(self.forwards, self.oldest_held, strict=True)
        return max([self.given, *(f.chunks.stop - max(f.dropped, oldest) for f, oldest in pairs)])

    def emitted(self, forward: Forward) -> Range | None:
        """The generated latent frames that are final after `forward`; None if there are none.

        A chunk that starts with a given image is emitted as a whole.
        """
        oldest = forward.chunks.start
        finished = forward.index + 1 == len(self.forwards) or self.forwards[forward.index + 1].chunks.start > oldest
        stop = (oldest + 1) * self.chunk_width
        if not finished or stop <= self.prefix:
            return None
        start = 0 if oldest == 0 and self.prefix == 1 else max(oldest * self.chunk_width, self.prefix)
        return start, stop


def time_grid(num_steps: int, shortcut_mode: str = "8,16,16") -> list[float]:
    """The num_steps + 1 times of a chunk from 0 to 1: quadratic, then shifted by 3 towards noise, in float32.

    >>> [round(t, 5) for t in time_grid(64)[16::16]]
    [0.02174, 0.1, 0.3, 1.0]
    """
    u = _even(num_steps)
    if num_steps == _SHORTCUT_STEPS:
        quarters = _even(4)
        kept = [quarters[n] / 4 for n in _KEPT_QUARTERS.get(shortcut_mode, (0, 2, 3))]
        u = [_single(first + quarter) for quarter in quarters for first in kept][: num_steps + 1]
    u = [_single(x * x) for x in u]
    inverse, less = _single(1 / _SHIFT), _single(1 / _SHIFT - 1)
    return [_single(_single(inverse * x) / _single(1 + _single(less * x))) for x in u]


def _even(count: int) -> list[float]:
    """0 to 1 in `count` equal steps, rounded as torch.linspace rounds them: from the nearer end."""
    step = _single(1 / count)
    return [_single(step * n if n < (count + 1) // 2 else 1 - step * (count - n)) for n in range(count + 1)]


def _single(value: float) -> float:
    """The nearest float32."""
    return float(_FLOAT32.unpack(_FLOAT32.pack(value))[0])


def step_lengths(num_steps: int, shortcut_mode: str = "8,16,16") -> list[float]:
    """The distilled model's step length input for each step.

    >>> step_lengths(64)[0], step_lengths(12)[:3]
    (32.0, [4.0, 8.0, 8.0])
    """
    if num_steps != _SHORTCUT_STEPS:
        return [step_length(num_steps)] * num_steps
    return [step_length(num_steps, length) for length in _LENGTHS.get(shortcut_mode, (2, 1, 1))] * (num_steps // 3)


def step_length(num_steps: int, interval: float = 1.0) -> float:
    """The step length input of one step. Its `interval`, in sub-steps, matters only on the 12-step grid."""
    return (4 / interval if num_steps == _SHORTCUT_STEPS else num_steps / 4) * 2


def schedule(settings: RuntimeConfig, prefix: int = 0) -> Schedule:
    """The schedule of a video with `settings` that continues `prefix` given latent frames (1 for an image).

    For 240 frames, 64 steps and a window of 4: 208 forwards, 640 chunk steps, 809 chunk passes.
    """
    width, window = settings.chunk_width, settings.window_size
    chunks, given = math.ceil((settings.latent_frames + prefix) / width), prefix // width
    stages = range(given, chunks + window - 1)
    forwards: list[Forward] = []
    for stage, newest in enumerate(stages):
        flight = range(max(given, newest - window + 1), min(chunks, newest + 1))
        shares = range(max(0, newest - chunks + 1), min(window, stage + 1))
        for inner in range(settings.num_steps // window):
            forwards.append(_forward(settings, len(forwards), stage, inner, flight, shares, given))
    if settings.kv_capacity:
        forwards = _compressed(forwards, chunks, settings.kv_capacity)
    reach = settings.clean_chunk_kvrange
    if reach == -1:
        reach = settings.noise2clean_kvrange[-1] if settings.noise2clean_kvrange else _PREFIX_RANGE
    return Schedule(
        forwards=tuple(forwards),
        chunks=chunks,
        given=given,
        prefix=prefix,
        chunk_width=width,
        given_visible=tuple((max(0, k + 1 - reach), k + 1) for k in range(given)),
        given_step_length=step_lengths(settings.num_steps, settings.shortcut_mode)[0],
    )


def _compressed(forwards: list[Forward], chunks: int, capacity: int) -> list[Forward]:
    """Mark the forwards after which the cache is compressed: a new chunk enters, the cache is full, and at least two
    chunks are finished. Raises ValueError if `capacity` is too small."""
    dropped, found = 0, []
    for forward, after in zip(forwards, [*forwards[1:], None], strict=True):
        forward = replace(forward, dropped=dropped)
        if after and after.chunks.stop > forward.chunks.stop and forward.chunks.stop - dropped >= capacity:
            finished = after.chunks.start - (after.refresh is not None)
            if finished - dropped >= 2:
                forward, dropped = replace(forward, compresses=finished), dropped + 1
        found.append(forward)
    held = max(forward.chunks.stop - forward.dropped for forward in found)
    if held > capacity:
        raise ValueError(
            f"kv_capacity={capacity} is too small for the chunks in flight and a finished one; want {held} or more of "
            f"the video's {chunks} chunks, or 0 for all"
        )
    return found


def _forward(
    settings: RuntimeConfig, index: int, stage: int, inner: int, flight: range, shares: range, given: int
) -> Forward:
    grid = time_grid(settings.num_steps, settings.shortcut_mode)
    per_stage = settings.num_steps // settings.window_size
    steps = tuple(share * per_stage + inner for share in reversed(shares))
    due = settings.clean_refresh and flight.start > given and inner == 0
    refresh = flight.start - 1 if due else None
    one_pass = settings.cfg_number == 1
    return Forward(
        index=index,
        stage=stage,
        inner=inner,
        chunks=flight,
        steps=steps,
        times=tuple(grid[step] for step in steps),
        times_next=tuple(grid[step + 1] for step in steps),
        visible=tuple(_visible(settings, chunk, step) for chunk, step in zip(flight, steps, strict=True)),
        step_length=step_lengths(settings.num_steps, settings.shortcut_mode)[inner],
        refresh=refresh,
        refresh_visible=(0, 0) if refresh is None else _visible(settings, refresh, settings.num_steps),
        duplicate=one_pass and grid[steps[0]] > settings.distill_nearly_clean_chunk_threshold,
    )


def _visible(settings: RuntimeConfig, chunk: int, step: int) -> Range:
    """The chunks that `chunk` attends to at `step`: all up to itself, or the number configured for its noise level."""
    ranges = settings.noise2clean_kvrange
    if not ranges:
        return 0, chunk + 1
    if step == settings.num_steps:
        reach = ranges[-1] if settings.clean_chunk_kvrange == -1 else settings.clean_chunk_kvrange
    else:
        reach = ranges[step // (settings.num_steps // len(ranges))]
    return max(0, chunk + 1 - reach), chunk + 1
