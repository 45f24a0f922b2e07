"""Prompt embeddings on disk: each is computed once and read by every later run."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor


def through(
    cache: Path | None, prompts: Iterable[str], made_by: str, encode: Callable[[list[str]], Iterable[Tensor]]
) -> dict[str, Tensor]:
    """{prompt: embedding}: those in the folder `cache` are read, the others come from `encode` and are written there.

    `made_by`: all that an embedding depends on besides its prompt. `encode` is called once, with the prompts that are
    missing; what it yields is written one by one, so that after an interrupt only the rest is computed. A broken file
    is written again. Without a folder nothing is read or written.
    """
    paths = {prompt: _path(cache, made_by, prompt) for prompt in sorted(set(prompts))}
    found = {prompt: _read(path) for prompt, path in paths.items()}
    missing = [prompt for prompt, embedding in found.items() if embedding is None]
    if missing:
        for prompt, made in zip(missing, encode(missing), strict=True):
            found[prompt] = embedding = made.cpu().contiguous()
            _write(paths[prompt], embedding)
    return {prompt: embedding for prompt, embedding in found.items() if embedding is not None}


def noise(name: str, shape: tuple[int, ...]) -> Tensor:
    """Seeded noise in place of an embedding, for models with random weights; the name is the seed."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _path(cache: Path | None, made_by: str, prompt: str) -> Path | None:
    if cache is None:
        return None
    return cache / f"text-{hashlib.sha256(f'{made_by}|{prompt}'.encode()).hexdigest()[:24]}.safetensors"


def _read(path: Path | None) -> Tensor | None:
    if path is None or not path.is_file():
        return None
    try:
        # cloned: a memory-mapped tensor may be unaligned, and unaligned products round differently
        return load_file(path)["embedding"].clone()
    except (SafetensorError, KeyError):
        return None


def _write(path: Path | None, embedding: Tensor) -> None:
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_suffix(f".{os.getpid()}.part")
    save_file({"embedding": embedding}, staging)
    staging.replace(path)
