"""Writes video files: a lossless one for metrics and a small lossy one to watch. eval/reading.py reads them.

Frames are uint8 RGB arrays (T, H, W, 3). The lossless file is H.264 with 4:4:4 RGB planes and quantiser 0; PyAV, OpenCV
and decord decode it to the written bytes. Browsers cannot play it, so there is a second, lossy 4:2:0 copy. Metrics read
only the lossless file: at crf 18, a video and its lossy copy differ by 44 dB.
"""

import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from torch import Tensor

from eval.reading import VideoError, VideoInfo, probe, read, read_all

__all__ = ["VideoError", "VideoInfo", "probe", "read", "read_all", "write_lossless", "write_preview"]

Frames = np.ndarray | Tensor

LOSSLESS = {"qp": "0", "preset": "ultrafast"}
# asm=avx2: with AVX-512 the encoder's macroblock tree gives different bytes on each run for the same frames.
PREVIEW = {
    "crf": "18",
    "preset": "medium",
    "x264-params": "asm=avx2:threads=1:colorprim=bt709:transfer=bt709:colormatrix=bt709",
}


def write_lossless(path: str | Path, frames: Frames | Iterable[Frames], fps: float = 24) -> int:
    """Write frames bit for bit and return their number.

    Args:
        path: the .mp4 to write. The file gets this name only when it is complete.
        frames: uint8 (T, H, W, 3), array or tensor, or an iterable of such batches (one size throughout).
        fps: frames per second, above 0.
    """
    return _write(Path(path), frames, fps, "libx264rgb", "rgb24", LOSSLESS)


def write_preview(path: str | Path, frames: Frames | Iterable[Frames], fps: float = 24) -> int:
    """Write a copy that every browser plays (H.264 4:2:0, crf 18, index first) and return its frame count.

    Arguments as for `write_lossless`. 4:2:0 needs even sizes, so odd sizes get one repeated line or column of pixels.
    """
    return _write(Path(path), frames, fps, "libx264", "yuv420p", PREVIEW)


def _write(
    path: Path, frames: Frames | Iterable[Frames], fps: float, codec: str, pixel_format: str, options: dict[str, str]
) -> int:
    if not fps > 0:
        raise VideoError(f"{path}: fps must be above 0, got {fps}")
    batches = map(_array, [frames] if isinstance(frames, Frames) else frames)
    staging = path.with_name(f".{path.name}.{os.getpid()}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        count = _encode(path, staging, batches, Fraction(fps).limit_denominator(1001), codec, pixel_format, options)
        os.replace(staging, path)
    finally:
        staging.unlink(missing_ok=True)
    return count


def _encode(
    path: Path,
    staging: Path,
    batches: Iterator[np.ndarray],
    rate: Fraction,
    codec: str,
    pixel_format: str,
    options: dict[str, str],
) -> int:
    first = next(batches, None)
    if first is None or len(first) == 0:
        raise VideoError(f"{path}: no frames to write")
    size = _checked(path, first).shape[1:3]
    even = tuple(side + side % 2 for side in size) if codec == "libx264" else size
    count = 0
    index_first = {"movflags": "+faststart"} if codec == "libx264" else {}  # a browser can start early
    with av.open(f"file:{staging}", "w", format="mp4", options=index_first) as container:
        stream = cast(av.VideoStream, container.add_stream(codec, rate=rate, options=options))
        stream.height, stream.width = even
        stream.pix_fmt = pixel_format
        stream.codec_context.time_base = stream.time_base = 1 / rate
        while first is not None:
            for array in _padded(_checked(path, first, size), even):
                frame = av.VideoFrame.from_ndarray(array, format="rgb24")
                if pixel_format != "rgb24":  # browsers assume BT.601 for small videos without this tag
                    frame = frame.reformat(format=pixel_format, dst_colorspace="ITU709", dst_color_range="MPEG")
                frame.pts, frame.time_base = count, 1 / rate
                container.mux(stream.encode(frame))
                count += 1
            first = next(batches, None)
        container.mux(stream.encode())
    return count


def _checked(path: Path, batch: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
    if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[-1] != 3:
        raise VideoError(
            f"{path}: frames must be uint8 (T, H, W, 3), got {batch.dtype} {tuple(batch.shape)}; "
            "multiply floats by 255 and round, repeat a grey channel three times, remove an alpha channel."
        )
    if size is not None and batch.shape[1:3] != size:
        raise VideoError(
            f"{path}: a batch of {batch.shape[2]}×{batch.shape[1]} follows one of {size[1]}×{size[0]}; "
            "all frames must have one size."
        )
    return np.ascontiguousarray(batch)


def _padded(batch: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    rows, columns = size[0] - batch.shape[1], size[1] - batch.shape[2]
    return np.pad(batch, ((0, 0), (0, rows), (0, columns), (0, 0)), mode="edge") if rows or columns else batch


def _array(batch: Frames) -> np.ndarray:
    return batch.cpu().numpy() if isinstance(batch, Tensor) else np.asarray(batch)
