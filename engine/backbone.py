"""The interface of a backbone to the denoising loop. `models/` implements it; models and methods import no other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from engine.footprint import Footprint, Sizes
from engine.ledger import Entry
from engine.method import Capabilities
from engine.row import Row
from engine.visit import Visit

if TYPE_CHECKING:
    import torch
    from torch import Tensor


TimeSignals = Callable[[str, Row], "Tensor"]  # name, row -> (slots of the row, ...) float32


class Backbone(Capabilities, Protocol):
    """One AR video diffusion model with its settings.

    Latents and velocities are slot-first: (slots, C, H, W), float32.
    """

    device: torch.device

    @property
    def parameters(self) -> int:
        """The number of parameters of the denoiser."""
        ...

    @property
    def attention(self) -> str:
        """The attention it runs: "full", or "block_causal" (a frame does not attend to later AR units)."""
        ...

    @property
    def peak_bytes(self) -> float:
        """Predicted peak memory of the device for a video of the Original, weights included."""
        ...

    @property
    def sizes(self) -> Sizes:
        """The numbers that one latent slot has in each kind of tensor."""
        ...

    def footprint(self, rows: Sequence[Row], partial: bool = False, stock: bool = False) -> Footprint:
        """Peak bytes at every stage of a video that forwards `rows`.

        partial: a decision per AR unit. stock: the modules' own forward runs, as the hooks of a library need it.
        """
        ...

    @property
    def weights_id(self) -> str:
        """Changes with the content of the weight files. Raises WeightsError if they are missing or broken."""
        ...

    @property
    def time_files(self) -> list[Path]:
        """The weight files with the network that embeds times; none for random weights. Raises WeightsError."""
        ...

    def time_signals(self) -> TimeSignals:
        """What `probe` gives for the signals of times, on the CPU. It reads only that network from `time_files`."""
        ...

    @property
    def frame_borders(self) -> list[int]:
        """The first pixel frame of every segment (or chunk) except the first. A seam may be visible there."""
        ...

    def frames_after(self, slots: int) -> int:
        """The frames that the first `slots` latent slots alone give, once they are final. A class without this
        function decodes its video at the end."""
        ...

    @property
    def loaded(self) -> bool:
        """Whether the weights are on the device."""
        ...

    def plan_counts(self) -> dict[str, int]:
        """What a dry run prints besides iterations and forwards: counts in the model's own terms."""
        ...

    def load(self) -> None:
        """Load the weights to the device. What is called before it needs no weights."""
        ...

    def adopt(self, other: Backbone) -> bool:
        """Use the loaded modules of `other` if both settings need the same ones. Returns whether it did."""
        ...

    def unload(self) -> None:
        """Release the weights and everything computed from them."""
        ...

    def forget(self) -> None:
        """Release the last video's data on the device: keys and values, embeddings, the sampler's history."""
        ...

    def texts(self, prompts: Iterable[str], cache: Path | None = None) -> dict[str, Tensor]:
        """The embeddings of all prompts of a run, {prompt: tensor}.

        They are computed once and stored in the folder `cache`. The text encoder is unloaded afterwards.
        """
        ...

    def conditioning(self, prompt: str, texts: dict[str, Tensor]) -> Any:
        """The text input of `start` for one prompt. `texts` comes from the method `texts`."""
        ...

    def start(self, text: Any, seed: int) -> Tensor:
        """Begin a video: clear the state of the last one and return latents for all slots, not yet filled."""
        ...

    def open(self, latents: Tensor, row: Row) -> Tensor:
        """Begin the segment of `row`: draw its noise and copy the overlap from the segment before."""
        ...

    def probe(self, name: str, latents: Tensor, row: Row) -> Tensor:
        """The signal `name`, (len(row.slots), ...), float32. It needs no forward of the model."""
        ...

    def velocity(self, latents: Tensor, row: Row, visit: Visit) -> Tensor:
        """The velocity of every slot of `row`. Calls `visit` at each site of the forward."""
        ...

    def advance(self, latents: Tensor, row: Row, velocity: Tensor) -> Tensor:
        """One sampler step for the active slots of `row`. `velocity` is computed or supplied by a method."""
        ...

    def decode(self, latents: Tensor) -> Iterator[Tensor]:
        """The video as batches of uint8 RGB frames (T, H, W, 3)."""
        ...

    def price(self, entries: Sequence[Entry]) -> tuple[float, float]:
        """FLOPs of one iteration given its ledger entries, (dense, masked), 2 per multiply-add, denoiser only."""
        ...
