"""How a picture or a video wants to be turned before it is shown: a camera's EXIF orientation, or a display matrix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame
from PIL import Image, UnidentifiedImageError
from torch import Tensor

EXIF_ORIENTATION = 0x0112
# (a, b, c, d) of the display matrix, where a stored pixel (x, y) is shown at (a x + c y, b x + d y): EXIF's number
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
SIDEWAYS = (5, 6, 7, 8)  # height and width change places
FLIPS: dict[int, tuple[int, ...]] = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}  # after transposing


def orientation(path: Path, frame: VideoFrame) -> int:
    """EXIF's number, 1 to 8, for a frame of the file: 1 is upright. ValueError for a slanting display matrix."""
    try:
        found: Any = frame.side_data.get(Type.DISPLAYMATRIX)  # type: ignore[call-overload]
    except ValueError:  # side data of a kind that PyAV does not know, as a photograph's EXIF
        found = None
    if found is None:
        return _of_picture(path)
    a, b, _, c, d, *_ = memoryview(found).cast("B").cast("i").tolist()
    largest = max(map(abs, (a, b, c, d))) or 1
    number = NUMBERS.get(tuple(round(value / largest) for value in (a, b, c, d)))
    slants = any(0.01 * largest < abs(value) < 0.99 * largest for value in (a, b, c, d))
    if number is None or slants:
        raise ValueError(f"{path} is turned by no multiple of 90 degrees; write it again upright")
    return number


def turned(picture: Tensor, number: int) -> Tensor:
    """A stored picture (H, W, 3) as it is shown; (W, H, 3) for the numbers of SIDEWAYS."""
    picture = picture.transpose(0, 1) if number in SIDEWAYS else picture
    return torch.flip(picture, FLIPS[number]) if number in FLIPS else picture


def _of_picture(path: Path) -> int:
    try:
        with Image.open(path) as picture:
            number = picture.getexif().get(EXIF_ORIENTATION, 1)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):  # a video, or EXIF that cannot be read
        return 1
    return number if number in range(1, 9) else 1
