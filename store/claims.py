"""Who is making which video now, so that jobs that share a store do not make one twice: RESULTS/.claims/<cell>.<key>.

A claim is a file that only one process can create. Its owner touches it while it works. It may be taken over if its
process is gone, which only a process of the same PID namespace can tell, or if it was not touched for STALE seconds.
Clocks of hosts differ, so its age is not believed alone: it must not have been touched for DOUBT seconds of our own
clock either, and is old after STALE of these whatever its date. It is a courtesy, not a lock: should two processes ever
make one video, the store keeps the first.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from store.files import HOST, abandoned, owner, place

BEAT = 30.0  # seconds between touches
STALE = 300.0  # seconds without one after which the owner counts as gone; raising it: waits longer after a power cut
DOUBT = 3 * BEAT  # seconds for which one that seems old is watched; raising it: surer, waits longer
BEATING = "claims"
_held: dict[Path, bytes] = {}  # the claims of this process, and what they say: no two say the same
_seen: dict[Path, Look] = {}  # the claims of others, as we saw them


@dataclass(frozen=True)
class Holder:
    """Who holds a claim, and on what."""

    cell: str  # model/method-speed
    key: str
    host: str
    pid: int
    place: str = ""  # where `pid` means this process; "" for a claim of an older version
    since: str = ""  # when it began, by its own clock

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" + (f" since {self.since}" if self.since else "")


@dataclass
class Look:
    """A claim's time stamp, and since when, by this process's clock, it has been the same."""

    stamp: int
    since: float
    moved: bool = False  # its owner has touched it under our eyes


class Claims:
    """The claims of one store; a thread keeps those of this process alive."""

    def __init__(self, root: Path) -> None:
        self.folder = root.absolute() / ".claims"

    @contextmanager
    def claim(self, cell: str, key: str) -> Iterator[bool]:
        """Whether the video is ours to make, and nobody else's until the block ends."""
        path = self._path(cell, key)
        mine = self._take(path, cell, key)
        try:
            yield mine
        finally:
            if mine:
                self._release(path)

    def holders(self) -> Iterator[Holder]:
        """Everybody who is at work, as far as one can tell from here."""
        for path in sorted(self.folder.glob("[!.]*")):
            holder = _read(path)
            if holder and not self._stale(path, holder):
                yield holder

    def holder(self, cell: str, key: str) -> Holder | None:
        """Who has a video, as far as one can tell from here."""
        return _read(self._path(cell, key))

    def sweep(self) -> list[Path]:
        """Remove the claims of those who are gone, and say which they were."""
        gone = []
        for path in sorted(self.folder.glob("[!.]*")):
            if self._stale(path, _read(path)) and self._break(path):
                gone.append(path)
        return gone

    def _path(self, cell: str, key: str) -> Path:
        return self.folder / f"{cell.replace('/', '.')}.{key}"

    def _take(self, path: Path, cell: str, key: str) -> bool:
        path.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(2):
            try:
                handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            except FileExistsError:
                if not self._stale(path, _read(path)) or not self._break(path):
                    return False
                continue
            since = time.strftime("%Y-%m-%d %H:%M:%S %z")
            who = {"host": HOST, "pid": os.getpid(), "place": place(), "since": since, "name": owner()}
            content = {"cell": cell, "key": key, **who}
            _seen.pop(path, None)
            with os.fdopen(handle, "wb") as file:
                _held[path] = json.dumps(content).encode()
                file.write(_held[path])
            _keep_alive()
            return True
        return False

    def _release(self, path: Path) -> None:
        content = _held.pop(path)
        with suppress(FileNotFoundError):
            if path.read_bytes() == content:  # else we slept so long that another took it over
                path.unlink()

    def _stale(self, path: Path, holder: Holder | None) -> bool:
        if path in _held:
            return False
        if holder and abandoned(holder.place or holder.host, holder.pid):
            return True
        try:
            stamp = os.stat(path).st_mtime_ns
        except FileNotFoundError:
            _seen.pop(path, None)
            return False
        look = _look(path, stamp)
        watched = time.monotonic() - look.since
        if watched > STALE:
            return True
        doubt = DOUBT if holder and holder.place else 0.0
        return not look.moved and watched >= doubt and _clock(self.folder) - stamp / 1e9 > STALE

    def _break(self, path: Path) -> bool:
        """Take a stale claim away; False if another was faster. What was moved by mistake is put back."""
        aside = path.with_name(f".{path.name}.{owner()}")
        try:
            judged = path.read_bytes()
            os.rename(path, aside)
        except FileNotFoundError:
            return False
        ours = aside.read_bytes() == judged
        if not ours:
            with suppress(FileExistsError):
                os.link(aside, path)
        aside.unlink(missing_ok=True)
        return ours


def _keep_alive() -> None:
    """Start the thread that touches our claims, unless it runs; a forked process has to start its own."""
    if not any(thread.name == BEATING for thread in threading.enumerate()):
        threading.Thread(target=_beat, name=BEATING, daemon=True).start()


def _beat() -> None:
    while True:
        time.sleep(BEAT)
        for path in list(_held):
            with suppress(OSError):
                os.utime(path)


def _look(path: Path, stamp: int) -> Look:
    look = _seen.get(path)
    if look is None or look.stamp != stamp:
        look = _seen[path] = Look(stamp, time.monotonic(), look is not None and stamp > look.stamp)
    return look


def _read(path: Path) -> Holder | None:
    """None for a claim that is being written, or was torn."""
    try:
        found = json.loads(path.read_bytes())
        host = str(found["host"])
        where, since = str(found.get("place", "")), str(found.get("since", ""))
        return Holder(str(found["cell"]), str(found["key"]), host, int(found["pid"]), where, since)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _clock(folder: Path) -> float:
    """The time by the clock that stamps the files there, which on a network share is not ours."""
    probe = folder / f".clock.{owner()}"
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        with suppress(OSError):
            probe.unlink()
