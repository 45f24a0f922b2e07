"""Writes files completely or not at all (flush, then rename), and computes checksums and keys."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import psutil

FULL = (errno.ENOSPC, errno.EDQUOT)
HOST = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())
_count = itertools.count()


def fingerprint(produced: Mapping[str, Any]) -> str:
    """12 hex digits of the sha256 of `produced` as JSON: in any order of names, without NaN, floats by repr.

    >>> fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": (2,), "a": 1}) != fingerprint({"a": 1, "b": 2})
    True
    """
    return hashlib.sha256(json.dumps(produced, sort_keys=True, allow_nan=False).encode()).hexdigest()[:12]


def checksum(path: str | Path) -> dict[str, Any]:
    """{"sha256": hex, "bytes": size, "changed_ns": change time} of a file.

    A change time cannot be set back, and a copy has a new one. So a file with the same size and change time as before
    has the same content. With another change time, the content may be the same or not.
    """
    with open(path, "rb") as file:
        found = os.fstat(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"sha256": digest, "bytes": found.st_size, "changed_ns": found.st_ctime_ns}


@contextmanager
def writing(path: Path, staging: Path | None = None) -> Iterator[Path]:
    """A draft path in `staging`, or next to `path`. It is renamed to `path` if the block ends without an error."""
    draft = (staging or path.parent) / f".{path.stem}.{owner()}{path.suffix}"
    draft.parent.mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield draft
        fsync(draft)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def folders(parent: str | Path, reserved: frozenset[str]) -> list[str]:
    """The sorted names of the folders in `parent` that may hold records."""
    with os.scandir(os.fspath(parent)) as entries:
        return sorted(e.name for e in entries if e.name[0] != "." and e.name not in reserved and e.is_dir())


def rename(source: Path, target: Path) -> bool:
    """Rename a folder; False if the target exists or the source is gone, because another writer was faster."""
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
            raise
        return False
    return True


def fsync(path: Path) -> None:
    """Flush a file, or the list of names of a folder, to disk."""
    handle = os.open(path, os.O_RDONLY)  # not open(), which cannot open a folder
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def owner() -> str:
    """A unique name for a draft: place, process, count."""
    return f"{place()}.{os.getpid()}.{next(_count)}"


def place() -> str:
    """An identifier of this boot and PID namespace: the host name and 8 hex digits.

    A process number identifies a process only within one place: two containers of a host have the same host name, and
    may use the same number for different processes.
    """
    space = ""
    with suppress(OSError):
        space = os.readlink("/proc/self/ns/pid")
    named = f"{_boot()}{space}"
    return f"{HOST}-{hashlib.sha256(named.encode()).hexdigest()[:8]}" if named else HOST


@cache
def _boot() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def abandoned(where: str, pid: int) -> bool:
    """Whether process `pid` of the place `where` has ended. Call it only for files that this process did not write.

    False for another place, because this process cannot check it. In older versions a place is only the host name.
    """
    if where not in (place(), HOST):
        return False
    return pid == os.getpid() or not _exists(pid)  # `pid` was reused for this process


def _exists(pid: int) -> bool:
    try:
        if os.readlink("/proc/self") == str(os.getpid()):
            return bool(psutil.pid_exists(pid))
        os.kill(pid, 0)  # /proc may belong to another namespace, so ask the kernel
    except ProcessLookupError:
        return False
    except OSError:
        return bool(psutil.pid_exists(pid))
    return True
