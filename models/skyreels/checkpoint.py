"""Finding, checking and loading a diffusers-format SkyReels-V2 checkpoint. Nothing here downloads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, SkyReelsV2Transformer3DModel
from diffusers.utils import logging as diffusers_logging
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from transformers.utils import logging as transformers_logging

from engine.compile import compile_parts
from engine.weights import WeightsError, read_header
from models.skyreels.settings import SkyReels

for library in (diffusers_logging, transformers_logging):
    library.disable_progress_bar()  # a bar per file and video says nothing; the run has its own

ROOT = Path(__file__).resolve().parents[2]
PARTS = {"transformer": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}


def locate(settings: SkyReels) -> Path:
    """The checkpoint's folder: a path (relative ones also from the project's root), or the local cache of a hub id."""
    name = settings.checkpoint
    for folder in (Path(name).expanduser(), ROOT / name):
        if name and folder.is_dir():
            return folder
    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, ValueError, OSError):
        raise WeightsError(
            f"no weights for model={settings.name}: {name!r} is neither a folder here nor in the local hub cache. "
            f"Fetch them once with `hf download {name}` and run again, give a folder with model.checkpoint=FOLDER, "
            "or use model.weights=random to measure cost without quality"
        ) from None


def files(folder: Path, settings: SkyReels) -> list[Path]:
    """Every weight file of the checkpoint, each checked to be whole. Raises WeightsError naming the one that is not."""
    found = []
    for part, stem in PARTS.items():
        index = folder / part / f"{stem}.safetensors.index.json"
        if index.is_file():
            names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        else:
            names = [f"{stem}.safetensors"]
        for name in names:
            path = folder / part / name
            try:
                read_header(path)
            except WeightsError as error:
                raise WeightsError(f"{error} (`hf download {settings.checkpoint}` fetches it)") from None
            found.append(path)
    return found


def architecture(settings: SkyReels) -> dict[str, Any]:
    """The transformer's constructor arguments: from the settings if given there, else from the checkpoint's config."""
    if settings.architecture:
        return dict(settings.architecture)
    return _config(locate(settings) / "transformer")


def vae_architecture(settings: SkyReels) -> dict[str, Any]:
    if settings.vae or settings.architecture:
        return dict(settings.vae)
    return _config(locate(settings) / "vae")


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise WeightsError(f"{path} is missing: this is not a diffusers-format checkpoint folder")
    return {key: value for key, value in json.loads(path.read_text()).items() if not key.startswith("_")}


def on_meta(settings: SkyReels) -> SkyReelsV2Transformer3DModel:
    """The transformer without its weights, for counting parameters and FLOPs."""
    with torch.device("meta"):
        return SkyReelsV2Transformer3DModel(**{**architecture(settings), "num_frame_per_block": 1}).eval()


def load(settings: SkyReels, device: torch.device) -> tuple[SkyReelsV2Transformer3DModel, AutoencoderKLWan]:
    """Transformer in the run's precision and VAE in float32 (its bf16 decode is visibly worse), on `device`."""
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[settings.precision]
    if settings.weights == "random":
        return _random(settings, dtype, device)
    folder = locate(settings)
    files(folder, settings)
    _same_model(settings, folder)
    transformer = SkyReelsV2Transformer3DModel.from_pretrained(folder / "transformer", torch_dtype=dtype)
    transformer.register_to_config(num_frame_per_block=1)
    vae = AutoencoderKLWan.from_pretrained(folder / "vae", torch_dtype=torch.float32)
    return transformer.to(device).eval().requires_grad_(False), vae.to(device).eval().requires_grad_(False)


def compile_blocks(model: SkyReelsV2Transformer3DModel, device: torch.device) -> float:
    """Compile every block's feed-forward where that works; the seconds it took."""
    width = model.config.num_attention_heads * model.config.attention_head_dim
    return compile_parts(model.blocks, "ffn", torch.zeros(1, 2, width, device=device, dtype=model.dtype))


def _random(
    settings: SkyReels, dtype: torch.dtype, device: torch.device
) -> tuple[SkyReelsV2Transformer3DModel, AutoencoderKLWan]:
    """Seeded random weights, built where they will live."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.device(device):
        torch.manual_seed(0)
        transformer = SkyReelsV2Transformer3DModel(**{**architecture(settings), "num_frame_per_block": 1})
        vae = AutoencoderKLWan(**vae_architecture(settings))
    for name, parameter in transformer.named_parameters():
        # diffusers keeps these in float32 when it loads a checkpoint; so do we
        if not any(part in name for part in transformer._keep_in_fp32_modules):
            parameter.data = parameter.data.to(dtype)
    return transformer.eval().requires_grad_(False), vae.eval().requires_grad_(False)


def _same_model(settings: SkyReels, folder: Path) -> None:
    if not settings.architecture:
        return
    want, have = settings.architecture, _config(folder / "transformer")
    wrong = [f"{k}={have.get(k)} instead of {v}" for k, v in want.items() if _plain(have.get(k)) != _plain(v)]
    if wrong:
        raise WeightsError(f"{folder} holds another model than model={settings.name}: {', '.join(sorted(wrong))}")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value
