"""Where the parts of a MAGI-1 checkpoint lie (layout: assets.py, checkpoint.py), and the transformer's shape.

Nothing here downloads or needs torch.
"""

from __future__ import annotations

import json
from pathlib import Path

from engine.components import one_line, read_json
from engine.weights import WeightsError

from .config import ModelConfig
from .settings import Magi1

ROOT = Path(__file__).resolve().parents[2]
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
_DISTILL = "inference_weight.distill"
_BASE = "inference_weight"
WIDTH_24B = 6144  # the width that tells the 24B models from the 4.5B ones


class CheckpointError(WeightsError):
    """A checkpoint cannot be used. The message is one line and says what to do."""


def locate(folder: Path, distill: bool) -> Path:
    """The folder with the weights: `folder` itself, or its official subfolder of the base or distilled model.

    Raises:
        CheckpointError: there are no weights, or only those of the other kind of model.
    """
    folder = Path(folder)
    wanted, other = (_DISTILL, _BASE) if distill else (_BASE, _DISTILL)
    kind = "distilled" if distill else "base"
    if not folder.is_dir():
        raise CheckpointError(
            f"no MAGI-1 weights: {folder} is not a folder; run: hf download sand-ai/MAGI-1 "
            f'--include "ckpt/magi/*_{"distill" if distill else "base"}/*" --local-dir {folder}'
        )
    for place in (folder, folder / wanted):
        if _has_weights(place):
            found = _kind(place)
            if found is not None and found != distill:
                raise CheckpointError(_mismatch(place, found))
            return place
    if _has_weights(folder / other):
        raise CheckpointError(_mismatch(folder / other, not distill))
    raise CheckpointError(
        f"no {kind} MAGI-1 weights in {folder}: want {SINGLE} or {INDEX} there or in {wanted}/; "
        "download the whole folder of the model"
    )


def _has_weights(place: Path) -> bool:
    return (place / INDEX).is_file() or (place / SINGLE).is_file()


def _kind(place: Path) -> bool | None:
    """Whether the weights are distilled, by their config.json or the name of their folder; None if unknown."""
    for config in (place / "config.json", place.parent / "config.json"):
        if config.is_file():
            try:
                engine = json.loads(config.read_text()).get("engine_config", {})
            except (json.JSONDecodeError, AttributeError) as error:
                raise CheckpointError(f"{config} is not a JSON object ({error}); download it again") from error
            if "distill" in engine:
                return bool(engine["distill"])
    parts = [place.name, place.parent.name]
    if any("distill" in part for part in parts):
        return True
    return False if place.name == _BASE or any(part.endswith("_base") for part in parts) else None


def _mismatch(place: Path, found: bool) -> str:
    kind, setting = ("distilled", "base") if found else ("base", "distilled")
    fix = "distill=true cfg_number=1" if found else "distill=false cfg_number=3"
    return f"{place} holds the {kind} model but the {setting} settings are on; set {fix}, or give the other folder"


def root(settings: Magi1) -> Path:
    """The checkpoint's folder; a relative path may start at the project's root. Raises CheckpointError if missing."""
    name = settings.checkpoint
    for folder in (Path(name).expanduser(), ROOT / name):
        if name and folder.is_dir():
            return folder
    raise CheckpointError(
        f"no weights for model={settings.name}: {name!r} is not a folder. Fetch them once with `hf download "
        f'sand-ai/MAGI-1 --include "ckpt/magi/{official(settings)}/*" "ckpt/vae/*" "ckpt/t5/*" '
        f"--local-dir {name or 'FOLDER'}`, "
        "give a folder with model.checkpoint=FOLDER, or use model.weights=random to measure cost without quality"
    )


def official(settings: Magi1) -> str:
    """The name of the model's folder in the official checkpoint, e.g. 4.5B_distill."""
    size = "24B" if settings.architecture.get("hidden_size", 0) >= WIDTH_24B else "4.5B"
    return f"{size}_{'distill' if settings.distill else 'base'}"


def part(settings: Magi1, *places: str) -> Path:
    """The first of `places` that exists in the checkpoint's folder; the first if none does."""
    folder = root(settings)
    return next((folder / place for place in places if (folder / place).exists()), folder / places[0])


def transformer_folder(settings: Magi1) -> Path:
    """The folder with the transformer's weights. Raises CheckpointError if there is none."""
    return locate(part(settings, f"ckpt/magi/{official(settings)}", "."), settings.distill)


def model_config(settings: Magi1) -> ModelConfig:
    """The transformer's shape: from the settings if given there, else from a config.json in or above its folder.

    Raises CheckpointError if there is no valid one.
    """
    if settings.architecture:
        return settings.model_config(settings.architecture)
    place = transformer_folder(settings)
    for folder in (place, place.parent, root(settings)):
        if (folder / "config.json").is_file():
            entries = read_json(folder / "config.json", "download it again")
            if "model_config" in entries:
                try:
                    return settings.model_config(entries["model_config"])
                except Exception as error:  # a constructor raises many kinds
                    told = f"{folder / 'config.json'} describes no MAGI-1 ({one_line(error)}); download it again"
                    raise CheckpointError(told) from None
    raise CheckpointError(f"no config.json with a model_config in {place} or above; give model.architecture")


def text_folder(settings: Magi1) -> Path:
    return part(settings, "t5", "ckpt/t5/t5-v1_1-xxl", "ckpt/t5")
