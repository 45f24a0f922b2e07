"""Signals that need no forward. They are float32 in every precision of the model, so that adjacent steps differ."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from diffusers import SkyReelsV2Transformer3DModel
from torch import Tensor

from engine.to_device import sent
from models.skyreels.capabilities import SIGNALS
from models.skyreels.forward import frame_rate
from models.skyreels.timesteps import WAITING, timesteps_of
from models.wan.embedding import time_network

if TYPE_CHECKING:
    from engine.backbone import TimeSignals
    from models.skyreels.settings import SkyReels
from models.wan.parameters import embedded, linear, patches

EMBEDDING = ("condition_embedder.time", "fps_")  # the tensors that the signals of timesteps need


def without_denoiser(settings: SkyReels, files: Sequence[Path], timesteps: Sequence[int]) -> TimeSignals:
    """See Backbone.time_signals; `timesteps` of every step."""
    model = time_network(settings, files, EMBEDDING)
    signals, nothing = Signals.along(model, settings, timesteps), torch.empty(0)
    return lambda name, row: signals.of(name, nothing, timesteps_of(row, settings, timesteps))


class Signals:
    """The signals of one model on a grid of integer timesteps.

    `time_projection` is the modulation of the blocks, with the term of the frame rate if the model has one, as the
    released code of TeaCache and FlowCache measures it. `time_embedding` has no such term. Both depend on the timesteps
    alone and are the same for every prompt, so they are computed once for the whole grid.
    """

    def __init__(self, model: SkyReelsV2Transformer3DModel, grid: Iterable[int], fps: int) -> None:
        self.model, self.fps = model, fps
        self._place = {t: i for i, t in enumerate(sorted(set(grid)))}
        self._tables: dict[str, Tensor] = {}

    @classmethod
    def along(cls, model: SkyReelsV2Transformer3DModel, settings: SkyReels, timesteps: Sequence[int]) -> Signals:
        """The signals at all timesteps of a run; `timesteps` of every step."""
        return cls(model, [settings.addnoise, 0, WAITING, *timesteps], settings.fps)

    def of(self, name: str, latents: Tensor, timesteps: Sequence[int]) -> Tensor:
        """The signal `name` of `latents` (slots, C, H, W) at `timesteps`, (slots, ...) float32.

        Raises ValueError for an unknown name.
        """
        if name == "latent":
            return latents.float().clone()  # the sampler writes to `latents`
        if name == "patch_embedding":
            return patches(self.model.patch_embedding, latents)
        if name not in SIGNALS:
            raise ValueError(f"unknown signal {name!r}; this backbone offers {', '.join(sorted(SIGNALS))}")
        if name not in self._tables:
            self._tables[name] = self._table(name, sent(list(self._place), latents.device))
        return self._tables[name][sent([self._place[t] for t in timesteps], latents.device)]

    def _table(self, name: str, timesteps: Tensor) -> Tensor:
        embed = self.model.condition_embedder
        time = embedded(embed.time_embedder, embed.timesteps_proj(timesteps).float())
        if name == "time_embedding":
            return time
        modulation = linear(embed.time_proj, F.silu(time)).unflatten(-1, (6, -1))
        rate = frame_rate(self.model, self.fps, timesteps.device)
        return modulation if rate is None else modulation + rate.float()
