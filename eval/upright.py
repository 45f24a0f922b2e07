"""Rotates and mirrors frames by the display matrix of the file, as players do.

A phone stores the picture of its sensor, with the rotation as metadata. Without this rotation, frames would be compared
with a reference of another orientation.
"""

from typing import Any

import numpy as np
from av.sidedata.sidedata import Type


def matrix_of(frame: Any) -> tuple[int, int, int, int] | None:
    """The directions (a, b, c, d), each -1, 0 or 1, of a decoded frame's display matrix; None if there is none.

    The pixel (x, y) of the stored frame is shown at (a x + c y, b x + d y), shifted so that the picture starts at 0.
    Raises ValueError if the rotation is not a multiple of 90 degrees.
    """
    try:
        found = frame.side_data.get(Type.DISPLAYMATRIX)
    except ValueError:  # with unknown side data PyAV lists none, but it still reads the angle
        quarter = round(frame.rotation / 90) % 4
        return ((1, 0, 0, 1), (0, -1, 1, 0), (-1, 0, 0, -1), (0, 1, -1, 0))[quarter] if quarter else None
    if found is None:
        return None
    a, b, _, c, d, *_ = memoryview(found).cast("B").cast("i").tolist()
    largest = max(map(abs, (a, b, c, d)))
    if not largest:
        return None
    # players rotate by multiples of 90 degrees; small remainders are the rounding of a sine
    directions = tuple(round(value / largest) if abs(value) > 0.01 * largest else 0 for value in (a, b, c, d))
    if sorted(map(abs, directions)) != [0, 0, 1, 1] or abs(directions[0]) != abs(directions[3]):
        raise ValueError("its display matrix does not rotate it by a multiple of 90 degrees; write it again upright")
    return directions  # type: ignore[return-value]


def upright(picture: np.ndarray, matrix: tuple[int, int, int, int] | None) -> np.ndarray:
    """A stored picture (H, W, 3) as it is shown; (W, H, 3) after a rotation by 90 degrees."""
    if matrix is None:
        return picture
    a, b, c, d = matrix
    if not a:  # x and y are exchanged
        picture, a, d = picture.transpose(1, 0, 2), c, b
    return picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
