"""The two times of a step, and the modulation that the model computes from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.to_device import sent
from models.far.capabilities import SIGNALS
from models.wan.embedding import time_network

if TYPE_CHECKING:
    from engine.backbone import TimeSignals
    from models.far.settings import Far
from models.wan.parameters import embedded, linear, parameter, patches


def times(sigmas: list[float], mean_velocity: bool, trained: int) -> tuple[list[float], list[float]]:
    """(t, r) of every step and of a clean pass, which is the last: where a step starts and where it goes to.

    >>> times([1.0, 0.75, 0.0], True, 1000)
    ([1000.0, 750.0, 0.0], [750.0, 0.0, 0.0])
    """
    start = [sigma * trained for sigma in sigmas]
    return start, [*start[1:], 0.0] if mean_velocity else list(start)


@dataclass(frozen=True)
class Condition:
    """The modulation of every step and, last, of a clean pass. All slots of a chunk have the same."""

    time: Tensor  # (steps + 1, width), for the head
    blocks: Tensor  # (steps + 1, 6, width), for the blocks

    def of(self, step: int) -> Condition:
        """The modulation of one step, (1, ...)."""
        return Condition(self.time[step : step + 1], self.blocks[step : step + 1])


def condition(model: Any, t: list[float], r: list[float], like: Tensor) -> Condition:
    """The modulation at the times `t` and `r`, in the dtype of `like`, as the transformer's own class computes it."""
    embed = model.condition_embedder
    now, other = (sent(x, like.device)[None] for x in (t, second(embed.deltatime_type, t, r)))
    time, blocks = embed.forward_timestep(now, other, like, 1)
    return Condition(time[0], blocks[0].unflatten(-1, (6, -1)))


def second(kind: str, t: list[float], r: list[float]) -> list[float]:
    """What the model is told besides t: r itself, or the way from t to r. Raises ValueError for another kind."""
    if kind not in ("r", "t-r"):
        raise ValueError(f"the transformer has deltatime_type={kind!r}, want r or t-r")
    return list(r) if kind == "r" else [a - b for a, b in zip(t, r, strict=True)]


EMBEDDING = ("condition_embedder.time", "condition_embedder.delta")  # the tensors that the signals of times need


def without_denoiser(settings: Far, files: Sequence[Path], sigmas: list[float], trained: int) -> TimeSignals:
    """See Backbone.time_signals; `sigmas` and `trained` as for `times`."""
    t, r = times(sigmas, settings.use_mean_velocity, trained)
    model = time_network(settings, files, EMBEDDING)
    model.condition_embedder.delta_emb_gate = torch.tensor([model.config.gate_value])  # no weight: it is in no file
    signals = Signals(model, t, r)
    return lambda name, row: signals.of(name, torch.empty(len(row.slots)), row.step[0])


class Signals:
    """Signals that need no forward. They are float32 in every precision of the model, so that adjacent steps differ."""

    def __init__(self, model: Any, t: list[float], r: list[float]) -> None:
        self.model, self.t, self.r = model, t, r
        self._tables: dict[str, Tensor] = {}

    def of(self, name: str, latents: Tensor, step: int) -> Tensor:
        """The signal `name` of `latents` (slots, C, H, W), all at `step`: (slots, ...) float32.

        Raises ValueError for an unknown name.
        """
        if name == "latent":
            return latents.float().clone()  # the sampler writes to `latents`
        if name == "patch_embedding":
            return patches(self.model.patch_embedding, latents)
        if name not in SIGNALS:
            raise ValueError(f"unknown signal {name!r}; this backbone offers {', '.join(sorted(SIGNALS))}")
        if name not in self._tables:
            self._tables[name] = self._table(name, latents)
        return self._tables[name][step].expand(len(latents), *self._tables[name].shape[1:])

    def _table(self, name: str, like: Tensor) -> Tensor:
        embed = self.model.condition_embedder
        first = _embedded(embed, embed.time_embedder, self.t, like)
        other = _embedded(embed, embed.delta_embedder, second(embed.deltatime_type, self.t, self.r), like)
        gate = parameter(embed, "delta_emb_gate", first)
        time: Tensor = (1 - gate) * first + gate * other
        if name == "time_embedding":
            return time
        return linear(embed.time_proj, F.silu(time)).unflatten(-1, (6, -1))


def _embedded(embed: Any, own: Any, values: list[float], like: Tensor) -> Tensor:
    """The embedding (times, width) of `values` by one of the two embedders, float32."""
    return embedded(own, embed.timesteps_proj(sent(values, like.device)).float())
