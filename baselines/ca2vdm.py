"""Ca2-VDM's prefix sharing (Gao et al., ICML 2025, arXiv 2411.16375): keys of the clean prefix are computed once.

    K, V of the clean prefix     computed once, when its segment begins       (`prefix_kv: shared`)
    every denoising step         attends to them and to the frames that are being denoised

With causal attention the prefix does not depend on the frames that are being denoised. So sharing does not change the
result: it is that of `prefix_kv: recompute`, which is the Original. The rest of Ca2-VDM (a queue of keys over the whole
history, cyclic positions) needs a model trained for it and is not reproduced. MAGI-1 itself works like this.

AnyFlow-FAR shares the keys of its finished chunks. There `shared` is the Original, and `recompute` computes them anew
at every step: the same video but for rounding, at 2.2 times the FLOPs for 8 chunks and 5.1 times for 64 (`model=far`).

Site: none; the slots that a forward covers.
Signal: none.
Memory: none of its own; the backbone keeps 2 hidden tensors (keys, values) per block and guidance branch.
Changed: only the training-free part, on a model that was not trained for it. SkyReels-V2 adds new noise to its overlap
at every row, so its keys change at every row; `model.overlap_noise: segment` or `model.addnoise: 0` avoids that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from baselines.shared.cadence import one_of
from engine.method import Capabilities, Method
from engine.row import Row


@dataclass
class Ca2VDM(Method):
    """Leaves the clean prefix out of the forward and attends to its stored keys and values."""

    prefix_kv: str = "shared"  # "shared": keys of the clean prefix are computed once; "recompute": at every step

    def __post_init__(self) -> None:
        one_of("prefix_kv", self.prefix_kv, "shared", "recompute")
        self.kept = False  # whether the model keeps the keys of finished slots by itself

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"narrow", "given"}) if self.prefix_kv == "shared" else frozenset()

    def check(self, model: Capabilities) -> None:
        self.kept = "renew" in model.offers
        if not self.kept:  # else the model itself shares them
            super().check(model)

    def narrow(self, row: Row) -> Row:
        if self.prefix_kv == "shared":
            return row.behind(row.given)
        return replace(row, renew=True) if self.kept and row.updating else row
