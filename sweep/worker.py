"""The process that runs the cells of a sweep, one group after another: `python -m sweep.worker ORDERS EVENTS`.

It imports torch and other modules that do not touch CUDA. It computes nothing, and forks a child that reads orders from
one pipe and writes events to the other. Only the child imports the model, because the model's libraries query the GPU
on import, and a process that is forked after such a query cannot use the GPU. The child keeps its models between
groups. If it dies, the next child is forked at once.
"""

from __future__ import annotations

import signal

if __name__ == "__main__":  # before the other imports, which take seconds
    for _number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(_number, signal.SIG_IGN)  # a terminal or a scheduler sends them to the whole group;
        #                                         the process that started this one decides when it ends

import os
import sys
from importlib import import_module
from multiprocessing.connection import Connection
from queue import Queue
from threading import Thread
from typing import Any

from terminal import tolerate

AGAIN = 75  # exit status of a child: it cannot continue, the cell needs a new child
GONE = 76  # exit status of a child: the process that gave the orders has ended
# imported before the fork; a test checks that they do not touch CUDA
PRELOAD = ("sweep.run_cell", "sweep.make_videos", "eval.video")
AFRESH = "--afresh"  # a child that was started by exec instead of fork


def main(orders: Connection, events: Connection) -> int:
    """Fork one child after another until the orders end; returns the exit status."""
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
    """Restart this child by exec if its parent has touched CUDA, for example in a user's start-up file."""
    import torch

    if torch.cuda._is_in_bad_fork():
        pipes = [str(end.fileno()) for end in (orders, events)]
        os.execv(sys.executable, [sys.executable, "-m", "sweep.worker", *pipes, AFRESH])


def serve(orders: Connection, events: Connection) -> int:
    """Run the ordered cells until the orders end; returns the exit status."""
    from conf.schema import ConfigError
    from engine.weights import WeightsError
    from sweep.cell import Cell, Order
    from sweep.events import DeviceLost
    from sweep.run_cell import perform

    waiting: Queue[Any] = Queue()
    Thread(target=_read, args=(orders, waiting), daemon=True).start()
    while True:
        ordered = waiting.get()
        if ordered is None:
            return 0
        batch, lost = ordered
        composed = []
        for order in batch:
            try:
                composed.append(Cell.of(Order(**order)))
            except (ConfigError, WeightsError) as error:  # valid where it was ordered, but not on this machine
                events.send(("failed", str(error)))
        cells = composed  # only now do those before go: a model that both use stays in memory
        try:
            perform(cells, lambda *event: events.send(event), lost)
        except DeviceLost:
            return AGAIN
        events.send(("end",))


def _read(orders: Connection, waiting: Queue[Any]) -> None:
    """Put orders into the queue; None is the last. If the pipe ends without it, this process ends too."""
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
