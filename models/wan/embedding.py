"""The network that embeds the times of a checkpoint, read without the rest of the denoiser."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from engine.weights import WeightsError
from models.wan.checkpoint import architecture, kind_of
from models.wan.settings import WanSettings


def time_network(settings: WanSettings, files: Sequence[Path], names: Sequence[str]) -> Any:
    """A transformer of one block that holds only the tensors whose names start with one of `names`.

    They are on the CPU, in the dtypes that a run has; all other tensors are without values. Raises WeightsError if one
    is not in `files`.
    """
    kind = kind_of("transformer", settings)
    with torch.device("meta"):
        model = kind(**{**architecture(settings), **settings.FIXED, "num_layers": 1}).eval()
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[settings.precision]
    wanted = {name for name, _ in model.named_parameters() if name.startswith(tuple(names))}
    found: set[str] = set()
    for path in files:
        with suppress(FileNotFoundError), _opened(path) as file:
            for name in wanted & set(file.keys()):
                keeps = any(kept in name for kept in model._keep_in_fp32_modules)
                owner, _, leaf = name.rpartition(".")
                tensor = file.get_tensor(name).to(torch.float32 if keeps else dtype)
                setattr(model.get_submodule(owner), leaf, nn.Parameter(tensor, requires_grad=False))
                found.add(name)
    lacking = sorted(wanted - found)
    if lacking:
        raise WeightsError(f"the checkpoint of model={settings.name} lacks {', '.join(lacking)}; fetch it again")
    return model


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt", device="cpu")
    except SafetensorError as error:
        raise WeightsError(f"{path} is cut off or not a safetensors file ({error}); fetch it again") from None
