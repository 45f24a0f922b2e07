"""The memory of the device that a video takes, stage by stage, and the sizes of a model's tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Footprint:
    """Peak bytes of the device at every stage of a video, predicted from shapes; a method's own memory is not in it.

    Weights are included, those of the text encoder only in `encoding`: it leaves the device before the others come.
    """

    encoding: float  # the text encoder; 0 if none is loaded
    loading: float
    denoising: float
    decoding: float
    denoiser: float = 0.0  # the denoiser's weights in `decoding`; with offload=all they leave the device before it

    @property
    def most(self) -> float:
        """The largest of all stages."""
        return max(self.encoding, self.loading, self.denoising, self.decoding)


@dataclass(frozen=True)
class Sizes:
    """The numbers that one latent slot has in each kind of tensor."""

    tokens: int
    width: int  # of a token
    latent: int
    itemsize: int  # bytes of a number of a hidden state
    signals: Mapping[str, int] = field(default_factory=dict)  # float32
    twice: bool = False  # whether the oldest AR unit passes the blocks twice, with a memory of its own
