"""torch.compile where it works, and the plain module with a word about it where it does not."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable

import torch
from torch import Tensor, nn


class CompileWarning(UserWarning):
    """What was to be compiled runs uncompiled."""


def compile_parts(blocks: Iterable[nn.Module], name: str, example: Tensor) -> float:
    """Compile the submodule `name` of every one of `blocks`, for inputs like `example` of any length.

    Returns the seconds that compiling took. If the device or the machine cannot compile (no compiler, no Triton), all
    blocks keep their plain modules and a CompileWarning says why.
    """
    begin, parts = time.perf_counter(), [(block, getattr(block, name)) for block in blocks]
    try:
        with torch.inference_mode():
            for block, part in parts:
                setattr(block, name, torch.compile(part, dynamic=True))
                getattr(block, name)(example)
    except Exception as error:  # torch.compile raises whatever its compiler does
        for block, part in parts:
            setattr(block, name, part)
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        warnings.warn(f"compile: {name} runs uncompiled on {example.device.type}: {reason}", CompileWarning, 2)
        return 0.0
    return time.perf_counter() - begin
