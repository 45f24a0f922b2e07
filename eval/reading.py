"""Reads the frames of a video file as a player shows them. Raises an error that names the file if it is damaged.

Only decoded and shown frames count: an edit list may hide frames, a codec may contain frames that are never shown, and
a decoder hides its errors. The number of packets shows none of this.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from eval import kept_frames
from eval.lossless import lossless
from eval.upright import matrix_of, upright

STILL_FORMATS = ("image2", "_pipe", "tty")  # demuxers that open a picture or a text file as one frame
CHECKS = {"err_detect": "crccheck+bitstream+buffer"}  # additional checks of the decoder, e.g. FFV1's checksums
NAMED = 10  # most damaged frames that an error lists


class VideoError(ValueError):
    """A video file cannot be read or written. The message names the file."""


@dataclass(frozen=True)
class VideoInfo:
    """The properties of a file. `frames`, `height`, `width`: as shown, with edit list and display matrix applied."""

    frames: int
    height: int
    width: int
    fps: float
    codec: str
    pixel_format: str
    path: Path

    @property
    def lossless(self) -> bool | None:
        """Whether the file has exactly the encoded RGB bytes; None if unknown. Decodes the whole file."""
        return lossless(self.path)


@dataclass
class _Read:
    """Counts and errors while a file is read."""

    shown: int = 0
    packets: int = 0
    damaged: set[int] = field(default_factory=set)  # numbers of shown frames


def read(path: str | Path, batch: int = 8) -> Iterator[np.ndarray]:
    """Yield the frames of a file as shown, in order, as uint8 (up to `batch`, H, W, 3).

    Raises VideoError if the file is not a video, has fewer frames than it declares, or has grey pixels or an alpha
    channel. Damaged frames raise VideoError after the last frame; the message lists their numbers.
    """
    key = kept_frames.version(Path(path))
    known = kept_frames.batches(key, batch)
    yield from kept_frames.keeping(key, _decoding(Path(path), batch)) if known is None else known


def _decoding(path: Path, batch: int) -> Iterator[np.ndarray]:
    pending, count = [], _Read()
    with _opened(path) as (container, stream):
        _checked_pixels(path, stream)
        packets, declared = _declared(container, stream)
        size: tuple[int, ...] | None = None
        for picture in _pictures(path, container, stream, count):
            size = size or picture.shape
            if picture.shape != size:
                raise VideoError(
                    f"{path}: frame {count.shown - 1} is {picture.shape[1]}×{picture.shape[0]} in a video "
                    f"of {size[1]}×{size[0]}; all frames must have one size. Write it again."
                )
            pending.append(picture)
            if len(pending) == batch:
                yield np.stack(pending)
                pending = []
    if pending:
        yield np.stack(pending)
    if count.damaged:
        raise VideoError(
            f"{path}: {_frames(sorted(count.damaged))} damaged (the decoder reported errors; frames that "
            "depend on them are wrong too). Copy or generate it again."
        )
    if count.shown == 0 or count.packets < packets or count.shown < declared:
        raise VideoError(
            f"{path}: only {count.shown} of {max(declared, count.shown)} declared frames can be decoded; the "
            "file is truncated. Copy or generate it again."
        )


def read_all(path: str | Path) -> np.ndarray:
    """All frames as one array, uint8 (T, H, W, 3). For short videos: 257 frames of 544×960 are 0.4 GB."""
    return np.concatenate(list(read(path)))


def probe(path: str | Path) -> VideoInfo:
    """Size, frame count, rate and codec as a player sees them. Raises VideoError like `read`.

    An mp4 or mov lists its frames. Frames of other files are counted by decoding them.
    """
    path, count = Path(path), _Read()
    with _opened(path) as (container, stream):
        _checked_pixels(path, stream)
        context, (_, shown) = stream.codec_context, _declared(container, stream)
        rate = stream.average_rate or stream.guessed_rate or Fraction(0)
        height, width = context.height, context.width
        for picture in _pictures(path, container, stream, count):
            if count.shown == 1:
                height, width = picture.shape[:2]
            if shown:
                break
        return VideoInfo(shown or count.shown, height, width, float(rate), context.name, context.pix_fmt, path)


def _pictures(path: Path, container: Any, stream: Any, count: _Read) -> Iterator[np.ndarray]:
    """The upright pictures (H, W, 3) of a stream. Errors of the decoder are noted in `count` and not raised."""
    stream.codec_context.options = CHECKS
    if stream.codec_context.name == "ffv1":  # log messages of its threads could not be caught
        stream.codec_context.thread_count = 1
    for packet in container.demux(stream):
        count.packets += packet.size > 0
        if packet.size and packet.is_corrupt:
            count.damaged.add(_number(packet, stream, count))
        try:
            frames, betrayed = _decoded(packet, stream.codec_context.name)
        except av.error.EOFError:
            break
        except av.error.InvalidDataError:
            count.damaged.add(_number(packet, stream, count))
            continue
        for frame in frames:
            if frame.is_corrupt or betrayed:
                count.damaged.add(count.shown)
            count.shown += 1
            try:
                yield upright(frame.to_ndarray(format="rgb24"), matrix_of(frame))
            except ValueError as error:
                raise VideoError(f"{path}: {error}") from error


def _decoded(packet: Any, codec: str) -> tuple[list[Any], bool]:
    """The frames of a packet, and whether a checksum was wrong, which FFV1's decoder only logs."""
    if codec != "ffv1":
        return packet.decode(), False
    level = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture() as said:
            frames = packet.decode()
        return frames, any("CRC" in text for _, _, text in said)
    finally:
        av.logging.set_level(level)


def _number(packet: Any, stream: Any, count: _Read) -> int:
    """The number of a packet's frame among the shown frames, from its time stamp."""
    rate = stream.average_rate or stream.guessed_rate
    if packet.pts is None or not rate:
        return count.shown
    return max(0, round((packet.pts - (stream.start_time or 0)) * packet.time_base * rate))


def _declared(container: Any, stream: Any) -> tuple[int, int]:
    """The numbers of packets and of shown frames that the file lists; 0 and 0 if it does not list them."""
    if "mov" not in container.format.name or not stream.frames:
        return 0, 0
    entries = stream.index_entries  # the edit list is applied: hidden frames are marked
    return len(entries), sum(not entry.is_discard for entry in entries)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    if not path.is_file():
        raise VideoError(f"{path}: no such file")
    try:
        with av.open(f"file:{path}") as container:  # without "file:", a colon in the name means a protocol
            stream = container.streams.best("video")
            if stream is None or any(name in container.format.name for name in STILL_FORMATS):
                raise VideoError(
                    f"{path}: has no video stream (format {container.format.name}); want an mp4, mkv, mov, webm or avi."
                )
            yield container, stream
    except (av.FFmpegError, EOFError) as error:
        raise VideoError(f"{path}: not a readable video, or truncated ({error}). Copy or generate it again.") from error


def _checked_pixels(path: Path, stream: Any) -> None:
    pixels = stream.codec_context.format
    if pixels is None:
        raise VideoError(f"{path}: has no pixel format; the file is damaged. Copy or generate it again.")
    if len(pixels.components) != 3:
        kind = {1: "grey", 2: "grey with alpha", 4: "colour with alpha"}.get(len(pixels.components), "unknown")
        raise VideoError(
            f"{path}: pixel format {pixels.name} ({kind}); want three colour channels. Convert it to RGB first."
        )


def _frames(numbers: Sequence[int]) -> str:
    if len(numbers) == 1:
        return f"frame {numbers[0]} is"
    more = f" and {len(numbers) - NAMED} more" if len(numbers) > NAMED else ""
    return f"frames {', '.join(map(str, numbers[:NAMED]))}{more} are"
