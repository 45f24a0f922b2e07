"""The process that does the cells of a sweep, one after another: `python -m sweep.worker ORDERS EVENTS`, two pipes.

It keeps its models between cells, ends when the orders do, and takes nobody with it when it dies.
"""

from __future__ import annotations

import signal

for _number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT):
    signal.signal(_number, signal.SIG_IGN)  # sent to the whole group, or by a scheduler to the whole step: the
    #                                         process that started this one decides what becomes of it

import os  # noqa: E402
import sys  # noqa: E402
from importlib import import_module  # noqa: E402
from multiprocessing.connection import Connection  # noqa: E402
from queue import Queue  # noqa: E402
from threading import Thread  # noqa: E402
from typing import Any  # noqa: E402

AGAIN = 75  # exit status: this process is spent, the cell wants another


def main(orders: Connection, events: Connection, preload: list[str]) -> int:
    """Serve until the orders end; the exit status."""
    waiting: Queue[Any] = Queue()
    Thread(target=_read, args=(orders, waiting), daemon=True).start()
    for module in preload:
        import_module(module)
    from sweep.cell import Cell, Order
    from sweep.perform import perform
    from sweep.work import DeviceLost

    while True:
        ordered = waiting.get()
        if ordered is None:
            return 0
        order, lost = ordered
        try:
            perform(Cell.of(Order(**order)), lambda *event: events.send(event), lost)
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
            os._exit(1)
        waiting.put(ordered)


if __name__ == "__main__":
    sys.exit(main(Connection(int(sys.argv[1])), Connection(int(sys.argv[2])), sys.argv[3:]))
