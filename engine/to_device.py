"""Choosing the device of this process, and copying to it without waiting for the work that is queued on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:  # in a plan torch is a stand-in, and this line would import it
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
    return carried(torch.tensor(values, dtype=dtype), device)


def carried(x: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on `device`, without waiting; one that is there already is returned as it is."""
    if device.type != "cuda" or x.device.type == "cuda":
        return x.to(device)
    return x.pin_memory().to(device, non_blocking=True)


def picked(x: Tensor, places: Sequence[int]) -> Tensor:
    """The rows of `x` at `places`: a view if they are adjacent, else a copy. Do not write to it."""
    return x[index(places, x.device)]


def index(places: Sequence[int], device: torch.device) -> slice | Tensor:
    """`places` as an index of a tensor on `device`: a slice if they are adjacent.

    A list as an index would be copied from pageable memory, and the host would wait for the device.
    """
    first = places[0] if len(places) else 0
    if list(places) == list(range(first, first + len(places))):
        return slice(first, first + len(places))
    return sent(places, device)
