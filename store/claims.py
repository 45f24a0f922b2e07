"""Who is making which video now, so that jobs that share a store do not make one twice: RESULTS/.claims/<cell>.<key>.

A claim is a file that only one process can create. Its owner touches it while it works; one that was not touched for
STALE seconds, or whose process of this host is gone, may be taken over. It is a courtesy, not a lock: should two
processes ever make one video, the store keeps the first.
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

from store.files import HOST, abandoned, owner

BEAT = 30.0  # seconds between touches
STALE = 300.0  # seconds without one after which the owner counts as gone; raising it: waits longer after a power cut


@dataclass(frozen=True)
class Holder:
    """Who holds a claim, and on what."""

    cell: str  # model/method-speed
    key: str
    host: str
    pid: int

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class Claims:
    """The claims of one store, and the thread that keeps our own alive."""

    def __init__(self, root: Path) -> None:
        self.folder = root / ".claims"
        self._held: dict[Path, int] = {}  # path -> inode
        self._beating: threading.Thread | None = None

    @contextmanager
    def claim(self, cell: str, key: str) -> Iterator[bool]:
        """Whether the video is ours to make, and nobody else's until the block ends."""
        path = self.folder / f"{cell.replace('/', '.')}.{key}"
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

    def sweep(self) -> list[Path]:
        """Remove the claims of those who are gone, and say which they were."""
        gone = []
        for path in sorted(self.folder.glob("[!.]*")):
            if self._stale(path, _read(path)) and self._break(path):
                gone.append(path)
        return gone

    def _take(self, path: Path, cell: str, key: str) -> bool:
        path.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(2):
            try:
                handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            except FileExistsError:
                if not self._stale(path, _read(path)) or not self._break(path):
                    return False
                continue
            with os.fdopen(handle, "w") as file:
                json.dump({"cell": cell, "key": key, "host": HOST, "pid": os.getpid()}, file)
                self._held[path] = os.fstat(file.fileno()).st_ino
            self._keep_alive()
            return True
        return False

    def _release(self, path: Path) -> None:
        inode = self._held.pop(path)
        with suppress(FileNotFoundError):
            if os.stat(path).st_ino == inode:  # else we slept so long that another took it over
                os.unlink(path)

    def _stale(self, path: Path, holder: Holder | None) -> bool:
        if path in self._held:
            return False
        if holder and abandoned(holder.host, holder.pid):
            return True
        try:
            return _clock(self.folder) - os.stat(path).st_mtime > STALE
        except FileNotFoundError:
            return False

    def _break(self, path: Path) -> bool:
        """Take a stale claim away; False if another was faster. What was moved by mistake is put back."""
        aside = path.with_name(f".{path.name}.{owner()}")
        try:
            inode = os.stat(path).st_ino
            os.rename(path, aside)
        except FileNotFoundError:
            return False
        ours = os.stat(aside).st_ino == inode
        if not ours:
            with suppress(FileExistsError):
                os.link(aside, path)
        aside.unlink(missing_ok=True)
        return ours

    def _keep_alive(self) -> None:
        if self._beating is None or not self._beating.is_alive():
            self._beating = threading.Thread(target=self._beat, name="claims", daemon=True)
            self._beating.start()

    def _beat(self) -> None:
        while True:
            time.sleep(BEAT)
            for path in list(self._held):
                with suppress(OSError):
                    os.utime(path)


def _read(path: Path) -> Holder | None:
    """None for a claim that is being written, or was torn."""
    try:
        found = json.loads(path.read_bytes())
        return Holder(str(found["cell"]), str(found["key"]), str(found["host"]), int(found["pid"]))
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
