"""The settings of a SkyReels-V2 run, and the checks of their values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

from engine.row import Row
from engine.staircase import Segment, segments, staircase
from models.wan.settings import TEMPORAL, latents_of


@dataclass
class SkyReels:
    """Settings of one SkyReels-V2 run with diffusion forcing. The YAML files in conf/model/ hold the values.

    Raises ValueError for a combination that the backbone cannot run; the message names values that work.
    """

    HUB: ClassVar[str] = "Skywork/SkyReels-V2-DF-1.3B-540P-Diffusers"
    TRANSFORMER: ClassVar[str] = "SkyReelsV2Transformer3DModel"
    FIXED: ClassVar[Mapping[str, Any]] = {"num_frame_per_block": 1}  # the run's own attention mask does its work

    name: str = "skyreels"
    weights: str = "pretrained"  # "random": random weights without a checkpoint, to measure cost but not quality
    checkpoint: str = ""  # folder in diffusers' format, or a hub id in the local hub cache
    frames: int = 257  # pixel frames, 4 k + 1
    height: int = 544
    width: int = 960
    fps: int = 24
    base_frames: int = 97  # length of one segment, in pixel frames
    overlap: int = 17  # pixel frames that adjacent segments share; raising it: smoother, slower; 0: one segment only
    steps: int = 50  # updates of every latent; raising it: better, proportionally slower
    ar_step: int = 5  # rows by which a block lags its left neighbour; 0 is the synchronous schedule
    block: int = 5  # latents per AR unit
    attention: str = "full"  # "block_causal": a block attends to itself and earlier blocks only
    guidance: float = 6.0  # 1 turns guidance off and halves the forwards
    shift: float = 8.0  # timestep shift; raising it spends more steps at high noise
    addnoise: int = 20  # noise on the overlap, in timesteps; raising it: smoother seams, less consistent content
    overlap_noise: str = "row"  # "row": new noise at every row, as in the official code; "segment": once per segment
    negative_prompt: str = ""
    text_length: int = 512  # tokens; shorter texts are padded with zeros, which are attended to
    fold_padding: bool = False  # one padding token with the weight of all (fp32): faster, results differ in last bits
    batch_guidance: str = "never"  # both branches as one batch: "auto" if the memory suffices, "always" or an error
    compile: bool = False  # torch.compile the feed-forward of every block: faster on a GPU, last bits differ
    precision: str = "bf16"
    architecture: dict[str, Any] = field(default_factory=dict)  # of the transformer; empty: read from the checkpoint
    vae: dict[str, Any] = field(default_factory=dict)  # of AutoencoderKLWan, for weights=random

    def __post_init__(self) -> None:
        self._one_of("weights", "pretrained", "random")
        self._one_of("attention", "full", "block_causal")
        self._one_of("precision", "fp32", "bf16")
        self._one_of("overlap_noise", "row", "segment")
        self._one_of("batch_guidance", "never", "auto", "always")
        for name in ("steps", "block", "fps", "text_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name} must be at least 1, got {getattr(self, name)}")
        if self.ar_step < 0:
            raise ValueError(f"model.ar_step must be 0 (synchronous) or more, got {self.ar_step}")
        if not self.guidance >= 1:
            raise ValueError(f"model.guidance must be at least 1 (1 turns it off), got {self.guidance}")
        if not 0 <= self.addnoise <= 60:
            raise ValueError(f"model.addnoise is a timestep between 0 and 60, got {self.addnoise}")
        for name in ("height", "width"):
            value = getattr(self, name)
            if value < 16 or value % 16:
                raise ValueError(f"model.{name} must be a multiple of 16, got {value}; nearest: {_near(value, 16)}")
        self._check_frames()

    def _one_of(self, name: str, *allowed: str) -> None:
        if getattr(self, name) not in allowed:
            raise ValueError(f"model.{name} is one of {', '.join(allowed)}, got {getattr(self, name)!r}")

    def _check_frames(self) -> None:
        for name in ("base_frames", *(["overlap"] if self.overlap else [])):
            value = getattr(self, name)
            if value < 1 or value % TEMPORAL != 1:
                near = max(1, round((value - 1) / TEMPORAL) * TEMPORAL + 1)
                raise ValueError(f"model.{name} must be 4 k + 1 pixel frames, got {value}; nearest: {near}")
        if self.overlap >= self.base_frames:
            raise ValueError(
                f"model.overlap={self.overlap} leaves no new frame in a segment of model.base_frames="
                f"{self.base_frames}; want a smaller overlap, e.g. 17"
            )
        if self.frames > self.base_frames and not self.overlap:
            raise ValueError(
                f"model.frames={self.frames} is longer than one segment of model.base_frames={self.base_frames}, and "
                "model.overlap=0 allows one segment only; set model.overlap, e.g. 17 or 37, or base_frames = frames"
            )
        if self._fills(self.frames):
            return
        near = [f for d in range(4 * 400) for f in (self.frames - d, self.frames + d) if self._fills(f)]
        hint = f"the nearest that does is {near[0]}" if near else "no length does with this base_frames and overlap"
        raise ValueError(
            f"model.frames={self.frames} does not fill blocks of {self.block} latents (base_frames={self.base_frames}, "
            f"overlap={self.overlap}), so the last latents would stay noise; {hint}"
        )

    def _fills(self, frames: int) -> bool:
        if frames < 1 or frames % TEMPORAL != 1:
            return False
        try:
            self._cut(frames)
        except ValueError:
            return False
        return True

    def _cut(self, frames: int) -> list[Segment]:
        overlap = latents_of(self.overlap) if self.overlap else 0
        return segments(latents_of(frames), latents_of(self.base_frames), overlap, self.block)

    @cached_property
    def segments(self) -> list[Segment]:
        """The segments of the video, in slots."""
        return self._cut(self.frames)

    @cached_property
    def latents(self) -> int:
        """The number of latent frames of the video."""
        return latents_of(self.frames)

    @property
    def branches(self) -> tuple[str, ...]:
        """The guidance branches of one forward; "cond" alone without guidance."""
        return ("cond", "uncond") if self.guidance > 1 else ("cond",)

    def rows(self, sigma: list[float]) -> list[Row]:
        """The schedule for the noise levels `sigma` (steps + 1 values).

        Finished slots are settled if all slots that they attend to stay fixed: under block-causal attention, and if the
        noise on the overlap does not change.
        """
        rows = staircase(self.segments, self.steps, self.ar_step, self.block, sigma)
        return [replace(row, settled=self._settled(row)) for row in rows]

    def _settled(self, row: Row) -> int:
        segment = self.segments[row.segment]
        if self.attention == "full" or (segment.prefix and not self.steady_overlap):
            return segment.first
        return segment.first + row.active.index(True)  # finished slots come before all others

    @property
    def steady_overlap(self) -> bool:
        """Whether the overlap, with its noise, is the same in every row of a segment."""
        return not self.addnoise or self.overlap_noise == "segment"


def _near(value: int, step: int) -> int:
    return max(step, round(value / step) * step)
