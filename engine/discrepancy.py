"""The change of a signal between two steps, per latent slot, as TeaCache, FlowCache and SCOPE measure it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from engine.history import History
from engine.to_device import picked

if TYPE_CHECKING:
    from torch import Tensor


def relative_l1(now: Tensor, before: Tensor, eps: float) -> Tensor:
    """mean|f - f'| / (mean|f'| + eps) for every slot of (slots, ...), float32."""
    now, before = now.flatten(1).float(), before.flatten(1).float()
    return torch.nn.functional.l1_loss(now, before, reduction="none").mean(1) / (before.abs().mean(1) + eps)


class Discrepancy:
    """Stores the last signal of each slot. Each slot is compared with itself, also where the interval moves."""

    def __init__(self, eps: float = 1e-8) -> None:
        self.eps = eps
        self._past = History(1, None)

    def measure(self, slots: Sequence[int], signal: Tensor) -> list[float | None]:
        """The discrepancy of `signal` (slots, ...) from the last one given to `remember`; None for a new slot.

        It makes one transfer to the host for all slots.
        """
        return self.measured(slots, signal, [])[0]

    def measured(
        self, slots: Sequence[int], signal: Tensor, beside: Sequence[Tensor]
    ) -> tuple[list[float | None], list[list[float]]]:
        """The same, and the numbers of the float32 tensors `beside` in the same transfer."""
        seen = [i for i, slot in enumerate(slots) if self.knows(slot)]
        found: list[float | None] = [None] * len(slots)
        asked = [x.flatten() for x in beside]
        if seen:
            before = self._past.last([slots[i] for i in seen])
            asked.append(relative_l1(picked(signal, seen), before, self.eps))
        told = (asked[0] if len(asked) == 1 else torch.cat(asked)).tolist() if asked else []
        parts = [[told.pop(0) for _ in range(len(x))] for x in asked]
        if seen:
            for i, value in zip(seen, parts.pop(), strict=True):
                found[i] = value
        return found, parts

    def pooled(self, slots: Sequence[int], signal: Tensor) -> float | None:
        """One value over all slots together, mean|f - f'| / (mean|f'| + eps). None if a slot is new."""
        if not all(self.knows(slot) for slot in slots):
            return None
        before = self._past.last(slots)
        return float(relative_l1(signal.flatten()[None], before.flatten()[None], self.eps))

    def knows(self, slot: int) -> bool:
        """Whether a signal of `slot` is stored."""
        return self._past.count(slot) > 0

    def remember(self, slots: Sequence[int], signal: Tensor, settled: int = 0) -> None:
        """Store `signal` (slots, ...) for the next comparison. Slots before `settled` will not be measured again."""
        self._past.push(slots, [0.0] * len(slots), signal, settled)

    def tensors(self) -> list[Tensor]:
        """The stored signals, for the account of a method's memory."""
        return list(self._past.tensors())
