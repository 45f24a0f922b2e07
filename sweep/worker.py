"""The process that does the cells of a sweep, one group after another: `python -m sweep.worker ORDERS EVENTS`.

It imports torch and what else never touches CUDA, computes nothing itself, and forks a child that takes orders from one
pipe and tells the other what happens. The child imports the model, whose libraries ask for a GPU as they are imported:
a process forked after that question can never use one. The child keeps its models between groups; when it dies, the
next is forked at once.
"""

from __future__ import annotations

import signal

if __name__ == "__main__":  # before anything else is imported, which takes seconds
    for _number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(_number, signal.SIG_IGN)  # sent to the whole group, or by a scheduler to the whole step: the
        #                                         process that started this one decides what becomes of it

import os
import sys
from importlib import import_module
from multiprocessing.connection import Connection
from queue import Queue
from threading import Thread
from typing import Any

from terminal import tolerate

AGAIN = 75  # exit status of a child: it is spent, the cell wants another
GONE = 76  # exit status of a child: whoever gave the orders is gone
PRELOAD = ("sweep.run_cell", "eval.video")  # imported before the fork; a test holds that none of it touches CUDA
AFRESH = "--afresh"  # a child that was executed instead of forked


def main(orders: Connection, events: Connection) -> int:
    """Fork one child after another until the orders end; the exit status."""
    for module in PRELOAD:
        import_module(module)
    while True:
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                renew(orders, events)
                status = serve(orders, events)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status in (0, GONE):
            return status
        events.send(("died", status))


def renew(orders: Connection, events: Connection) -> None:
    """Execute this child afresh if its parent touched CUDA after all, in a user's start-up file, say."""
    import torch

    if torch.cuda._is_in_bad_fork():
        pipes = [str(end.fileno()) for end in (orders, events)]
        os.execv(sys.executable, [sys.executable, "-m", "sweep.worker", *pipes, AFRESH])


def serve(orders: Connection, events: Connection) -> int:
    """Do what is ordered until the orders end; the exit status."""
    from conf.schema import ConfigError
    from engine.weights import WeightsError
    from sweep.cell import Cell, Order
    from sweep.make_videos import DeviceLost
    from sweep.run_cell import perform

    waiting: Queue[Any] = Queue()
    Thread(target=_read, args=(orders, waiting), daemon=True).start()
    while True:
        ordered = waiting.get()
        if ordered is None:
            return 0
        batch, lost = ordered
        cells = []
        for order in batch:
            try:
                cells.append(Cell.of(Order(**order)))
            except (ConfigError, WeightsError) as error:  # right where it was ordered, but not on this machine
                events.send(("failed", str(error)))
        try:
            perform(cells, lambda *event: events.send(event), lost)
        except DeviceLost:
            return AGAIN
        events.send(("end",))


def _read(orders: Connection, waiting: Queue[Any]) -> None:
    """Pass orders on; None is the last. If the pipe ends without it, whoever ordered is gone: so is this process."""
    ordered: Any = ...
    while ordered is not None:
        try:
            ordered = orders.recv()
        except (EOFError, OSError):
            os._exit(GONE)
        waiting.put(ordered)


if __name__ == "__main__":
    tolerate()
    run = serve if AFRESH in sys.argv else main
    sys.exit(run(Connection(int(sys.argv[1])), Connection(int(sys.argv[2]))))
