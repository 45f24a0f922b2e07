"""The signals of MAGI-1 that depend on the times alone, with and without the rest of the denoiser."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from engine.to_device import sent

from .checkpoint import empty_dit, kept_as, some, take
from .config import ModelConfig
from .dit import Layer, Magi1DiT
from .places import CheckpointError
from .schedule import Forward
from .settings import Magi1

if TYPE_CHECKING:
    from engine.backbone import TimeSignals

EMBEDDING = (  # the tensors that these signals need
    "t_embedder.",
    "y_embedder.null_caption_embedding",
    "y_embedder.y_proj_adaln.",
    "videodit_blocks.layers.0.ada_modulate_layer.",
)


def time_signal(name: str, model: Magi1DiT, settings: Magi1, forward: Forward, device: torch.device) -> Tensor:
    """`time_embedding`, or `time_projection`: the gates of the first layer. One entry per slot, float32."""
    times = sent(forward.times, device)
    condition = model.t_embedder(times)
    if settings.distill:
        condition = condition + model.t_embedder(torch.full_like(times, forward.step_length))
    if name == "time_projection":
        layer = model.layers[0]
        assert isinstance(layer, Layer)
        condition = condition + model.y_embedder.condition(dropped=False)
        condition = torch.stack(layer.ada_modulate_layer(condition.to(model.config.dtype)), 1)
    signal: Tensor = condition.float().repeat_interleave(settings.chunk, 0)
    return signal


def without_denoiser(
    settings: Magi1, config: ModelConfig, files: Sequence[Path], forwards: Sequence[Forward]
) -> TimeSignals:
    """See Backbone.time_signals; `forwards`: of the whole video."""
    model = empty_dit(config)
    wanted = {name for name, _ in model.named_parameters() if name.startswith(EMBEDDING)}
    take(model, some(files, wanted), partial(kept_as, dtype=config.dtype), "cpu")
    lacking = sorted(name for name in wanted if model.get_parameter(name).is_meta)
    if lacking:
        raise CheckpointError(f"the checkpoint of model={settings.name} lacks {', '.join(lacking)}; download it again")
    return lambda name, row: time_signal(name, model, settings, forwards[row.iteration], torch.device("cpu"))
