"""A SkyReels-V2 run before its weights are read: its rows, FLOPs and parameters. Nothing here needs torch."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.footprint import Footprint, Sizes
from engine.kept import kept, sources
from engine.ledger import Entry
from engine.row import Row
from models.skyreels.capabilities import advice, offers
from models.skyreels.memory import footprint, sizes
from models.skyreels.price import Price
from models.skyreels.settings import SkyReels
from models.skyreels.shape import Shape
from models.wan.places import locate, time_files

if TYPE_CHECKING:
    from engine.backbone import TimeSignals

TRAINED = 1000  # timesteps of the noise that the model was trained on
NEARLY = 1e-6  # the first level stays this far from pure noise, whose logarithm the sampler takes


class SkyReelsPlan:
    """The part of one SkyReels-V2 backbone that needs no weights."""

    BUILDS = "models.skyreels.backbone.SkyReelsV2"  # the whole, weights and all
    Settings = SkyReels

    def __init__(self, settings: SkyReels, device: Any) -> None:
        self.settings, self.device = settings, device
        self.name, self.branches = settings.name, settings.branches
        self.sigmas, self.timesteps = noise_levels(settings.steps, settings.shift)
        self.rows = settings.rows(self.sigmas)
        self.causal_block = settings.block if settings.attention == "block_causal" else 0

    @cached_property
    def prices(self) -> Price:
        return Price(self.settings)

    @property
    def attention(self) -> str:
        """See Backbone.attention."""
        return self.settings.attention

    @property
    def offers(self) -> frozenset[str]:
        return offers(self.settings)

    @cached_property
    def depth(self) -> int:
        return Shape.of(self.settings).num_layers

    @property
    def parameters(self) -> int:
        """The number of parameters of the denoiser."""
        return self.prices.shape.parameters

    @property
    def time_files(self) -> list[Path]:
        """See Backbone.time_files."""
        return time_files(self.settings)

    def time_signals(self) -> TimeSignals:
        """See Backbone.time_signals."""
        from models.skyreels.signals import without_denoiser

        return without_denoiser(self.settings, self.time_files, self.timesteps)

    @property
    def frame_borders(self) -> list[int]:
        """The first pixel frame of every segment except the first."""
        return [1 + 4 * (s.first + s.prefix - 1) for s in self.settings.segments[1:]]

    def frames_after(self, slots: int) -> int:
        """See Backbone.frames_after. The VAE is causal: the first latent gives 1 frame, each further one 4."""
        return 1 + 4 * (slots - 1) if slots else 0

    def footprint(self, rows: Sequence[Row], partial: bool = False, stock: bool = False) -> Footprint:
        """See Backbone.footprint."""
        return footprint(self.settings, self.prices.shape, rows, partial, stock)

    @property
    def sizes(self) -> Sizes:
        """See Backbone.sizes."""
        return sizes(self.settings, self.prices.shape)

    @property
    def peak_bytes(self) -> float:
        """See Backbone.peak_bytes."""
        return self.footprint(self.rows).most

    def advice(self, lacking: str) -> str:
        return advice(self.settings, lacking)

    def schedule(self) -> Sequence[Row]:
        return self.rows

    def price(self, entries: Sequence[Entry]) -> tuple[float, float]:
        return self.prices.iteration(entries)

    def plan_counts(self) -> dict[str, int]:
        return {}

    @cached_property
    def weights_id(self) -> str:
        """A hash of the content of the weight files; "random" for random weights. Raises WeightsError."""
        return "random" if self.settings.weights == "random" else _checked(self.settings)


def _checked(settings: SkyReels) -> str:
    """The identity of weight files that have been checked to be whole, which takes the model's classes."""
    folder = locate(settings)

    def read() -> str:
        from engine.weights import digest
        from models.wan.checkpoint import files

        return digest(files(folder, settings))

    parts = [path for part in sorted(folder.iterdir()) if part.is_dir() for path in sorted(part.iterdir())]
    own = sources("models/skyreels", "models/wan", "engine")
    return kept(f"weights of {folder.resolve()} for {settings}", [*parts, *own], read)


def noise_levels(steps: int, shift: float) -> tuple[list[float], list[int]]:
    """Sigma before every step and after the last (float32), and the integer timestep of every step.

    As diffusers' UniPCMultistepScheduler has them for flow matching: evenly spaced, then shifted towards noise.

    >>> noise_levels(2, 3.0)
    ([0.9999989867210388, 0.7503747940063477, 0.0], [999, 750])
    """
    end = 1 / TRAINED
    even = [1.0 + n * ((end - 1.0) / steps) for n in range(steps)]
    levels = [shift * level / (1 + (shift - 1) * level) for level in even]
    if abs(levels[0] - 1) < NEARLY:
        levels[0] -= NEARLY
    single = struct.Struct("f")
    rounded = [float(single.unpack(single.pack(level))[0]) for level in levels]
    return [*rounded, 0.0], [int(level * TRAINED) for level in levels]


PLANS = {SkyReelsPlan.BUILDS: SkyReelsPlan}  # read by conf/classes.py
