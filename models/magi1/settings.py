"""The settings of a MAGI-1 run, and the checks of their values."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from engine.row import Row

from .config import ModelConfig, RuntimeConfig
from .schedule import Forward, Schedule, schedule

_DTYPES = {"fp32": "float32", "bf16": "bfloat16"}
FRAMES = 4  # pixel frames per latent frame


@dataclass
class Magi1:
    """Settings of one MAGI-1 run. The YAML files in conf/model/ hold the values.

    Raises ValueError for a combination that the backbone cannot run; the message names values that work.
    """

    name: str = "magi1"
    weights: str = "pretrained"  # "random": random weights without a checkpoint, to measure cost but not quality
    checkpoint: str = ""  # folder with the transformer, the VAE, the text encoder and the special tokens
    frames: int = 240  # pixel frames of the video, a multiple of 4
    height: int = 480
    width: int = 480
    fps: int = 24
    steps: int = 64  # updates of every chunk; raising it: better, proportionally slower
    window: int = 4  # chunks that are denoised at the same time; raising it: fewer, larger forwards
    chunk: int = 6  # latent frames per chunk; raising it: more frames are denoised together
    distill: bool = True  # the distilled model, one pass per forward; the base model needs three
    kv_range: list[int] = field(default_factory=list)  # chunks attended to, by share of the steps; []: all history
    clean_kv_range: int = 1  # chunks that a finished chunk attends to at its refresh; unused with kv_range []
    clean_t: float = 0.9999  # time at which finished chunks are computed again
    clean_refresh: bool = True  # compute finished chunks again; false: their keys are those of their last step
    kv_capacity: int = 0  # size of the key-value cache in chunks, 0 for all; raising it: more memory
    kv_queries: str = "frame"  # token | frame | chunk: last queries of the newest chunk, which rank the keys to keep
    nearly_clean: float = 0.3  # time from which the oldest chunk also runs without its past; 1 turns this off
    shortcut: str = "8,16,16"  # which quarter of a 12-step grid has the long step; or "16,16,8"
    guidance_t: list[float] = field(default_factory=lambda: [0.0, 0.0217, 0.1, 0.3, 0.999])  # base model only
    guidance_past: list[float] = field(default_factory=lambda: [1.5, 1.5, 1.5, 1.0, 1.0])  # weight of the past chunks
    guidance_text: list[float] = field(default_factory=lambda: [7.5, 7.5, 7.5, 0.0, 0.0])  # weight of the prompt
    scale_factor: float = 0.18215  # latents of the VAE are multiplied by it
    special_tokens: list[str] = field(default_factory=lambda: ["hq", "duration"])  # put before every caption
    prefix: str = ""  # an image or a video that the generated video continues
    prefix_frames: int = 32  # number of its pixel frames that are used; 1 for an image
    precision: str = "bf16"
    proj_precision: str = "fp32"  # of the projection after attention: "fp32" as released, "tf32" or "bf16" faster
    text_tokens: int = 40  # assumed caption tokens, special ones included, when FLOPs are counted
    tile: int = 256  # side of a tile of the VAE, in pixels; raising it: fewer seams, more memory
    architecture: dict[str, Any] = field(default_factory=dict)  # of the transformer; empty: read from the checkpoint
    vae: dict[str, Any] = field(default_factory=dict)  # of the VAE, for weights=random

    def __post_init__(self) -> None:
        self._one_of("weights", "pretrained", "random")
        self._one_of("precision", *_DTYPES)
        self._one_of("proj_precision", *_DTYPES, "tf32")
        self._one_of("shortcut", "8,16,16", "16,16,8")
        for name in ("steps", "window", "chunk", "fps", "text_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name} must be at least 1, got {getattr(self, name)}")
        if self.frames < 1 or self.frames % FRAMES:
            near = max(FRAMES, round(self.frames / FRAMES) * FRAMES)
            raise ValueError(f"model.frames must be a multiple of {FRAMES}, got {self.frames}; nearest: {near}")
        if self.prefix and self.prefix_frames != 1 and self.prefix_frames % FRAMES:
            raise ValueError(
                f"model.prefix_frames must be 1 (an image) or a multiple of {FRAMES}, got {self.prefix_frames}"
            )
        _ = self.runtime  # raises ValueError for what the pipeline cannot run

    def _one_of(self, name: str, *allowed: str) -> None:
        if getattr(self, name) not in allowed:
            raise ValueError(f"model.{name} is one of {', '.join(allowed)}, got {getattr(self, name)!r}")

    @cached_property
    def runtime(self) -> RuntimeConfig:
        """The same settings with the official names."""
        return RuntimeConfig(
            distill=self.distill,
            cfg_number=1 if self.distill else 3,
            cfg_t_range=tuple(self.guidance_t),
            prev_chunk_scales=tuple(self.guidance_past),
            text_scales=tuple(self.guidance_text),
            noise2clean_kvrange=tuple(self.kv_range),
            clean_chunk_kvrange=self.clean_kv_range,
            clean_t=self.clean_t,
            clean_refresh=self.clean_refresh,
            kv_capacity=self.kv_capacity,
            kv_queries=self.kv_queries,
            distill_nearly_clean_chunk_threshold=self.nearly_clean,
            shortcut_mode=self.shortcut,
            num_frames=self.frames,
            video_size_h=self.height,
            video_size_w=self.width,
            num_steps=self.steps,
            window_size=self.window,
            chunk_width=self.chunk,
            fps=self.fps,
            scale_factor=self.scale_factor,
        )

    def model_config(self, entries: dict[str, Any]) -> ModelConfig:
        """The transformer's shape from `entries`, in the precision of this run."""
        return ModelConfig.from_dict({**entries, "params_dtype": _DTYPES[self.precision]})

    @property
    def given(self) -> int:
        """The number of latent frames of the prefix."""
        if not self.prefix:
            return 0
        return 1 if self.prefix_frames == 1 else self.prefix_frames // FRAMES

    @cached_property
    def plan(self) -> Schedule:
        """All forwards of the video."""
        return schedule(self.runtime, self.given)

    def rows(self) -> list[Row]:
        """The forwards of the plan as rows: a slot is a latent frame, an AR unit is a chunk."""
        return [self._row(forward) for forward in self.plan.forwards]

    def _row(self, forward: Forward) -> Row:
        def per_slot(values: tuple[Any, ...]) -> tuple[Any, ...]:
            return tuple(value for value in values for _ in range(self.chunk))

        slots = range(forward.chunks.start * self.chunk, forward.chunks.stop * self.chunk)
        return Row(
            iteration=forward.index,
            segment=0,
            slots=slots,
            steps=self.steps,
            step=per_slot(forward.steps),
            sigma=per_slot(forward.times),
            sigma_next=per_slot(forward.times_next),
            active=(True,) * len(slots),
            unit=self.chunk,
            forced="" if forward.refresh is None else "clean refresh",
            last=forward.index + 1 == len(self.plan.forwards),
            settled=slots.start,
        )
