"""Files that are whole or not there: drafts that are renamed into place, flushed to disk; what a content is called."""

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
    """12 hex digits of a sha256 over what produced a video: JSON values in any order, no NaN, floats by repr.

    >>> fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": (2,), "a": 1}) != fingerprint({"a": 1, "b": 2})
    True
    """
    return hashlib.sha256(json.dumps(produced, sort_keys=True, allow_nan=False).encode()).hexdigest()[:12]


def checksum(path: str | Path) -> dict[str, Any]:
    """{"sha256": hex, "bytes": size, "changed_ns": change time} of a file.

    A change time cannot be set back and a copy has another, so a file with the size and change time that were noted
    when it was last read has the same content; one whose change time differs may.
    """
    with open(path, "rb") as file:
        found = os.fstat(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"sha256": digest, "bytes": found.st_size, "changed_ns": found.st_ctime_ns}


@contextmanager
def writing(path: Path, staging: Path | None = None) -> Iterator[Path]:
    """A name to write to, in `staging` or beside `path`; it becomes `path` when the block ends well."""
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
    """The names of the folders in `parent` that may hold records, in order."""
    with os.scandir(os.fspath(parent)) as entries:
        return sorted(e.name for e in entries if e.name[0] != "." and e.name not in reserved and e.is_dir())


def rename(source: Path, target: Path) -> bool:
    """False if the target is taken or the source is gone: another writer was faster."""
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
            raise
        return False
    return True


def fsync(path: Path) -> None:
    """Flush a file, or a folder's list of names, to disk."""
    handle = os.open(path, os.O_RDONLY)  # not open(): a folder too
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def owner() -> str:
    """A name that no other draft has: place, process, count."""
    return f"{place()}.{os.getpid()}.{next(_count)}"


def place() -> str:
    """Where the number of a process means the same process: host, and 8 hex digits of its boot and its PID namespace.

    Two containers of one host have the same host name, and the same numbers for other processes.
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
    """Whether what process `pid` of the place `where` left, unknown to this process as its own, has lost its owner.

    False for another place: from here one cannot tell. A host without the rest is how older versions named a place.
    """
    if where not in (place(), HOST):
        return False
    return pid == os.getpid() or not _exists(pid)  # the number was given again


def _exists(pid: int) -> bool:
    try:
        if os.readlink("/proc/self") == str(os.getpid()):
            return bool(psutil.pid_exists(pid))
        os.kill(pid, 0)  # /proc is that of another namespace: ask the kernel
    except ProcessLookupError:
        return False
    except OSError:
        return bool(psutil.pid_exists(pid))
    return True
