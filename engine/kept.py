"""Answers that take long and depend on files alone, kept in the user's cache folder: delete it whenever you like."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

FOLDER = "SCOPE_CACHE"  # the environment variable that names another folder
SOURCES = Path(__file__).resolve().parents[1]


def kept(what: str, files: Iterable[Path], make: Callable[[], str]) -> str:
    """What `make` returns, or what it returned before for the same `what` and files of the same size, age and place.

    What `make` raises is raised and not kept. A folder that cannot be written keeps nothing.
    """
    place = _folder() / f"{_digest(what, files)}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        return str(json.loads(place.read_text(encoding="utf-8"))["is"])
    found = make()
    with suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        draft = place.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps({"of": what, "is": found}), encoding="utf-8")
        draft.replace(place)
    return found


def sources(*packages: str) -> list[Path]:
    """The files of some of our packages: what is kept is asked again when the code that made it has changed."""
    return [path for package in packages for path in sorted((SOURCES / package).rglob("*.py"))]


def _folder() -> Path:
    given = os.environ.get(FOLDER)
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(given) if given else Path(home) / "scope-harness"


def _digest(what: str, files: Iterable[Path]) -> str:
    seals = []
    for path in files:
        with suppress(OSError):  # one that has gone is no part of what was kept
            at = path.stat()
            seals.append(f"{path.resolve()}|{at.st_size}|{at.st_mtime_ns}|{at.st_ctime_ns}|{at.st_ino}")
    return hashlib.sha256("\n".join([what, *sorted(seals)]).encode()).hexdigest()[:32]
