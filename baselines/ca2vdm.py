"""Ca2-VDM's prefix sharing (Gao et al., ICML 2025, arXiv 2411.16375): keys of the clean prefix are computed once.

    K, V of the clean prefix     computed once, when its segment begins       (`prefix_kv: shared`)
    every denoising step         attends to them and to the frames that are being denoised

With causal attention the prefix does not depend on the frames that are being denoised. So sharing does not change the
result: it is that of `prefix_kv: recompute`, which is the Original. MAGI-1 itself works like this.

AnyFlow-FAR shares the keys of its finished chunks. There `shared` is the Original, and `recompute` computes them anew
at every step: the same video but for rounding, at 2.2 times the FLOPs for 8 chunks and 5.1 times for 64 (`model=far`).

The rest of Ca2-VDM, a queue of keys of bounded length with cyclic positions, is not offered. Ca2-VDM adds an embedding
of the frame's number, and was trained on few numbers, so it uses them again. AnyFlow-FAR's positions are rotations:
attention depends on the difference of two frame numbers only, also to frames in compressed form. So the kept keys stay
right when older ones leave, and no number is needed twice in 1,024 latents, where the class's table ends. With cyclic
numbers a new frame would have a lower number than its past, which causal training never shows. In the way of the queue
stands the training: a chunk sees all earlier chunks, the far ones in compressed form, and the class counts these from
the first frame on. Without the oldest ones the video is another one, of a model that was not trained for it, and not
the same one at less cost. They take 216 MB per chunk of 3 latents (keys and values, 480 x 832, bfloat16).

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
