"""Claims say which process is generating which video, so that jobs with a common store do not generate it twice.

A claim is the file RESULTS/.claims/<cell>.<key>, which only one process can create. Its owner touches it while it
works. Another process may take the claim over in two cases. First, the owner is gone; only a process of the same PID
namespace can check this. Second, the claim was not touched for STALE seconds. The clocks of hosts differ, so the time
stamp alone is not enough: we must also have seen no touch for DOUBT seconds of our own clock. After STALE seconds of
our own clock without a touch, the time stamp does not matter. A claim is not a lock: if two processes generate the same
video, the store keeps the first.
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
STALE = 300.0  # seconds without a touch until the owner counts as gone; raising it: longer waits after a power cut
DOUBT = 3 * BEAT  # seconds for which an old claim is watched; raising it: safer, longer waits
BEATING = "claims"
_held: dict[Path, bytes] = {}  # the claims of this process, and their content, which is unique
_seen: dict[Path, Look] = {}  # what we last saw of the claims of other processes


@dataclass(frozen=True)
class Holder:
    """The owner of a claim, and the video that it claims."""

    cell: str  # model/method-speed
    key: str
    host: str
    pid: int
    place: str = ""  # the PID namespace of `pid`, see store.files.place; "" in claims of older versions
    since: str = ""  # start of the claim, by the owner's clock

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" + (f" since {self.since}" if self.since else "")


@dataclass
class Look:
    """The time stamp of a claim (ns), and since when it has not changed (seconds of this process's clock)."""

    stamp: int
    since: float
    moved: bool = False  # we saw its owner touch it


class Claims:
    """The claims of one store. A thread touches those of this process."""

    def __init__(self, root: Path) -> None:
        self.folder = root.absolute() / ".claims"

    @contextmanager
    def claim(self, cell: str, key: str) -> Iterator[bool]:
        """Claim a video until the block ends. Yields False if another process has claimed it."""
        path = self._path(cell, key)
        mine = self._take(path, cell, key)
        try:
            yield mine
        finally:
            if mine:
                self._release(path)

    def holders(self) -> Iterator[Holder]:
        """The owners of all claims that are not stale, as far as this process can tell."""
        for path in sorted(self.folder.glob("[!.]*")):
            holder = _read(path)
            if holder and not self._stale(path, holder):
                yield holder

    def holder(self, cell: str, key: str) -> Holder | None:
        """The owner of the claim on a video; None if there is no readable claim."""
        return _read(self._path(cell, key))

    def sweep(self) -> list[Path]:
        """Remove stale claims; returns their paths."""
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
            if path.read_bytes() == content:  # otherwise another process took the claim over
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
        """Remove a stale claim; False if another process was faster. A claim moved by mistake is put back."""
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
    """Start the thread that touches our claims, unless it runs. A forked process needs its own thread."""
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
    """The owner in a claim file; None if the file is incomplete, e.g. still being written."""
    try:
        found = json.loads(path.read_bytes())
        host = str(found["host"])
        where, since = str(found.get("place", "")), str(found.get("since", ""))
        return Holder(str(found["cell"]), str(found["key"]), host, int(found["pid"]), where, since)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _clock(folder: Path) -> float:
    """The time (seconds) by the clock that stamps files in `folder`. On a network share it is not our clock."""
    probe = folder / f".clock.{owner()}"
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        with suppress(OSError):
            probe.unlink()
