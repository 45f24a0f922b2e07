"""Runs cells in a worker process. If it dies (segmentation fault, kill), one video fails and a new worker continues."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import psutil

from sweep.cell import Order
from sweep.events import Notify
from sweep.worker import AGAIN

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 10.0  # seconds that a process gets to end normally


class Supervisor:
    """Has at most one worker, started by `start` or when it is first needed."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.orders: Connection
        self.events: Connection

    def start(self) -> None:
        """Start the worker (sweep/worker.py). Its imports run in parallel with this process."""
        theirs, self.orders = Pipe(duplex=False)
        self.events, told = Pipe(duplex=False)
        path = os.pathsep.join(dict.fromkeys([*filter(None, sys.path), str(ROOT)]))
        command = [sys.executable, "-m", "sweep.worker", str(theirs.fileno()), str(told.fileno())]
        self.process = subprocess.Popen(
            command,
            pass_fds=(theirs.fileno(), told.fileno()),
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
        )
        theirs.close()
        told.close()

    def do(
        self, cells: Sequence[tuple[str, Order]], notify: Notify, already_lost: Mapping[str, str] | None = None
    ) -> None:
        """Run a group of cells (sweep/turns.py), with as many worker processes as necessary.

        `cells`: (name for failure messages, order) of each. If a process dies outside any video, one cell of the group
        may be the cause, so each cell is then tried alone.
        """
        lost, orders = dict(already_lost or {}), [order for _, order in cells]
        while True:
            video, status = self._try(orders, lost, notify)
            if status == 0:
                return
            if status == AGAIN:
                continue
            why = f"its process {death(status)}"
            if video is None and len(cells) > 1:
                notify("say", f"{cells[0][0]} and {len(cells) - 1} more: {why} outside any video; trying one by one")
                for cell in cells:
                    self.do([cell], notify, lost)
                return
            if video is None:
                notify("failed", f"{cells[0][0]}: {why} outside any video; its other videos are missing")
                return
            _, key, label, *_ = video
            lost[key] = why
            notify("made", "failed", None)
            notify("failed", f"{label} {key}: {why}")

    def _try(self, orders: Sequence[Order], lost: dict[str, str], notify: Notify) -> tuple[tuple | None, int]:
        """(the video during which the worker died or None, its exit status); status 0 if the cells are done."""
        if self.process is None:
            self.start()
        video = None
        try:
            self.orders.send(([asdict(order) for order in orders], lost))
            while True:
                event = self.events.recv()
                if event[0] == "end":
                    return None, 0
                if event[0] == "died":
                    return video, event[1]
                if event[0] in ("video", "made"):
                    video = event if event[0] == "video" else None
                notify(*event)
        except (EOFError, OSError):
            return video, self._bury() or 1

    def _bury(self) -> int:
        """Wait for the worker that forks the others; returns its exit status."""
        assert self.process is not None
        try:
            status = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        self.process = None
        self.orders.close()
        self.events.close()
        return status

    def close(self, kill: bool = False) -> None:
        """End the worker and its child processes: when it is idle, or at once with `kill`."""
        if self.process is None:
            return
        family = psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else []
        if kill:
            self.process.kill()
        else:
            with suppress(OSError):  # it has already ended
                self.orders.send(None)
        self._bury()
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()


def death(status: int) -> str:
    """The exit status of a process as text.

    >>> death(-9), death(3)
    ('was killed by SIGKILL (out of memory?)', 'ended with status 3')
    """
    if status >= 0:
        return f"ended with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
