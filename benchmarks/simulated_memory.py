"""A device of limited memory, simulated on the CPU: the bytes of live tensors that operations have made."""

from __future__ import annotations

import weakref
from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class SimulatedMemory(TorchDispatchMode):
    """Counts live storages that were made inside; raises OutOfMemoryError where they would exceed `limit` bytes.

    `device`: the type of the tensors that count. Those on "meta" count as if they had data.
    """

    def __init__(self, limit: float = float("inf"), device: str = "cpu") -> None:
        super().__init__()
        self.device = device
        self.limit, self.live, self.peak = limit, 0, 0
        self.holders: Counter[int] = Counter()  # tensors of each storage
        self.sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.device.type == self.device:
                self._hold(tensor)
        return out

    def _hold(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        place, size = storage.data_ptr() or storage._cdata, storage.nbytes()  # "meta" tensors have no data
        if not self.holders[place]:
            self.sizes[place] = size
            self.live += size
            self.peak = max(self.peak, self.live)
        self.holders[place] += 1
        weakref.finalize(tensor, self._release, place)
        if self.live > self.limit:
            raise torch.OutOfMemoryError(f"simulated: {self.live} of {self.limit} bytes")

    def _release(self, place: int) -> None:
        self.holders[place] -= 1
        if not self.holders[place]:
            self.live -= self.sizes.pop(place)
