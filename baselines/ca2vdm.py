"""Ca2-VDM's shareable part (Gao et al., ICML 2025, arXiv 2411.16375): the clean prefix is read once, not at every step.

    K, V of the clean prefix     computed once, when its segment begins       (`prefix_kv: shared`)
    every denoising step         attends to them and to the frames in flight

Causal attention makes the prefix independent of what is being denoised, so sharing changes nothing: the outputs are
those of `prefix_kv: recompute`, which is the Original. The rest of Ca2-VDM (a queue of keys over the whole history,
cyclic positions) is trained into its model and is not reproduced. On MAGI-1 this is how the model works anyway.

Site: none, the interval of a forward.
Signal: none.
Memory: none of its own; the backbone keeps 2 hidden tensors (keys, values) per block and guidance branch.
Changed: the training-free part alone, on a model that was not trained for it. SkyReels-V2 noises its overlap anew at
every row, so that its keys are never the same twice; `model.overlap_noise: segment` or `model.addnoise: 0` ends that.
"""

from __future__ import annotations

from dataclasses import dataclass

from baselines.shared.cadence import one_of
from engine.method import Method
from engine.row import Row


@dataclass
class Ca2VDM(Method):
    prefix_kv: str = "shared"  # keys and values of the clean prefix: once for all steps; "recompute": the Original

    def __post_init__(self) -> None:
        one_of("prefix_kv", self.prefix_kv, "shared", "recompute")

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"narrow", "given"}) if self.prefix_kv == "shared" else frozenset()

    def narrow(self, row: Row) -> Row:
        return row.behind(row.given) if self.prefix_kv == "shared" else row
