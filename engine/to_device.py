"""Small tables of numbers on their way to the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def sent(values: Sequence[float], device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """`values` as a tensor on `device`, without waiting for what the device is busy with.

    A plain `torch.tensor(..., device="cuda")` copies from pageable memory, which waits until all work queued before is
    done; from pinned memory the copy queues up behind it.
    """
    here = torch.tensor(values, dtype=dtype)
    return here.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else here.to(device)
