"""Exact selective computation: a forward covers only the frames that matter for a row; no approximation.

    forwarded     from the first frame that has not settled to the last AR unit that updates
    attended to   also the settled frames, by keys and values that are computed once in their final state and stored

Under block-causal attention a frame does not attend to later AR units. So frames that have not started can be left out.
The latent and timestep of a finished frame, and of all frames that it attends to, stay the same. So its keys and values
are the same in every later row. The video equals the Original's up to rounding. The saving is no merit of an
accelerating method and should be compared separately. If new noise is added to the overlap at every row, frames settle
in the first segment only (`model.overlap_noise: segment` adds the same noise at every row). As a part of a composite it
narrows the forwards of the other parts.

Site: none; the slots that a forward covers.
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
    """Narrows every forward to the slots that matter, and always computes."""

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"narrow", "settled"})

    def narrow(self, row: Row) -> Row:
        return row.exact()
