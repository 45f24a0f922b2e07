"""Prompt embeddings: computed once for all prompts of a run and stored on disk. The text encoder is then unloaded."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import ftfy
import torch
from torch import Tensor
from transformers import UMT5EncoderModel

from engine.components import load_encoder, load_tokenizer
from engine.fingerprint import code_of
from engine.weights import digest
from models.text_cache import noise, through
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
    if settings.weights == "random":
        shape = (1, settings.text_length, int(architecture(settings)["text_dim"]))
        return {prompt: noise(prompt, shape) for prompt in set(prompts)}
    folder = locate(settings)
    encoder_id = digest(path for path in files(folder, settings) if path.parent.name == "text_encoder")
    made_by = f"{code_of(_encode)}|{encoder_id}|{settings.text_length}|{settings.precision}"
    return through(cache, prompts, made_by, lambda missing: _encode(missing, settings, folder, device))


def _encode(prompts: list[str], settings: WanSettings, folder: Path, device: torch.device) -> Iterator[Tensor]:
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[settings.precision]
    encoder = load_encoder(UMT5EncoderModel, folder / "text_encoder", todo(settings), dtype).to(device)
    tokenizer = load_tokenizer(folder / "tokenizer", todo(settings), encoder.config.vocab_size)
    for prompt in prompts:
        tokens = tokenizer(
            [clean(prompt)],
            padding="max_length",
            max_length=settings.text_length,
            truncation=True,
            return_tensors="pt",
        ).to(device)
        with torch.inference_mode():
            states = encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state
            states = states * tokens.attention_mask[..., None]
        yield states.float().cpu().clone()
