"""The image or video that a generated one goes on from."""

from __future__ import annotations

from pathlib import Path

import av
import torch
from av.video.frame import VideoFrame
from torch import Tensor


def read_prefix(path: Path, frames: int, fps: int, height: int, width: int) -> Tensor:
    """The first `frames` frames at `fps` of a video, or an image, scaled; uint8 RGB (frames, height, width, 3).

    A frame of the result is the last one shown at its moment.

    Raises:
        ValueError: the file cannot be read, or is shorter than that.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no prefix at {path}; give an image or a video with model.prefix=FILE")
    found: list[Tensor] = []
    shown: Tensor | None = None
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                while shown is not None and len(found) < frames and len(found) / fps < (frame.time or 0.0) - 1e-6:
                    found.append(shown)
                if len(found) == frames:
                    break
                shown = _scaled(frame, height, width)
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(f"{path} is no image or video that can be read ({error})") from error
    if shown is not None and len(found) < frames:
        found.append(shown)
    if len(found) < frames:
        raise ValueError(
            f"{path} has {len(found)} frames at {fps} a second, want {frames}; lower model.prefix_frames (an image: 1)"
        )
    return torch.stack(found)


def _scaled(frame: VideoFrame, height: int, width: int) -> Tensor:
    scaled = frame.reformat(width=width, height=height, format="rgb24", interpolation="BICUBIC")
    return torch.from_numpy(scaled.to_ndarray())
