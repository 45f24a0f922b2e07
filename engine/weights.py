"""Checks of weight files before they are loaded, and a hash of their content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path


class WeightsError(RuntimeError):
    """A checkpoint is missing, cut short or of another model. The message names the file and says what to do."""


def read_header(path: Path) -> dict[str, dict]:
    """The tensors that a safetensors file declares, {name: {dtype, shape, data_offsets}}, without reading them.

    Raises WeightsError if the file is missing, is not a safetensors file, or its size differs from its header's.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= size - 8:
                raise ValueError("its header does not fit")
            header = json.loads(file.read(length))
    except FileNotFoundError:
        raise WeightsError(f"{path} is missing") from None
    except (ValueError, OSError) as error:
        raise WeightsError(f"{path} is not a readable safetensors file ({error}); fetch it again") from None
    header.pop("__metadata__", None)
    end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if size != 8 + length + end:
        raise WeightsError(f"{path} is cut short: {size} bytes instead of {8 + length + end}; fetch it again")
    return header


def digest(files: Iterable[Path]) -> str:
    """12 hex digits over names and content of `files`. The order of `files` does not matter."""
    parts = sorted(f"{path.name}:{_sha256(path, path.stat().st_size, path.stat().st_mtime_ns)}" for path in files)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


@lru_cache(maxsize=256)
def _sha256(path: Path, size: int, changed: int) -> str:
    """The hash of a file. Size and time of change are in the cache's key, so that a replaced file is read again."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
