"""Finding, checking and loading the files of a MAGI-1 run. Nothing is downloaded.

FOLDER/config.json or ckpt/magi/4.5B_<kind>/   the transformer (layout: checkpoint.py)
FOLDER/vae or ckpt/vae                         the autoencoder
FOLDER/t5 or ckpt/t5/t5-v1_1-xxl               the text encoder and its tokenizer
FOLDER/special_tokens.npz                      from example/assets of the official code
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from engine.fingerprint import code_of
from engine.weights import digest
from models.text_cache import noise, through

from .checkpoint import check, empty_dit, load_dit, random_dit, shards
from .dit import Magi1DiT
from .places import CheckpointError, model_config, part, text_folder, transformer_folder
from .settings import Magi1
from .text import SpecialTokens, TextEncoder, check_encoder
from .vae import WEIGHTS, VaeConfig, ViTVAE, empty_vae, load_vae

_TEXT_WEIGHTS = ("*.safetensors", "*.bin", "*.json", "*.model")


def weight_files(settings: Magi1) -> list[Path]:
    """All files that the frames depend on. Raises WeightsError if one is missing or of another model."""
    files = list(shards(transformer_folder(settings)))
    vae, text = part(settings, "vae", "ckpt/vae"), text_folder(settings)
    files += [vae / "config.json", vae / WEIGHTS]
    _whole(settings, vae, text)
    if settings.special_tokens:
        SpecialTokens.load(_tokens_path(settings))
        files.append(_tokens_path(settings))
    files += [path for pattern in _TEXT_WEIGHTS for path in sorted(text.glob(pattern))]
    for path in files:
        if not path.is_file():
            raise CheckpointError(f"{path} is missing; fetch the whole checkpoint of model={settings.name}")
    return files


def _whole(settings: Magi1, vae: Path, text: Path) -> None:
    """Raise WeightsError if a file, a tensor or the tokenizer is missing or of another model. Reads headers only."""
    empty_vae(vae)
    check_encoder(text)
    wanted = empty_dit(model_config(settings)).state_dict()
    check({name: tuple(tensor.shape) for name, tensor in wanted.items()}, shards(transformer_folder(settings)))


def _tokens_path(settings: Magi1) -> Path:
    return part(settings, "special_tokens.npz", "example/assets/special_tokens.npz")


def load_transformer(settings: Magi1, device: torch.device) -> Magi1DiT:
    """The transformer on `device`, in evaluation mode. Raises CheckpointError."""
    config = model_config(settings)
    if settings.weights == "random":
        return random_dit(config, 0, device, settings.proj_precision)
    place = transformer_folder(settings)
    return load_dit(config, place, settings.distill, device, settings.proj_precision)


def load_autoencoder(settings: Magi1, device: torch.device) -> ViTVAE:
    """The VAE on `device`, in the run's precision and in evaluation mode. Raises WeightsError."""
    dtype = torch.bfloat16 if settings.precision == "bf16" else torch.float32
    if settings.weights == "random":
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.device(device):
            torch.manual_seed(0)
            return ViTVAE(VaeConfig.from_dict(settings.vae)).to(dtype).eval().requires_grad_(False)
    return load_vae(part(settings, "vae", "ckpt/vae"), device, dtype)


def load_tokens(settings: Magi1) -> SpecialTokens | None:
    """The special tokens; random ones for random weights; None if the settings name none."""
    if not settings.special_tokens:
        return None
    if settings.weights == "random":
        rows = noise("special tokens", (17, model_config(settings).caption_channels))
        return SpecialTokens.of(rows, rows[:1], rows[1:2])
    return SpecialTokens.load(_tokens_path(settings))


def embed(prompts: Iterable[str], settings: Magi1, device: torch.device, cache: Path | None) -> dict[str, Tensor]:
    """The token embeddings {prompt: (L, caption channels)}, float32 on the CPU.

    Embeddings in the folder `cache` are read. The others are computed by the text encoder and written there, and the
    encoder is then unloaded. With random weights, embeddings are seeded noise for `settings.text_tokens` tokens.
    """
    if settings.weights == "random":
        length = max(1, settings.text_tokens - len(settings.special_tokens))
        channels = model_config(settings).caption_channels
        return {prompt: noise(prompt, (length, channels)) for prompt in set(prompts)}
    folder = text_folder(settings)
    identity = digest(path for pattern in _TEXT_WEIGHTS for path in folder.glob(pattern))
    made_by = f"{code_of(TextEncoder.encode)}|{identity}"
    return through(cache, prompts, made_by, lambda missing: TextEncoder(folder, device).encode(missing))
