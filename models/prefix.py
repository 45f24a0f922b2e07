"""Reading the prefix: the image or video that the generated video continues."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import torch
from av.video.frame import VideoFrame
from torch import Tensor

from models.orientation import SIDEWAYS, orientation, turned

AS_NAMED = {"pattern_type": "none"}  # `%d` in a file name is no pattern for a series of files


def read_prefix(path: Path, frames: int, fps: int, height: int, width: int) -> Tensor:
    """The first `frames` frames of a video or image at `fps`, upright and scaled: uint8 RGB (frames, height, width, 3).

    Each frame of the result is the frame that the video shows at that time, counted from its first frame.

    Raises:
        ValueError: the file cannot be read, is too short, or has a damaged frame.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no prefix at {path}; give an image or a video with model.prefix=FILE")
    found: list[Tensor] = []
    shown: Tensor | None = None
    try:
        with av.open(f"file:{path}", options=AS_NAMED) as container:  # without "file:", `a:` would be a protocol
            for time, frame in _frames(path, container):
                while shown is not None and len(found) < frames and len(found) / fps < time - 1e-6:
                    found.append(shown)
                if len(found) == frames:
                    break
                shown = _scaled(frame, height, width, orientation(path, frame))
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(f"{path} is not a readable image or video ({error}); give another model.prefix") from error
    if shown is not None and len(found) < frames:
        found.append(shown)
    if len(found) < frames:
        raise ValueError(
            f"{path} has {len(found)} frames at {fps} fps, want {frames}; lower model.prefix_frames (an image: 1)"
        )
    return torch.stack(found)


def _frames(path: Path, container: Any) -> Iterator[tuple[float, VideoFrame]]:
    """(seconds since the first frame, frame) for each frame. Raises ValueError for a damaged frame."""
    stream = container.streams.best("video")
    if stream is None:
        raise ValueError(f"{path} has no video stream; give an image or a video with model.prefix=FILE")
    first: float | None = None
    for number, frame in enumerate(container.decode(stream)):
        if frame.is_corrupt:
            raise ValueError(f"{path}: frame {number} is damaged; give a whole file with model.prefix=FILE")
        first = (frame.time or 0.0) if first is None else first
        yield (frame.time or 0.0) - first, frame


def _scaled(frame: VideoFrame, height: int, width: int, number: int) -> Tensor:
    """The frame scaled and then rotated upright, uint8 (height, width, 3)."""
    rows, columns = (width, height) if number in SIDEWAYS else (height, width)
    scaled = frame.reformat(width=columns, height=rows, format="rgb24", interpolation="BICUBIC")
    return turned(torch.from_numpy(scaled.to_ndarray()), number)
