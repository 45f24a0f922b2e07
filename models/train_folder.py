"""What all trainings share around their stages: sections of the config, and the folder that they write."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf


def plain(node: DictConfig) -> dict[str, Any]:
    """A section of the config as keyword arguments."""
    return {str(key): value for key, value in OmegaConf.to_container(node).items()}  # type: ignore[union-attr]


def move_parts(staging: Path, out: Path) -> None:
    """Move everything in `staging` into `out`, where it replaces parts of the same name. Other files in `out` stay."""
    out.mkdir(parents=True, exist_ok=True)
    for new in staging.iterdir():
        old = out / new.name
        if old.is_dir():
            shutil.rmtree(old)
        new.replace(old)
    staging.rmdir()
