"""Where a checkpoint lies, and how its parts describe themselves. Nothing here downloads or needs torch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from engine.components import read_json
from engine.weights import WeightsError
from models.wan.settings import WanSettings

ROOT = Path(__file__).resolve().parents[2]


def locate(settings: WanSettings) -> Path:
    """The checkpoint's folder: a path, also relative to the project's root, or a hub id in the local hub cache.

    Raises WeightsError if there is no such folder.
    """
    name = settings.checkpoint
    for folder in (Path(name).expanduser(), ROOT / name):
        if name and folder.is_dir():
            return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, ValueError, OSError):
        raise WeightsError(
            f"no weights for model={settings.name}: {name!r} is neither a folder nor in the local hub cache. "
            f"Fetch them once with {_download(settings)} and run again, give a folder with model.checkpoint=FOLDER, "
            "or use model.weights=random to measure cost without quality"
        ) from None


def time_files(settings: WanSettings) -> list[Path]:
    """The files with the network that embeds times; none for random weights. Raises WeightsError without a folder."""
    if settings.weights == "random":
        return []
    return sorted((locate(settings) / "transformer").glob("*.safetensors"))


def todo(settings: WanSettings) -> str:
    """The advice for a broken file of the checkpoint."""
    return f"fetch it again with {_download(settings)}"


def _download(settings: WanSettings) -> str:
    """The command that fetches a whole checkpoint in diffusers' format, into the hub cache or into a folder."""
    name = settings.checkpoint
    folder = next((place for place in (Path(name).expanduser(), ROOT / name) if name and place.is_dir()), None)
    if folder is not None and ROOT / "models" / "weights" in folder.resolve().parents:
        return f"`git checkout -- {folder.resolve().relative_to(ROOT)}` (or `hf download`, for the model at full size)"
    if folder is None and re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not name.startswith((".", "~")):
        right = settings.HUB if f"{name}-Diffusers" == settings.HUB else name  # the other is in another format
        return f"`hf download {right}`"
    return f"`hf download {settings.HUB} --local-dir {folder or name or 'FOLDER'}`"


def config_of(folder: Path, settings: WanSettings) -> dict[str, Any]:
    """What config.json in `folder`, a part of the checkpoint, says. Raises WeightsError if there is none."""
    path = folder / "config.json"
    if not path.is_file():
        raise WeightsError(
            f"{path} is missing: this is not a diffusers-format checkpoint folder; get one with {_download(settings)}"
        )
    return read_json(path, todo(settings))
