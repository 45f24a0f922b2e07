"""Choosing the device of this process, and copying small tables of numbers to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def select(device: torch.device) -> None:
    """Make `device` the current one, before anything is put on it: pinned memory, kernels and libraries that name no
    device would otherwise open a context on the first GPU and take memory there."""
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)


def sent(values: Sequence[float], device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """`values` as a tensor on `device`. The host does not wait for work that is queued on the device.

    `torch.tensor(..., device="cuda")` copies from pageable memory and waits until all queued work is done. A copy from
    pinned memory is only added to the queue.
    """
    here = torch.tensor(values, dtype=dtype)
    return here.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else here.to(device)
