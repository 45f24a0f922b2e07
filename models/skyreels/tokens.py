"""A forward of some tokens of some slots, which attend to the stored keys and values of all others.

Every chosen token is handled as a slot of one token, with the modulation of its slot and its own rotation. So parts of
a row may choose different tokens, and the blocks run on one list of tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor

from engine.row import Row
from engine.to_device import sent
from models.skyreels.attention import TokenView, View
from models.skyreels.frames import Frames

Blocks = Callable[[Tensor, Frames], Tensor]  # hidden states (tokens, 1, width) and their frames -> hidden states


def through_tokens(row: Row, parts: Sequence[Row], h: Tensor, frames: Frames, blocks: Blocks) -> Tensor:
    """The hidden states (slots of `parts`, tokens, width) after `blocks`, which run on the chosen tokens only.

    `h` (slots of the row, tokens, width) is their input; tokens that no part chooses keep it. Raises ValueError without
    stored keys and values.
    """
    view = frames.view
    if not isinstance(view, View) or not view.keeps:
        raise ValueError("a forward of chosen tokens reads stored keys and values; use a method that decides per unit")
    every, first = range(h.shape[1]), row.slots.start
    chosen = [(slot - first, part.tokens or every) for part in parts for slot in part.slots]
    slots = sent([slot for slot, tokens in chosen for _ in tokens], h.device)
    positions = sent([token for _, tokens in chosen for token in tokens], h.device)
    own = TokenView(
        view.store,
        tuple((view.slots[slot], len(tokens)) for slot, tokens in chosen),
        (slots + view.slots[0], positions),
        tuple(view.slots[slot] for slot, tokens in chosen if len(tokens) == len(every)),
        view.seen,
        view.causal_block,
    )
    cond = replace(frames.cond, time=frames.cond.time[slots], blocks=frames.cond.blocks[slots])
    rotary = frames.rotary[slots, positions].unsqueeze(1)
    done = blocks(h[slots, positions].unsqueeze(1), replace(frames, cond=cond, rotary=rotary, view=own))
    places = sent([slot for slot, _ in chosen], h.device)
    return h.index_put((slots, positions), done[:, 0])[places]
