"""An AnyFlow-FAR run before its weights are read: its rows, FLOPs and parameters. Nothing here needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.footprint import Footprint, Sizes
from engine.kept import kept, sources
from engine.ledger import Entry
from engine.row import Row
from models.far.capabilities import OFFERS, advice
from models.far.chunks import Chunks
from models.far.memory import footprint, sizes
from models.far.price import Price
from models.far.settings import Far
from models.far.shape import Shape
from models.wan.places import locate, time_files

if TYPE_CHECKING:
    from engine.backbone import TimeSignals

TRAINED = 1000  # the times of the model run from 0 (clean) to this


class FarPlan:
    """The part of one AnyFlow-FAR backbone that needs no weights."""

    BUILDS = "models.far.backbone.AnyFlowFAR"  # the whole, weights and all
    Settings = Far
    attention = "full"
    offers = OFFERS

    def __init__(self, settings: Far, device: Any) -> None:
        self.settings, self.device = settings, device
        self.name, self.branches = settings.name, settings.branches
        self.sigmas = noise_levels(settings.steps, settings.shift)
        self.rows = settings.rows(self.sigmas)

    @cached_property
    def shape(self) -> Shape:
        return Shape.of(self.settings)

    @cached_property
    def chunks(self) -> Chunks:
        """The chunks of the video, and what each attends to."""
        return Chunks(self.settings.lengths, self.shape.full_chunk_limit)

    @cached_property
    def prices(self) -> Price:
        return Price(self.settings, self.shape)

    @property
    def depth(self) -> int:
        return self.shape.num_layers

    @property
    def parameters(self) -> int:
        """The number of parameters of the denoiser."""
        return self.shape.parameters

    @property
    def time_files(self) -> list[Path]:
        """See Backbone.time_files."""
        return time_files(self.settings)

    def time_signals(self) -> TimeSignals:
        """See Backbone.time_signals."""
        from models.far.times import without_denoiser

        return without_denoiser(self.settings, self.time_files, self.sigmas, TRAINED)

    @property
    def frame_borders(self) -> list[int]:
        """The first pixel frame of every chunk except the first."""
        return [1 + 4 * (slot - 1) for slot in Chunks(self.settings.lengths).borders[1:]]

    def frames_after(self, slots: int) -> int:
        """See Backbone.frames_after. The VAE is causal: the first latent gives 1 frame, each further one 4."""
        return 1 + 4 * (slots - 1) if slots else 0

    def footprint(self, rows: Sequence[Row], partial: bool = False, stock: bool = False) -> Footprint:
        """See Backbone.footprint. The keys and values are the same for every method."""
        return footprint(self.settings, self.shape, self.chunks)

    @property
    def sizes(self) -> Sizes:
        """See Backbone.sizes."""
        return sizes(self.settings, self.shape)

    @property
    def peak_bytes(self) -> float:
        """See Backbone.peak_bytes."""
        return self.footprint(self.rows).most

    def advice(self, lacking: str) -> str:
        return advice(lacking)

    def schedule(self) -> Sequence[Row]:
        return self.rows

    def price(self, entries: Sequence[Entry]) -> tuple[float, float]:
        """(dense, masked) FLOPs of one iteration. Both are equal: attention covers exactly what a chunk sees."""
        cost = self.prices.iteration(entries)
        return cost, cost

    def plan_counts(self) -> dict[str, int]:
        """The numbers of chunks and of clean passes, for a dry run."""
        return {"chunks": len(self.settings.lengths), "clean_passes": sum(not row.updating for row in self.rows)}

    @cached_property
    def weights_id(self) -> str:
        """A hash of the content of the weight files; "random" for random weights. Raises WeightsError."""
        return "random" if self.settings.weights == "random" else _checked(self.settings)


def noise_levels(steps: int, shift: float) -> list[float]:
    """Sigma before every step and after the last: evenly spaced from 1 to 0, then shifted towards noise.

    >>> noise_levels(2, 3.0)
    [1.0, 0.75, 0.0]
    """
    even = [1 - k / steps for k in range(steps)]
    return [*(shift * level / (1 + (shift - 1) * level) for level in even), 0.0]


def _checked(settings: Far) -> str:
    """The identity of weight files that have been checked to be whole, which takes the model's classes."""
    folder = locate(settings)

    def read() -> str:
        from engine.weights import digest
        from models.wan.checkpoint import files

        return digest(files(folder, settings))

    parts = [path for part in sorted(folder.iterdir()) if part.is_dir() for path in sorted(part.iterdir())]
    own = sources("models/far", "models/wan", "engine")
    return kept(f"weights of {folder.resolve()} for {settings}", [*parts, *own], read)


PLANS = {FarPlan.BUILDS: FarPlan}  # read by conf/classes.py
