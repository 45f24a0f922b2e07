"""When each chunk of a video was finished: stamps at the end of AR units, read after the loop.

A chunk is the frames that can be shown because one more AR unit is finished. On a GPU a stamp is an event on the
stream, so the host does not wait; the events are read at the end of the video. On other devices it is the host's clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from engine.backbone import Backbone
from engine.row import Row

DIGITS = 6  # of the seconds in a record


@dataclass(frozen=True)
class Chunks:
    """The chunks of one video, in order. All seconds and frames count from the start of the video.

    `by_chunk` is False if the decoder needs the latents of the whole video, or the denoiser is off the device while it
    runs; then the video is one chunk.
    """

    frames: tuple[int, ...] = ()  # that the video has once the chunk is there
    denoised: tuple[float, ...] = ()  # seconds of denoising until the chunk's latents are final
    decoded: tuple[float, ...] = ()  # seconds of decoding until its last frame, if nothing but decoding runs
    by_chunk: bool = True

    def to_json(self) -> dict[str, Any]:
        """The entry `chunks` of run.json."""
        seconds = {name: [round(s, DIGITS) for s in getattr(self, name)] for name in ("denoised", "decoded")}
        return {"frames": list(self.frames), **seconds, "by_chunk": self.by_chunk}


@dataclass
class Stamps:
    """Takes the stamps of one video. Call `begin` where its time begins, and `seconds` after the loop."""

    model: Backbone
    taken: list[tuple[int, Any]] = field(default_factory=list)  # finished slots, stamp
    batches: list[tuple[int, float]] = field(default_factory=list)  # decoded frames, seconds

    def __post_init__(self) -> None:
        self.ends = finishing(self.model.schedule())
        self.cuda = self.model.device.type == "cuda"

    def begin(self) -> None:
        """The start of denoising."""
        self.start = self._now()

    def after(self, on_row: Callable[[Row], None] | None) -> Callable[[Row], None]:
        """A function to call after every row: it takes the stamps, and calls `on_row` after that."""

        def told(row: Row) -> None:
            if row.iteration in self.ends:
                self.taken.append((self.ends[row.iteration], self._now()))
            if on_row:
                on_row(row)

        return told

    def timed(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """The decoded `batches` (T, H, W, 3), with a stamp after each. They are on the host, so the device has waited
        for them already."""
        begin, frames = time.perf_counter(), 0
        for batch in batches:
            frames += len(batch)
            self.batches.append((frames, time.perf_counter() - begin))
            yield batch

    def chunks(self) -> Chunks:
        """The chunks of the video, after it was decoded."""
        total, slots = self.batches[-1][0], max(self.ends.values())
        offloaded = getattr(self.model, "offload", False)  # to decode earlier, modules would move at every chunk
        after = None if offloaded else getattr(self.model, "frames_after", None)
        frames, denoised, decoded, before = [], [], [], 0
        for done, stamp in self.taken:
            ready = min(after(done), total) if after and done < slots else total if done == slots else 0
            if ready > before:  # else the decoder gives nothing new yet
                frames.append(ready)
                denoised.append(self._seconds(stamp))
                decoded.append(next(seconds for count, seconds in self.batches if count >= ready))
                before = ready
        return Chunks(tuple(frames), tuple(denoised), tuple(decoded), after is not None)

    def _now(self) -> Any:
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.model.device))
        return event

    def _seconds(self, stamp: Any) -> float:
        return float(self.start.elapsed_time(stamp)) / 1000 if self.cuda else float(stamp - self.start)


def finishing(rows: Sequence[Row]) -> dict[int, int]:
    """{iteration: n}: after this iteration the first n slots of the video are final, more than before it.

    A slot that no row updates belongs to a given image or video; it is final from the start.
    """
    last = {slot: row.iteration for row in rows for slot in row.updating}
    found, latest = {}, -1
    for slot in range(max(row.slots.stop for row in rows)):
        latest = max(latest, last.get(slot, -1))
        found[latest] = slot + 1
    found.pop(-1, None)
    return found
