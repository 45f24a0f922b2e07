"""The orientation of a picture or video, from EXIF data or a display matrix, and rotating it upright."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame
from PIL import Image, UnidentifiedImageError
from torch import Tensor

EXIF_ORIENTATION = 0x0112
# {(a, b, c, d) of the display matrix: EXIF number}; a stored pixel (x, y) is shown at (a x + c y, b x + d y)
NUMBERS: dict[tuple[int, ...], int] = {
    (1, 0, 0, 1): 1,
    (-1, 0, 0, 1): 2,
    (-1, 0, 0, -1): 3,
    (1, 0, 0, -1): 4,
    (0, 1, 1, 0): 5,
    (0, 1, -1, 0): 6,
    (0, -1, -1, 0): 7,
    (0, -1, 1, 0): 8,
}
SIDEWAYS = (5, 6, 7, 8)  # numbers that exchange height and width
FLIPS: dict[int, tuple[int, ...]] = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}  # axes, if transposed


def orientation(path: Path, frame: VideoFrame) -> int:
    """The EXIF number, 1 to 8, of a frame of the file; 1 is upright.

    Raises ValueError for a rotation that is not a multiple of 90 degrees.
    """
    try:
        found: Any = frame.side_data.get(Type.DISPLAYMATRIX)  # type: ignore[call-overload]
    except ValueError:  # side data that PyAV does not support, for example EXIF
        found = None
    if found is None:
        return _of_picture(path)
    a, b, _, c, d, *_ = memoryview(found).cast("B").cast("i").tolist()
    largest = max(map(abs, (a, b, c, d))) or 1
    number = NUMBERS.get(tuple(round(value / largest) for value in (a, b, c, d)))
    slants = any(0.01 * largest < abs(value) < 0.99 * largest for value in (a, b, c, d))
    if number is None or slants:
        raise ValueError(f"{path} has a rotation that is not a multiple of 90 degrees; save it again upright")
    return number


def turned(picture: Tensor, number: int) -> Tensor:
    """The upright picture of a stored one (H, W, 3); its shape is (W, H, 3) for a `number` in SIDEWAYS."""
    picture = picture.transpose(0, 1) if number in SIDEWAYS else picture
    return torch.flip(picture, FLIPS[number]) if number in FLIPS else picture


def _of_picture(path: Path) -> int:
    try:
        with Image.open(path) as picture:
            number = picture.getexif().get(EXIF_ORIENTATION, 1)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):  # a video, or EXIF that cannot be read
        return 1
    return number if number in range(1, 9) else 1
