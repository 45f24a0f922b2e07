"""Exact selective computation: forward only what a row depends on and changes; no approximation.

    run   from the first frame that has not settled to the last AR unit that updates
    see   what has settled through its keys and values, computed once in its final state and kept

Under block-causal attention a frame never sees a later one. So frames that have not started can be left out, and a
finished frame, whose latent, timestep and everything that it sees stay the same, contributes the same keys and values
to every later row. The video is the Original's up to rounding; what is saved is what no method should get credit for.
With an overlap that is noised anew at every row, frames settle in the first segment only (`model.overlap_noise:
segment` draws the noise once). As a part of a composite it narrows what the other parts forward.

Site: none, the interval of a forward.
Signal: none.
Memory: none of its own; the backbone keeps 2 hidden tensors (keys, values) per block and guidance branch.
Changed: not from a paper; SCOPE's `selective: exact` is the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.method import Method
from engine.row import Row


@dataclass
class Lossless(Method):
    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"narrow", "settled"})

    def narrow(self, row: Row) -> Row:
        return row.exact()
