"""What a backbone offers to the loop. Adapters live in `models/`; none imports a method, no method imports one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from engine.ledger import Entry
from engine.method import Capabilities
from engine.row import Row
from engine.visit import Visit


class Backbone(Capabilities, Protocol):
    """One AR video diffusion model at one setting.

    Latents and velocities are slot-first: (slots, C, H, W), float32.
    """

    device: torch.device

    @property
    def parameters(self) -> int:
        """Parameters of the denoiser."""
        ...

    @property
    def weights_id(self) -> str:
        """Changes with the content of the weight files. Raises WeightsError if they are missing or broken."""
        ...

    @property
    def frame_borders(self) -> list[int]:
        """The first pixel frame of every segment (or chunk) after the first, where a seam may show."""
        ...

    @property
    def loaded(self) -> bool:
        """Whether the weights are on the device."""
        ...

    def load(self) -> None:
        """Bring the weights to the device; nothing before this needs them."""
        ...

    def adopt(self, other: Backbone) -> bool:
        """Use the loaded modules of `other` where both settings want the same ones; whether that was possible."""
        ...

    def unload(self) -> None:
        """Give the weights back, and all that was derived from them."""
        ...

    def forget(self) -> None:
        """Give back what the last video left on the device: keys and values, embeddings, the sampler's history."""
        ...

    def texts(self, prompts: Iterable[str], cache: Path | None = None) -> dict[str, Tensor]:
        """Embeddings of all prompts of a run, computed once and kept in `cache`; the text encoder then leaves."""
        ...

    def conditioning(self, prompt: str, texts: dict[str, Tensor]) -> Any:
        """What `start` needs of one prompt."""
        ...

    def start(self, text: Any, seed: int) -> Tensor:
        """Begin a video: forget the last one, return its empty latents (all slots)."""
        ...

    def open(self, latents: Tensor, row: Row) -> Tensor:
        """Begin the segment of `row`: draw its noise, hand over the overlap."""
        ...

    def probe(self, name: str, latents: Tensor, row: Row) -> Tensor:
        """A signal that costs no forward, (len(row.slots), ...), float32."""
        ...

    def velocity(self, latents: Tensor, row: Row, visit: Visit) -> Tensor:
        """The velocity of every slot of `row`, offering each site of the forward to `visit`."""
        ...

    def advance(self, latents: Tensor, row: Row, velocity: Tensor) -> Tensor:
        """One sampler step for the active slots of `row`, whoever supplied the velocity."""
        ...

    def decode(self, latents: Tensor) -> Iterator[Tensor]:
        """The video as batches of uint8 RGB frames (T, H, W, 3)."""
        ...

    def price(self, entries: Sequence[Entry]) -> tuple[float, float]:
        """FLOPs of one iteration given its ledger entries, (dense, masked), 2 per multiply-add, denoiser only."""
        ...
