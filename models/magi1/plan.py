"""A MAGI-1 run before its weights are read: its rows, FLOPs and parameters. Nothing here needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.footprint import Footprint, Sizes
from engine.kept import kept, sources
from engine.ledger import Entry
from engine.row import Row

from .config import BRANCHES, ModelConfig
from .memory import footprint, sizes
from .places import model_config, root, transformer_folder
from .price import TIME_CHANNELS
from .price_ledger import Price
from .settings import FRAMES, Magi1

if TYPE_CHECKING:
    from engine.backbone import TimeSignals

SIGNALS = frozenset({"patch_embedding", "latent", "time_embedding", "time_projection"})


class Magi1Plan:
    """The part of one MAGI-1 backbone that needs no weights."""

    BUILDS = "models.magi1.backbone.Magi1Backbone"  # the whole, weights and all
    Settings = Magi1
    attention = "full"
    offers = frozenset({"blocks", "branches", "kv_capacity", "partial", "retrace"}) | SIGNALS

    def __init__(self, settings: Magi1, device: Any) -> None:
        self.settings, self.device, self.name = settings, device, settings.name
        self.branches = BRANCHES[settings.runtime.cfg_number]
        self.plan, self.rows = settings.plan, settings.rows()

    @cached_property
    def config(self) -> ModelConfig:
        """The transformer's shape."""
        return model_config(self.settings)

    @property
    def depth(self) -> int:
        return self.config.num_layers

    @property
    def parameters(self) -> int:
        """The number of parameters of the denoiser."""
        return parameters(self.config)

    @property
    def time_files(self) -> list[Path]:
        """See Backbone.time_files."""
        if self.settings.weights == "random":
            return []
        return sorted(transformer_folder(self.settings).glob("*.safetensors"))

    def time_signals(self) -> TimeSignals:
        """See Backbone.time_signals."""
        from .times import without_denoiser

        return without_denoiser(self.settings, self.config, self.time_files, self.plan.forwards)

    @property
    def frame_borders(self) -> list[int]:
        """The first pixel frame of every chunk except the first, counted in the frames that `decode` gives."""
        return [FRAMES * (start - self._spans[0][0]) for start, _ in self._spans[1:]]

    def frames_after(self, slots: int) -> int:
        """See Backbone.frames_after. The VAE decodes each chunk alone; frames of a given video are left out."""
        return min(max(0, FRAMES * (slots - self._spans[0][0])), self.settings.frames)

    @cached_property
    def _spans(self) -> list[tuple[int, int]]:
        """The slots that every chunk adds to the video."""
        return list(filter(None, map(self.plan.emitted, self.plan.forwards)))

    def footprint(self, rows: Sequence[Row], partial: bool = False, stock: bool = False) -> Footprint:
        """See Backbone.footprint. The cache of keys and values is the same for every method."""
        return footprint(self.settings, self.config, self.plan, self.parameters)

    @property
    def sizes(self) -> Sizes:
        """See Backbone.sizes."""
        return sizes(self.settings, self.config)

    @property
    def peak_bytes(self) -> float:
        """See Backbone.peak_bytes."""
        return self.footprint(self.rows).most

    def advice(self, lacking: str) -> str:
        if lacking == "narrow":
            return (
                "every chunk in MAGI-1's window is active, so selective computation cannot leave out any; "
                "set method.selective=none"
            )
        if lacking == "transformer":
            return "the libraries do not support our MAGI-1 classes; use our method of the same name instead"
        if lacking == "aim":
            return "this model is told where a step starts but not where it leads; set model=far_tiny_dsa"
        if lacking == "tokens":
            return "only SkyReels-V2 forwards single tokens; choose a method that decides per chunk, such as flowcache"
        return "choose another method or another signal"

    def schedule(self) -> Sequence[Row]:
        return self.rows

    def price(self, entries: Sequence[Entry]) -> tuple[float, float]:
        """(dense, masked) FLOPs of one iteration. Both are equal: attention covers exactly the visible chunks."""
        cost = self.prices.iteration(entries)
        return cost, cost

    @cached_property
    def prices(self) -> Price:
        """The count of FLOPs for the ledger of a run."""
        s = self.settings
        return Price(self.config, s.runtime, self.plan, s.text_tokens)

    def plan_counts(self) -> dict[str, int]:
        """The numbers of chunk steps and chunk passes of a video, for a dry run."""
        return {"chunk_steps": self.plan.chunk_steps, "chunk_passes": self.plan.chunk_passes}

    @cached_property
    def weights_id(self) -> str:
        """A hash of the content of the weight files; "random" for random weights. Raises WeightsError."""
        return "random" if self.settings.weights == "random" else _checked(self.settings)


def parameters(config: ModelConfig) -> int:
    """Parameters of a transformer of this shape. Linear layers have no bias, but for the embeddings and the gates."""
    h, c, heads = config.hidden_size, config.condition_size, config.attention_width
    groups, patch = config.num_query_groups * config.kv_channels, config.patch_size**2
    time = (TIME_CHANNELS + 1) * c + (c + 1) * c
    text = config.caption_channels * config.caption_max_length + (config.caption_channels + 1) * (h + c)
    ends = h * patch * (config.in_channels + config.out_channels) + config.kv_channels // 8  # and the rotary bands
    attention = 2 * h * heads + 2 * h * groups + 2 * h * groups + 2 * heads * h + 4 * 2 * config.kv_channels
    feed_forward = (3 if config.gated_linear_unit else 2) * h * config.ffn_hidden_size
    norms = 4 * 2 * h  # before and after each of the two branches
    layer = (c + 1) * 2 * h + attention + feed_forward + norms
    return time + text + ends + config.num_layers * layer + 2 * h


def _checked(settings: Magi1) -> str:
    """The identity of weight files that have been checked to be whole, which takes the model's classes."""
    folder = root(settings)

    def read() -> str:
        from engine.weights import digest

        from .assets import weight_files

        return digest(weight_files(settings))

    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    own = sources("models/magi1", "engine")
    return kept(f"weights of {folder.resolve()} for {settings}", [*files, *own], read)


PLANS = {Magi1Plan.BUILDS: Magi1Plan}  # read by conf/classes.py
