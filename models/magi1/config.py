"""MAGI-1's two configurations. They are read from the official JSON and checked at once.

`ModelConfig` is the shape of the transformer, `RuntimeConfig` the settings of a video. The defaults are those of the
published 4.5B distilled model. Both accept the official dictionaries. Other keys in them (ports, offloading, parallel
sizes) do not change numbers and are ignored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

BRANCHES = {1: ("cond",), 3: ("cond", "past", "none")}
"""Guidance passes of a forward by `cfg_number`: with prompt and past chunks, with past chunks only, with neither."""
NULL_TOKENS = 50  # number of tokens of the learned null caption in a pass without text
_DTYPES = ("float32", "bfloat16", "float16")
_UPSAMPLE = 8  # pixels per latent, each side


@dataclass(frozen=True)
class ModelConfig:
    """The transformer's shape. Raising any size makes it larger and slower."""

    num_layers: int = 34
    hidden_size: int = 3072
    ffn_hidden_size: int = 12288
    num_attention_heads: int = 24
    num_query_groups: int = 8  # key/value heads; each serves heads / groups query heads
    kv_channels: int = 128  # width of one head
    layernorm_epsilon: float = 1e-6
    apply_layernorm_1p: bool = True
    x_rescale_factor: float = 1.0  # inputs are multiplied by it, velocities divided
    half_channel_vae: bool = False  # latents have half of in_channels and are concatenated with themselves (24B)
    params_dtype: str = "bfloat16"
    patch_size: int = 2
    t_patch_size: int = 1
    in_channels: int = 16
    out_channels: int = 16
    cond_hidden_ratio: float = 0.25
    caption_channels: int = 4096
    caption_max_length: int = 800
    xattn_cond_hidden_ratio: float = 1.0
    cond_gating_ratio: float = 1.0
    gated_linear_unit: bool = False  # SwiGLU instead of GELU (24B)

    def __post_init__(self) -> None:
        wants = {
            "apply_layernorm_1p": True,
            "t_patch_size": 1,
            "xattn_cond_hidden_ratio": 1.0,
            "cond_gating_ratio": 1.0,
        }
        for name, value in wants.items():
            if getattr(self, name) != value:
                raise ValueError(f"got {name}={getattr(self, name)}, want {name}={value} as in all released MAGI-1")
        if self.num_attention_heads % self.num_query_groups:
            raise ValueError(
                f"num_attention_heads={self.num_attention_heads} must be a multiple of "
                f"num_query_groups={self.num_query_groups}"
            )
        if self.kv_channels % 8 or self.attention_width % 8:
            raise ValueError(f"kv_channels={self.kv_channels} must be a multiple of 8, as it gives the rotary bands")

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the token stream and of most weights."""
        name = self.params_dtype.removeprefix("torch.")
        if name not in _DTYPES:
            raise ValueError(f"params_dtype={self.params_dtype!r}; choose one of {', '.join(_DTYPES)}")
        import torch  # only here: the sizes of a plan need none

        found: torch.dtype = getattr(torch, name)
        return found

    @property
    def attention_width(self) -> int:
        """The total number of channels of all query heads."""
        return self.num_attention_heads * self.kv_channels

    @property
    def latent_channels(self) -> int:
        """The number of channels of a latent of the VAE."""
        return self.in_channels // 2 if self.half_channel_vae else self.in_channels

    @property
    def condition_size(self) -> int:
        """The number of channels of the gates' input."""
        return int(self.hidden_size * self.cond_hidden_ratio)

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> ModelConfig:
        """Read the official `model_config` section."""
        return cls(**_known(cls, entries))


@dataclass(frozen=True)
class RuntimeConfig:
    """The settings of a video: size, steps, window, guidance, and the chunks that each chunk attends to."""

    distill: bool = True  # the distilled model: one pass, step embedding, nearly-clean duplicate
    cfg_number: int = 1  # passes per forward: 1 distilled, 3 base
    cfg_t_range: tuple[float, ...] = (0.0, 0.0217, 0.1, 0.3, 0.999)
    prev_chunk_scales: tuple[float, ...] = (1.5, 1.5, 1.5, 1.0, 1.0)  # higher: follow the past more
    text_scales: tuple[float, ...] = (7.5, 7.5, 7.5, 0.0, 0.0)  # higher: follow the prompt more
    noise2clean_kvrange: tuple[int, ...] = (5, 4, 3, 2)  # chunks attended to, by quarter of the steps; (): all
    clean_chunk_kvrange: int = 1  # the same for a finished chunk, itself included; -1: the last of noise2clean_kvrange
    clean_t: float = 0.9999  # time at which finished chunks are computed again
    clean_refresh: bool = True  # compute finished chunks again; False: their keys are those of their last step
    kv_capacity: int = 0  # size of the cache in chunks, 0 for all; higher: more memory, fewer keys dropped
    kv_queries: str = "frame"  # queries that rank the keys: those of the newest chunk's last token | frame | chunk
    distill_nearly_clean_chunk_threshold: float = 0.3  # higher: the duplicate starts later
    nearly_clean_weight: float = 0.7  # share of the context velocity where a duplicate runs
    shortcut_mode: str = "8,16,16"  # which quarter of a 12-step grid has the long step
    num_frames: int = 240
    video_size_h: int = 480
    video_size_w: int = 480
    num_steps: int = 64  # higher: slower, finer
    window_size: int = 4  # chunks in flight; higher: fewer, larger forwards
    chunk_width: int = 6  # latent frames per chunk
    fps: int = 24
    scale_factor: float = 0.18215
    temporal_downsample_factor: int = 4

    def __post_init__(self) -> None:
        if self.num_steps % self.window_size:
            raise ValueError(
                f"num_steps={self.num_steps} must be a multiple of window_size={self.window_size}; "
                f"try {max(self.num_steps // self.window_size, 1) * self.window_size}"
            )
        for name in ("video_size_h", "video_size_w"):
            if getattr(self, name) % 16 or getattr(self, name) < 16:
                size = getattr(self, name)
                raise ValueError(f"{name}={size} must be a multiple of 16; try {max(round(size / 16), 1) * 16}")
        if self.num_frames < self.temporal_downsample_factor:
            least = self.temporal_downsample_factor
            raise ValueError(f"num_frames={self.num_frames} is less than one latent frame; want {least} or more")
        if self.cfg_number != (1 if self.distill else 3):
            kind, passes = ("distilled", 1) if self.distill else ("base", 3)
            raise ValueError(f"the {kind} model runs with cfg_number={passes}, not {self.cfg_number}")
        lengths = {len(self.cfg_t_range), len(self.prev_chunk_scales), len(self.text_scales)}
        if len(lengths) != 1:
            raise ValueError("cfg_t_range, prev_chunk_scales and text_scales must be equally long")
        if self.noise2clean_kvrange and self.num_steps % len(self.noise2clean_kvrange):
            raise ValueError(
                f"num_steps={self.num_steps} must be a multiple of the {len(self.noise2clean_kvrange)} entries of "
                "noise2clean_kvrange"
            )
        if self.kv_capacity < 0 or self.kv_queries not in ("token", "frame", "chunk"):
            raise ValueError(
                "want kv_capacity of 0 or more and kv_queries of token, frame, chunk; got "
                f"{self.kv_capacity} and {self.kv_queries!r}"
            )
        if self.kv_capacity and self.noise2clean_kvrange:
            raise ValueError("kv_capacity needs attention to the whole history; set kv_range=[]")
        if min(self.noise2clean_kvrange, default=1) < 1:
            raise ValueError(f"noise2clean_kvrange={self.noise2clean_kvrange}; want 1 or more: a chunk sees itself")

    @property
    def latent_size(self) -> tuple[int, int]:
        """(height, width) of a latent frame."""
        return self.video_size_h // _UPSAMPLE, self.video_size_w // _UPSAMPLE

    @property
    def latent_frames(self) -> int:
        """The number of generated latent frames, without the prefix."""
        return self.num_frames // self.temporal_downsample_factor

    @classmethod
    def from_dict(cls, runtime: Mapping[str, Any], engine: Mapping[str, Any] | None = None) -> RuntimeConfig:
        """Read the official `runtime_config` and `engine_config` sections."""
        entries = {**runtime, **(engine or {})}
        known = _known(cls, entries)
        known.setdefault("distill", entries.get("cfg_number", 1) == 1)
        return cls(**_frozen(known))

    def with_(self, **changes: Any) -> RuntimeConfig:
        """A checked copy with some fields changed."""
        return replace(self, **_frozen(changes))


def read_config(path: Path) -> tuple[ModelConfig, RuntimeConfig]:
    """Read an official config.json, or a recorded one that holds it under "config".

    Raises:
        ValueError: the file is not JSON, or lacks a section.
    """
    try:
        entries = json.loads(Path(path).read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    entries = entries.get("config", entries)
    missing = [name for name in ("model_config", "runtime_config", "engine_config") if name not in entries]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}; give the config.json of a MAGI-1 4.5B model")
    runtime = RuntimeConfig.from_dict(entries["runtime_config"], entries["engine_config"])
    return ModelConfig.from_dict(entries["model_config"]), runtime


def _frozen(entries: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in entries.items()}


def _known(cls: type, entries: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(cls)}
    return {name: value for name, value in entries.items() if name in names}
