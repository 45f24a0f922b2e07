"""The frames of the last few small videos, so that scoring does not decode a video again for every measure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

FILES = 4  # an Original, the video that is compared with it, and their previews
BYTES = 32 * 2**20  # of one video; larger ones are decoded each time
Version = tuple[str, int, int, int]

_kept: OrderedDict[Version, np.ndarray] = OrderedDict()


def version(path: Path) -> Version | None:
    """What changes when a file is written again: its place on the disk, its size and its time. None: no such file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return str(path.absolute()), found.st_ino, found.st_size, found.st_mtime_ns


def batches(key: Version | None, batch: int) -> Iterator[np.ndarray] | None:
    """The kept frames in new arrays, (up to `batch`, H, W, 3); None if they are not kept."""
    if key is None or key not in _kept:
        return None
    _kept.move_to_end(key)
    frames = _kept[key]
    return (frames[at : at + batch].copy() for at in range(0, len(frames), batch))


def keeping(key: Version | None, decoded: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Pass batches on. They are kept once the whole file has been read without an error, if they are small enough."""
    held: list[np.ndarray] = []
    size = 0
    for part in decoded:
        size += part.nbytes
        if size <= BYTES:
            held.append(part.copy())
        else:
            held.clear()
        yield part
    if key is not None and held and size <= BYTES:
        _kept[key] = np.concatenate(held)
        while len(_kept) > FILES:
            _kept.popitem(last=False)
