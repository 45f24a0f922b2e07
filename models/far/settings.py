"""The settings of an AnyFlow-FAR run, and the checks of their values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from engine.row import Row
from models.far.chunks import Chunks, cut
from models.wan.settings import TEMPORAL, latents_of


@dataclass
class Far:
    """Settings of one AnyFlow-FAR run. The YAML files in conf/model/ hold the values.

    Raises ValueError for a combination that the backbone cannot run; the message names values that work.
    """

    HUB: ClassVar[str] = "nvidia/AnyFlow-FAR-Wan2.1-1.3B-Diffusers"
    TRANSFORMER: ClassVar[str] = "AnyFlowFARTransformer3DModel"
    FIXED: ClassVar[Mapping[str, Any]] = {}

    name: str = "far"
    weights: str = "pretrained"  # "random": random weights without a checkpoint, to measure cost but not quality
    checkpoint: str = ""  # folder in diffusers' format, or a hub id in the local hub cache
    frames: int = 81  # pixel frames; the chunks must fill them
    chunks: int = 0  # the number of chunks, which then decides the frames; 0: as many as `frames` needs
    height: int = 480
    width: int = 832
    fps: int = 16
    steps: int = 4  # updates of every chunk; raising it: better, proportionally slower
    chunk_partition: list[int] = field(default_factory=lambda: [1, 3, 3, 3, 3, 3, 3, 2])  # latents of every chunk of
    # the video that the model was trained on; a video of another length has chunks of the first two lengths
    use_mean_velocity: bool = True  # the model is told the time that a step goes to; False: only where it starts
    padding: str = "attended"  # "attended": zero keys up to 128 tokens, as in diffusers' pipeline; "masked": none
    guidance: float = 1.0  # 1 turns guidance off and halves the forwards; the released model needs none
    shift: float = 5.0  # timestep shift; raising it spends more steps at high noise
    negative_prompt: str = ""
    text_length: int = 512  # tokens; shorter texts are padded with zeros, which are attended to
    fold_padding: bool = False  # one padding token with the weight of all (fp32): faster, results differ in last bits
    prefix: str = ""  # an image or a video that the generated video continues
    prefix_frames: int = 1  # number of its pixel frames that are used, whole chunks; 1 for an image
    compile: bool = False  # torch.compile the feed-forward of every block: faster on a GPU, last bits differ
    precision: str = "bf16"
    architecture: dict[str, Any] = field(default_factory=dict)  # of the transformer; empty: read from the checkpoint
    vae: dict[str, Any] = field(default_factory=dict)  # of AutoencoderKLWan, for weights=random

    def __post_init__(self) -> None:
        self._one_of("weights", "pretrained", "random")
        self._one_of("precision", "fp32", "bf16")
        self._one_of("padding", "attended", "masked")
        for name, least in (("steps", 1), ("fps", 1), ("text_length", 1), ("chunks", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"model.{name} must be at least {least}, got {getattr(self, name)}")
        if not self.guidance >= 1:
            raise ValueError(f"model.guidance must be at least 1 (1 turns it off), got {self.guidance}")
        if not self.shift > 0:
            raise ValueError(f"model.shift must be above 0, got {self.shift}")
        if not self.chunk_partition or min(self.chunk_partition) < 1:
            raise ValueError(f"model.chunk_partition wants chunks of at least 1 latent, got {self.chunk_partition}")
        for name in ("height", "width"):
            value = getattr(self, name)
            if value < 16 or value % 16:
                near = max(16, round(value / 16) * 16)
                raise ValueError(f"model.{name} must be a multiple of 16, got {value}; nearest: {near}")
        if self.chunks:
            self.frames = self._long(self.chunks)
        self._check_frames()
        self._check_prefix()

    def _one_of(self, name: str, *allowed: str) -> None:
        if getattr(self, name) not in allowed:
            raise ValueError(f"model.{name} is one of {', '.join(allowed)}, got {getattr(self, name)!r}")

    def _long(self, chunks: int) -> int:
        """The pixel frames of a video of `chunks` chunks."""
        own = self.chunk_partition
        latents = sum(own) if chunks == len(own) else own[0] + own[min(1, len(own) - 1)] * (chunks - 1)
        return 1 + TEMPORAL * (latents - 1)

    def _fills(self, frames: int) -> bool:
        if frames < 1 or frames % TEMPORAL != 1:
            return False
        try:
            cut(latents_of(frames), self.chunk_partition)
        except ValueError:
            return False
        return True

    def _check_frames(self) -> None:
        if self._fills(self.frames):
            return
        reach = TEMPORAL * (sum(self.chunk_partition) + 2)
        near = [
            f for d in range(abs(self.frames) + reach) for f in (self.frames - d, self.frames + d) if self._fills(f)
        ]
        raise ValueError(
            f"model.frames={self.frames} does not fill the chunks, of {self._said()} latents (the first latent is 1 "
            f"frame, each further one 4); the nearest that does is {near[0]}"
        )

    def _said(self) -> str:
        own = self.chunk_partition
        return ", ".join(map(str, own[:2])) + (f", {own[1]}, ..." if len(own) > 1 else ", ...")

    def _check_prefix(self) -> None:
        """A prefix must end with a chunk: diffusers' pipeline would leave zeros in the rest of its last chunk."""
        if not self.prefix:
            return
        ends = [1 + TEMPORAL * (stop - 1) for stop in Chunks(self.lengths).borders[1:]]
        if self.prefix_frames in ends:
            return
        given = f"model.prefix_frames={self.prefix_frames}"
        if self.prefix_frames >= self.frames or not ends:
            wanted = f"want at most {ends[-1]}" if ends else "want more frames"
            raise ValueError(f"{given} leaves nothing to generate in model.frames={self.frames}; {wanted}")
        near = min(ends, key=lambda end: abs(end - self.prefix_frames))
        raise ValueError(
            f"{given} does not end with a chunk; the nearest that does is {near} (all: {', '.join(map(str, ends))})"
        )

    @property
    def lengths(self) -> tuple[int, ...]:
        """The latent frames of every chunk."""
        return tuple(cut(self.latents, self.chunk_partition))

    @property
    def latents(self) -> int:
        """The number of latent frames of the video."""
        return latents_of(self.frames)

    @property
    def given(self) -> int:
        """The number of latent frames of the prefix."""
        return latents_of(self.prefix_frames) if self.prefix else 0

    @property
    def branches(self) -> tuple[str, ...]:
        """The guidance branches of one forward; "cond" alone without guidance."""
        return ("cond", "uncond") if self.guidance > 1 else ("cond",)

    def rows(self, sigma: list[float]) -> list[Row]:
        """The schedule for the noise levels `sigma` (steps + 1 values): per chunk its steps, then its clean pass.

        A clean pass updates no slot. It stores the keys and values of the finished chunk. The last chunk has none.
        """
        plan, rows = Chunks(self.lengths), list[Row]()
        for chunk in range(plan.count):
            slots = plan.slots(chunk)
            first = self.steps if slots.stop <= self.given else 0
            last = self.steps + (chunk < plan.count - 1)
            rows += [self._row(len(rows) + k - first, plan, slots, k, sigma) for k in range(first, last)]
        return rows

    def _row(self, iteration: int, plan: Chunks, slots: range, step: int, sigma: list[float]) -> Row:
        n, clean = len(slots), step == self.steps
        return Row(
            iteration=iteration,
            segment=0,
            slots=slots,
            steps=self.steps,
            step=(step,) * n,
            sigma=(sigma[step],) * n,
            sigma_next=(sigma[min(step + 1, self.steps)],) * n,
            active=(not clean,) * n,
            unit=n,
            forced="clean pass" if clean else "",
            last=not clean and slots.stop == self.latents and step + 1 == self.steps,
            given=self.given,
            settled=slots.start,
            borders=plan.borders,
        )
