"""One GPU for each process of this machine. A lock per device is kept until the process ends."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

VISIBLE = "CUDA_VISIBLE_DEVICES"
POLL = 1.0  # seconds between two checks for a free device
_held: dict[str, IO[str]] = {}  # device: its lock file, open until the process ends


def devices() -> list[str]:
    """The usable GPUs, with names as in CUDA_VISIBLE_DEVICES. This does not start CUDA."""
    named = os.environ.get(VISIBLE)
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    import torch

    return [str(n) for n in range(torch.cuda.device_count())]


def hold(among: Sequence[str], folder: Path | None = None) -> str:
    """Reserve a free device until the process ends, and make it the only visible one for CUDA. Waits if none is free.

    Call it before CUDA starts in this process. A second call returns the same device.
    """
    if _held:
        return next(iter(_held))
    folder = folder or Path(tempfile.gettempdir()) / f"scope-harness-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    said = False
    while True:
        for device in among:
            lock = (folder / f"{device.replace('/', '_')}.lock").open("a")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                continue
            _held[device] = lock
            os.environ[VISIBLE] = device
            return device
        if not said:
            print(f"waiting for a GPU: other processes use {', '.join(among)}", flush=True)
            said = True
        time.sleep(POLL)
