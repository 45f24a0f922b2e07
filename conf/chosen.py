"""What a composed run has from the menu, and where it departs from it. Call it inside a Hydra job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from conf.menu import CONF, GROUPS, in_full
from conf.quick import once

NO_DEPARTURE = ("_target_", "name", "checkpoint", "weights")  # recorded elsewhere, so no departure from the menu
_NOTHING = object()


def has_point(model: str, method: str, speed: str) -> bool:
    """Whether our menu or a plug-in's menu has this operating point."""
    return bool(_on_menu(f"point/{model}/{method}_{speed}"))


def departures(config: DictConfig) -> dict[str, Any]:
    """The settings of a composed run that differ from the menu, with their values: `{"method.max_skip": 1}`."""
    choices, folders = HydraConfig.get().runtime.choices, _folders()
    point = _on_menu(f"point/{choices['model']}/{choices['method']}_{config.get('speed')}")
    found: dict[str, Any] = {}
    for group in GROUPS:
        plain = in_full(group, choices[group], folders) | dict(point.get(group) or {})
        own: Any = OmegaConf.to_container(config[group], resolve=True)
        found |= {f"{group}.{k}": v for k, v in own.items() if k not in NO_DEPARTURE and v != plain.get(k, _NOTHING)}
    return found


def _folders() -> list[Path]:
    """Where files of the menu lie, a plug-in's folder before ours."""
    plugged_in = [Path(source.path) for source in HydraConfig.get().runtime.config_sources if source.path]
    return [*plugged_in, CONF]


def _on_menu(name: str) -> dict[str, Any]:
    """An operating point as its file has it; empty if there is none."""
    path = next((path for folder in _folders() if (path := folder / f"{name}.yaml").is_file()), None)
    content: Any = once("plain", f"{path}", lambda: OmegaConf.to_container(OmegaConf.load(path))) if path else {}
    return content or {}
