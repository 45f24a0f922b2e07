"""Finding, checking and loading a checkpoint in diffusers' format. Nothing here downloads."""

from __future__ import annotations

import inspect
import json
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKLWan
from diffusers.utils import logging as diffusers_logging
from transformers import UMT5Config, UMT5EncoderModel
from transformers.utils import logging as transformers_logging

from engine.compile import compile_parts
from engine.components import check_tensors, check_tokenizer, one_line, read_json, shapes_in, weight_files
from engine.weights import WeightsError
from models.wan.places import config_of, locate, todo
from models.wan.settings import WanSettings
from models.wan.vae import quicken

for library in (diffusers_logging, transformers_logging):
    library.disable_progress_bar()  # the run shows its own progress

EMBEDDING = ("shared.weight", "encoder.embed_tokens.weight")  # one table under two names
PARTS = {"transformer": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}


def kind_of(part: str, settings: WanSettings) -> Any:
    """The class of a part of the checkpoint."""
    if part == "transformer":
        return getattr(diffusers, settings.TRANSFORMER)
    return {"vae": AutoencoderKLWan, "text_encoder": UMT5EncoderModel}[part]


def files(folder: Path, settings: WanSettings) -> list[Path]:
    """All weight files of the checkpoint.

    Checks files, configs, names and shapes of tensors, and the tokenizer. Raises WeightsError that names the fault.
    A scheduler's config is not needed: `settings` define the sampler.
    """
    found: list[Path] = []
    for part, stem in PARTS.items():
        own = weight_files(folder / part, stem, todo(settings))
        held = shapes_in(own, todo(settings))
        if held is None:
            raise WeightsError(f"{folder / part} holds pickled weights, want safetensors; {todo(settings)}")
        config = json.dumps(read_json(folder / part / "config.json", todo(settings)), sort_keys=True)
        try:
            wanted = dict(_wanted(part, kind_of(part, settings), config))
        except Exception as error:  # a constructor raises many kinds
            place = folder / part / "config.json"
            raise WeightsError(f"{place} describes no {part} ({one_line(error)}); {todo(settings)}") from None
        if part == "text_encoder" and EMBEDDING[1] in held:
            held.setdefault(EMBEDDING[0], held[EMBEDDING[1]])
        beside = partial(_beside, part)
        check_tensors(folder / part, held, wanted, todo(settings), EMBEDDING[1:], beside)
        found += own
    check_tokenizer(folder / "tokenizer", todo(settings))
    return found


def _beside(part: str, name: str) -> bool:
    """Whether a tensor is ignored in the files of `part`: those of a T5's decoder are, which the encoder lacks."""
    return part == "text_encoder" and name.startswith(("decoder.", "lm_head."))


@lru_cache(maxsize=16)
def _wanted(part: str, kind: Any, config: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Names and shapes of the tensors of a part, from its config.json."""
    entries = json.loads(config)
    with torch.device("meta"):
        if part == "text_encoder":
            model: torch.nn.Module = UMT5EncoderModel(UMT5Config.from_dict(entries))
        else:
            model = kind(**_known(kind, entries))
    return tuple((name, tuple(tensor.shape)) for name, tensor in model.state_dict().items())


def _known(kind: type, entries: dict[str, Any]) -> dict[str, Any]:
    """The entries of a config.json that are arguments of `kind`. Others are ignored, as in diffusers."""
    names = inspect.signature(kind.__init__).parameters  # type: ignore[misc]
    return {key: value for key, value in entries.items() if key in names}


def architecture(settings: WanSettings) -> dict[str, Any]:
    """The arguments of the transformer's class: from the settings if given there, else from the checkpoint's config."""
    if settings.architecture:
        return dict(settings.architecture)
    return _config(locate(settings) / "transformer", settings)


def vae_architecture(settings: WanSettings) -> dict[str, Any]:
    """The arguments of the VAE's class: from the settings if given there, else from the checkpoint's config."""
    if settings.vae or settings.architecture:
        return dict(settings.vae)
    return _config(locate(settings) / "vae", settings)


def _config(folder: Path, settings: WanSettings) -> dict[str, Any]:
    return _known(kind_of(folder.name, settings), config_of(folder, settings))


def on_meta(settings: WanSettings) -> Any:
    """The transformer without its weights, for counting parameters and FLOPs."""
    with torch.device("meta"):
        return kind_of("transformer", settings)(**{**architecture(settings), **settings.FIXED}).eval()


def load(settings: WanSettings, device: torch.device) -> tuple[Any, AutoencoderKLWan]:
    """The transformer in the run's precision and the VAE in float32, on `device`.

    The VAE decodes visibly worse in bfloat16. Raises WeightsError for a missing or broken checkpoint.
    """
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[settings.precision]
    make = _random if settings.weights == "random" else _pretrained
    transformer, vae = make(settings, dtype, device)
    if device.type == "cpu":
        quicken(vae)
    return transformer, vae


def _pretrained(settings: WanSettings, dtype: torch.dtype, device: torch.device) -> tuple[Any, AutoencoderKLWan]:
    """The weights of the checkpoint, after all checks of its files."""
    folder = locate(settings)
    files(folder, settings)
    _same_model(settings, folder)
    kind = kind_of("transformer", settings)
    transformer = kind.from_pretrained(folder / "transformer", torch_dtype=dtype)
    transformer.register_to_config(**settings.FIXED)
    vae = AutoencoderKLWan.from_pretrained(folder / "vae", torch_dtype=torch.float32)
    return transformer.to(device).eval().requires_grad_(False), vae.to(device).eval().requires_grad_(False)


def compile_blocks(model: Any, device: torch.device) -> float:
    """Compile the feed-forward of every block, if the machine can; returns the seconds that it took."""
    width = model.config.num_attention_heads * model.config.attention_head_dim
    return compile_parts(model.blocks, "ffn", torch.zeros(1, 2, width, device=device, dtype=model.dtype))


def _random(settings: WanSettings, dtype: torch.dtype, device: torch.device) -> tuple[Any, AutoencoderKLWan]:
    """Seeded random weights, made on `device`."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.device(device):
        torch.manual_seed(0)
        transformer = kind_of("transformer", settings)(**{**architecture(settings), **settings.FIXED})
        vae = AutoencoderKLWan(**vae_architecture(settings))
    for name, parameter in transformer.named_parameters():
        # these stay in float32, as when diffusers loads a checkpoint
        if not any(part in name for part in transformer._keep_in_fp32_modules):
            parameter.data = parameter.data.to(dtype)
    return transformer.eval().requires_grad_(False), vae.eval().requires_grad_(False)


def _same_model(settings: WanSettings, folder: Path) -> None:
    if not settings.architecture:
        return
    want, have = settings.architecture, _config(folder / "transformer", settings)
    wrong = [f"{k}={have.get(k)} instead of {v}" for k, v in want.items() if _plain(have.get(k)) != _plain(v)]
    if wrong:
        raise WeightsError(f"{folder} holds another model than model={settings.name}: {', '.join(sorted(wrong))}")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value
