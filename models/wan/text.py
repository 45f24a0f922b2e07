"""Prompt embeddings: computed once for all prompts of a run and stored on disk. The text encoder is then unloaded."""

from __future__ import annotations

import hashlib
import html
import os
import re
from collections.abc import Iterable
from pathlib import Path

import ftfy
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import UMT5EncoderModel

from engine.components import load_encoder, load_tokenizer
from engine.fingerprint import code_of
from engine.weights import digest
from models.wan.checkpoint import architecture, files, locate, todo
from models.wan.settings import WanSettings


def clean(prompt: str) -> str:
    """The prompt as diffusers' pipeline cleans it: repair Unicode, unescape HTML twice, collapse white space."""
    return re.sub(r"\s+", " ", html.unescape(html.unescape(ftfy.fix_text(prompt)))).strip()


def embed(prompts: Iterable[str], settings: WanSettings, device: torch.device, cache: Path | None) -> dict[str, Tensor]:
    """{prompt: embedding (1, text_length, text width)}, float32 on the CPU, zero after the last token.

    Embeddings in the folder `cache` are read. The others are computed by the checkpoint's text encoder and written
    there. With random weights, embeddings are seeded noise of the same shape.
    """
    prompts = sorted(set(prompts))
    if settings.weights == "random":
        return {prompt: _random(prompt, settings) for prompt in prompts}
    folder = locate(settings)
    encoder_id = digest(path for path in files(folder, settings) if path.parent.name == "text_encoder")
    found: dict[str, Tensor] = {}
    for prompt in prompts:
        path = _path(cache, encoder_id, prompt, settings)
        if path and path.is_file():
            # a memory-mapped tensor may be unaligned, and unaligned products round differently
            found[prompt] = load_file(path)["embedding"].clone()
    missing = [prompt for prompt in prompts if prompt not in found]
    if missing:
        found |= _encode(missing, settings, folder, device)
        for prompt in missing:
            _write(_path(cache, encoder_id, prompt, settings), found[prompt])
    return found


def _encode(prompts: list[str], settings: WanSettings, folder: Path, device: torch.device) -> dict[str, Tensor]:
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[settings.precision]
    encoder = load_encoder(UMT5EncoderModel, folder / "text_encoder", todo(settings), dtype).to(device)
    tokenizer = load_tokenizer(folder / "tokenizer", todo(settings), encoder.config.vocab_size)
    found = {}
    with torch.inference_mode():
        for prompt in prompts:
            tokens = tokenizer(
                [clean(prompt)],
                padding="max_length",
                max_length=settings.text_length,
                truncation=True,
                return_tensors="pt",
            ).to(device)
            states = encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state
            states = states * tokens.attention_mask[..., None]
            found[prompt] = states.float().cpu().clone()
    return found


def _random(prompt: str, settings: WanSettings) -> Tensor:
    seed = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:4], "little")
    shape = (1, settings.text_length, int(architecture(settings)["text_dim"]))
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _path(cache: Path | None, encoder_id: str, prompt: str, settings: WanSettings) -> Path | None:
    if cache is None:
        return None
    what = f"{code_of(_encode)}|{encoder_id}|{settings.text_length}|{settings.precision}|{prompt}"
    return cache / f"text-{hashlib.sha256(what.encode()).hexdigest()[:24]}.safetensors"


def _write(path: Path | None, embedding: Tensor) -> None:
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_suffix(f".{os.getpid()}.part")
    save_file({"embedding": embedding.contiguous()}, staging)
    staging.replace(path)
