"""Checking weight files before minutes are spent on them, and naming what they hold."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path


class WeightsError(RuntimeError):
    """A checkpoint is missing, cut short or of another model; says the file and what to do."""


def read_header(path: Path) -> dict[str, dict]:
    """The tensors that a safetensors file declares, {name: {dtype, shape, data_offsets}}, without reading them.

    Raises WeightsError if the file is missing, is no safetensors file, or is shorter than its header says.
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
    """12 hex digits that change when the content of any of `files` does; order does not matter."""
    parts = sorted(f"{path.name}:{_sha256(path, path.stat().st_size, path.stat().st_mtime_ns)}" for path in files)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


@lru_cache(maxsize=256)
def _sha256(path: Path, size: int, changed: int) -> str:
    """Keyed by size and time of change, so that a file is read once per process and again when it is replaced."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
