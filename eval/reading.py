"""Reading a video file: the frames that a player shows, upright, whole and unharmed, or an error that names the file.

What counts is decoded and shown frames: an edit list may hide some, a codec may hold frames that are never shown, and
a decoder conceals what it could not decode. None of that can be seen from the number of packets.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from eval.lossless import lossless
from eval.upright import matrix_of, upright

STILL_FORMATS = ("image2", "_pipe", "tty")  # demuxers that would open a picture or a text file as one frame
CHECKS = {"err_detect": "crccheck+bitstream+buffer"}  # what a decoder looks for besides: FFV1's checksums, say
NAMED = 10  # damaged frames that an error lists


class VideoError(ValueError):
    """A video file that cannot be read or written as asked; the message names the file."""


@dataclass(frozen=True)
class VideoInfo:
    """What a file holds. `frames`, `height` and `width` are as shown: after its edit list and its display matrix."""

    frames: int
    height: int
    width: int
    fps: float
    codec: str
    pixel_format: str
    path: Path

    @property
    def lossless(self) -> bool | None:
        """Whether it holds exactly the RGB bytes that were encoded, None where that cannot be told. Decodes it all."""
        return lossless(self.path)


@dataclass
class _Read:
    """What was met while a file was read."""

    shown: int = 0
    packets: int = 0
    damaged: set[int] = field(default_factory=set)  # numbers of shown frames


def read(path: str | Path, batch: int = 8) -> Iterator[np.ndarray]:
    """Yields the frames of a file as shown, in order, as uint8 (up to `batch`, H, W, 3).

    Raises VideoError for a file that is no video, that stops before the number of frames it declares, whose pixels are
    grey or carry an alpha channel, or, at its end, that holds damaged frames: their numbers are in the message.
    """
    path, pending, count = Path(path), [], _Read()
    with _opened(path) as (container, stream):
        _checked_pixels(path, stream)
        packets, declared = _declared(container, stream)
        size: tuple[int, ...] | None = None
        for picture in _pictures(path, container, stream, count):
            size = size or picture.shape
            if picture.shape != size:
                raise VideoError(
                    f"{path}: frame {count.shown - 1} is {picture.shape[1]}×{picture.shape[0]} in a video "
                    f"of {size[1]}×{size[0]}; one size is wanted throughout. Write it again."
                )
            pending.append(picture)
            if len(pending) == batch:
                yield np.stack(pending)
                pending = []
    if pending:
        yield np.stack(pending)
    if count.damaged:
        raise VideoError(
            f"{path}: {_frames(sorted(count.damaged))} damaged (the decoder met errors there, and what "
            "follows from them is wrong too). Copy or generate it again."
        )
    if count.shown == 0 or count.packets < packets or count.shown < declared:
        raise VideoError(
            f"{path}: {count.shown} frames decode of the {max(declared, count.shown)} it declares; the "
            "file is cut short. Copy or generate it again."
        )


def read_all(path: str | Path) -> np.ndarray:
    """All frames at once, uint8 (T, H, W, 3): for short videos; 257 frames of 544×960 are 0.4 GB."""
    return np.concatenate(list(read(path)))


def probe(path: str | Path) -> VideoInfo:
    """Size, frame count, rate and codec as a player sees them; raises VideoError as `read` does.

    An mp4 or mov lists its frames; those of other files are counted by decoding them.
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
    """The upright pictures (H, W, 3) of a stream; errors of the decoder are noted in `count` and passed over."""
    stream.codec_context.options = CHECKS
    if stream.codec_context.name == "ffv1":  # what its threads would log could not be caught
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
    """The frames of a packet, and whether one had a checksum that is wrong, which FFV1's decoder only logs."""
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
    """The number of a packet's frame among those shown, as its time tells it."""
    rate = stream.average_rate or stream.guessed_rate
    if packet.pts is None or not rate:
        return count.shown
    return max(0, round((packet.pts - (stream.start_time or 0)) * packet.time_base * rate))


def _declared(container: Any, stream: Any) -> tuple[int, int]:
    """Packets and shown frames that the file lists; 0 and 0 where it lists none, or not the shown ones."""
    if "mov" not in container.format.name or not stream.frames:
        return 0, 0
    entries = stream.index_entries  # with the edit list applied: what it hides is marked
    return len(entries), sum(not entry.is_discard for entry in entries)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    if not path.is_file():
        raise VideoError(f"{path}: no such file")
    try:
        with av.open(f"file:{path}") as container:  # without "file:" a colon in the name would pass for a protocol
            stream = container.streams.best("video")
            if stream is None or any(name in container.format.name for name in STILL_FORMATS):
                raise VideoError(
                    f"{path}: holds no video stream (format {container.format.name}); "
                    "an mp4, mkv, mov, webm or avi is wanted."
                )
            yield container, stream
    except (av.FFmpegError, EOFError) as error:
        raise VideoError(f"{path}: not a readable video, or cut short ({error}). Copy or generate it again.") from error


def _checked_pixels(path: Path, stream: Any) -> None:
    pixels = stream.codec_context.format
    if pixels is None:
        raise VideoError(f"{path}: declares no pixel format; the file is damaged. Copy or generate it again.")
    if len(pixels.components) != 3:
        kind = {1: "grey", 2: "grey with alpha", 4: "colour with alpha"}.get(len(pixels.components), "unknown")
        raise VideoError(
            f"{path}: pixel format {pixels.name} ({kind}); three colour channels are wanted. Convert it to RGB first."
        )


def _frames(numbers: Sequence[int]) -> str:
    if len(numbers) == 1:
        return f"frame {numbers[0]} is"
    more = f" and {len(numbers) - NAMED} more" if len(numbers) > NAMED else ""
    return f"frames {', '.join(map(str, numbers[:NAMED]))}{more} are"
