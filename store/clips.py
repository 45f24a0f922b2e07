"""Small copies of videos for bundles: all frames at the same rate, at most `SIDE` pixels wide and high."""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path
from typing import cast

from store.checks import PREVIEW
from store.record import Record, StoreError

SIDE = 160  # pixels of the longer side; raising it: sharper clips, larger bundles
OPTIONS = {
    "crf": "32",
    "preset": "veryfast",
    "x264-params": "asm=avx2:threads=1",
}  # the same frames give the same bytes
MP4 = b"ftyp"  # at byte 4 of an mp4


def of(record: Record) -> str:
    """The clip of a record's video as base64; "" if it has no video. Raises StoreError if the video cannot be read."""
    path = record.path / PREVIEW
    return base64.b64encode(shrunk(path)).decode() if path.exists() else ""


def shrunk(path: Path) -> bytes:
    """The bytes of a small mp4 (H.264 4:2:0) with the frames of `path`. Raises StoreError if it cannot be read."""
    import av  # only for previews: reading a bundle needs no codec

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "clip.mp4"
        try:
            with av.open(str(path)) as source, av.open(str(target), "w", options={"movflags": "+faststart"}) as made:
                shown = source.streams.video[0]
                stream = cast(av.VideoStream, made.add_stream("libx264", rate=shown.average_rate, options=OPTIONS))
                stream.width, stream.height = _size(shown.width, shown.height)
                stream.pix_fmt = "yuv420p"
                for number, frame in enumerate(source.decode(shown)):
                    small = frame.reformat(stream.width, stream.height, "yuv420p")
                    small.pts, small.time_base = number, 1 / stream.codec_context.framerate
                    made.mux(stream.encode(small))
                made.mux(stream.encode())
        except (av.FFmpegError, IndexError) as error:
            raise StoreError(f"{path} gives no preview ({error}); export without --previews") from error
        return target.read_bytes()


def content(folder: Path, clip: str) -> dict[str, str]:
    """The content of a preview's line, for the record in `folder`."""
    return {**dict(zip(("model", "cell", "key"), folder.parts[-3:], strict=True)), "mp4": clip}


def decoded(clip: str) -> bytes:
    """The bytes of a clip. Raises ValueError if it is no mp4."""
    found = base64.b64decode(clip, validate=True)
    if found[4:8] != MP4:
        raise ValueError("its preview is no mp4")
    return found


def _size(width: int, height: int) -> tuple[int, int]:
    """Even sides of at most `SIDE`, in about the same ratio."""
    scale = min(1.0, SIDE / max(width, height))
    return max(2, 2 * round(width * scale / 2)), max(2, 2 * round(height * scale / 2))
