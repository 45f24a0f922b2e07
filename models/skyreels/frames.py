"""The data of the slots of one SkyReels-V2 forward besides their hidden states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from engine.to_device import picked
from models.skyreels.attention import TokenView, View, attention


@dataclass(frozen=True)
class Condition:
    """Per-slot modulation: `time` (slots, width) for the head, `blocks` (slots, 6, width) for the blocks."""

    time: Tensor
    blocks: Tensor

    def only(self, pick: Sequence[int]) -> Condition:
        """The modulation of the slots at the positions `pick`."""
        return Condition(picked(self.time, pick), picked(self.blocks, pick))


@dataclass(frozen=True)
class Frames:
    """The data of the slots of one forward besides their hidden states."""

    cond: Condition
    rotary: Tensor  # (slots, tokens, head width / 2)
    causal_block: int
    view: View | TokenView | None
    batch: int = 1  # number of guidance branches whose slots are concatenated in the hidden states
    once: list[Tensor] = field(default_factory=list)  # result of the first self-attention, shared by all branches

    def only(self, pick: Sequence[int] | None) -> Frames:
        """The same for the slots at the positions `pick`; None is all of them."""
        if pick is None:
            return self
        view = self.view.only(pick) if isinstance(self.view, View) else self.view
        return replace(self, cond=self.cond.only(pick), rotary=picked(self.rotary, pick), view=view)

    def attend(self, branches: Sequence[str], block: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Self-attention of all tokens in `block`; `branches` share its keys and values."""
        if self.view:
            return self.view.attend(branches, block, q, k, v)
        return attention(q, k, v, self.causal_block * self.rotary.shape[1])
