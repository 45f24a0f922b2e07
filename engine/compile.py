"""Compiling modules with torch.compile. If it fails, the module runs uncompiled and a warning gives the reason."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor, nn


class CompileWarning(UserWarning):
    """A module could not be compiled and runs uncompiled."""


def compile_parts(blocks: Iterable[nn.Module], name: str, example: Tensor) -> float:
    """Compile the submodule `name` of every block in `blocks`, for inputs like `example` of any length.

    Returns the seconds that compiling took. If the machine cannot compile (no compiler, no Triton), no block is
    compiled, a CompileWarning gives the reason, and 0.0 is returned.
    """
    begin, parts = time.perf_counter(), [(block, getattr(block, name)) for block in blocks]
    try:
        with torch.inference_mode():
            for block, part in parts:
                setattr(block, name, torch.compile(part, dynamic=True))
                getattr(block, name)(example)
    except Exception as error:  # torch.compile passes on any exception of its compiler
        for block, part in parts:
            setattr(block, name, part)
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        warnings.warn(f"compile: {name} runs uncompiled on {example.device.type}: {reason}", CompileWarning, 2)
        return 0.0
    return time.perf_counter() - begin
