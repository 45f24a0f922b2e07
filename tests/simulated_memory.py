"""A device of limited memory, simulated on the CPU: the bytes of live tensors that operations have made."""

import weakref
from collections import Counter

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class SimulatedMemory(TorchDispatchMode):
    """Counts live storages that were made inside; raises OutOfMemoryError where they would exceed `limit` bytes."""

    def __init__(self, limit=float("inf")):
        super().__init__()
        self.limit, self.live, self.peak = limit, 0, 0
        self.holders, self.sizes = Counter(), {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.device.type in ("cpu", "meta"):
                self._hold(tensor)
        return out

    def _hold(self, tensor):
        storage = tensor.untyped_storage()
        place, size = storage._cdata, storage.nbytes()  # not where its data are: those of "meta" tensors are nowhere
        if not self.holders[place]:
            self.sizes[place] = size
            self.live += size
            self.peak = max(self.peak, self.live)
        self.holders[place] += 1
        weakref.finalize(tensor, self._release, place)
        if self.live > self.limit:
            raise torch.OutOfMemoryError(f"simulated: {self.live} of {self.limit} bytes")

    def _release(self, place):
        self.holders[place] -= 1
        if not self.holders[place]:
            self.live -= self.sizes.pop(place)
