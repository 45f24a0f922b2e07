"""MAGI-1 as a backbone.

A row is one forward of the chunk pipeline. All its slots are active, and an AR unit is a chunk. sigma rises from 0
(noise) to 1 (clean). Attention is causal across chunks, so a part of a row can be computed without the others: their
keys of the last computed step are used. A row with a clean refresh is always computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from engine.resident import Holder, drop
from engine.row import VELOCITY, Row, Site
from engine.to_device import carried
from engine.visit import Visit
from models.prefix import read_prefix

from . import assets
from .chunk_forward import Dispatcher
from .dit import Blocks, Magi1DiT
from .plan import SIGNALS, Magi1Plan
from .schedule import Forward
from .sites import SitedBlocks
from .text import SpecialTokens, chunk_texts
from .tiling import Tiling
from .times import time_signal
from .vae import ViTVAE


class Magi1Backbone(Magi1Plan, Holder):
    """One MAGI-1 model with its settings. Building it reads no weights; `load` does."""

    MODULES = ("transformer", "vae", "tokens")
    DECIDED_BY = (
        "weights",
        "checkpoint",
        "distill",
        "precision",
        "proj_precision",
        "architecture",
        "vae",
        "special_tokens",
    )

    transformer: Magi1DiT
    vae: ViTVAE
    tokens: SpecialTokens | None

    def forget(self) -> None:
        drop(self, "_dispatcher", "_twins")

    def load(self) -> None:
        """Load the weights. Raises WeightsError if a file is missing or broken, before any tensor is read."""
        if self.settings.weights == "pretrained":
            assets.weight_files(self.settings)
        self.tokens = assets.load_tokens(self.settings)
        self.vae = assets.load_autoencoder(self.settings, self.device)
        self.transformer = assets.load_transformer(self.settings, self.device)

    def texts(self, prompts: Iterable[str], cache: Path | None = None) -> dict[str, Tensor]:
        """Token embeddings (L, caption channels) of `prompts`; see assets.embed."""
        return assets.embed(prompts, self.settings, self.encodes_on or self.device, cache)

    def conditioning(self, prompt: str, texts: dict[str, Tensor]) -> Tensor:
        return texts[prompt]

    @torch.no_grad()
    def start(self, text: Tensor, seed: int) -> Tensor:
        generated = self.plan.chunks - self.plan.given
        texts = chunk_texts(text, self.tokens, generated, self.settings.special_tokens)
        if texts is not None:
            texts = [carried(one, self.device) for one in texts]
        self._dispatcher = Dispatcher(
            self.transformer, self.settings.runtime, self.plan, texts, self._prefix() if self.settings.prefix else None
        )
        self._twins: set[tuple[int, Site]] = set()
        self._noise = torch.Generator().manual_seed(seed)
        return torch.zeros(self.plan.chunks * self.settings.chunk, *self._latent_shape, device=self.device)

    @property
    def _latent_shape(self) -> tuple[int, int, int]:
        return self.config.latent_channels, *self.settings.runtime.latent_size

    def _prefix(self) -> Tensor:
        s = self.settings
        frames = read_prefix(Path(s.prefix), s.prefix_frames, s.fps, s.height, s.width)
        return self.vae.latents(frames.to(self.device), s.scale_factor, self._tiling)

    @property
    def _tiling(self) -> Tiling:
        length = max(self.settings.fps // 2, self.vae.config.patch_length)
        return Tiling(length=length, height=self.settings.tile, width=self.settings.tile)

    def open(self, latents: Tensor, row: Row) -> Tensor:
        # drawn for the whole video, channels first, as in the released pipeline
        channels, height, width = self._latent_shape
        noise = torch.randn(1, channels, len(latents), height, width, generator=self._noise)
        latents.copy_(carried(noise, self.device)[0].transpose(0, 1))
        self._dispatcher.begin()
        return latents

    def probe(self, name: str, latents: Tensor, row: Row) -> Tensor:
        """A signal of the chunks in flight, float32, one entry per slot.

        `patch_embedding` and `latent` depend on the latents. `time_embedding` and `time_projection` (the gates of the
        first layer) depend on the times alone and are the same for every prompt.
        """
        forward, unit = self._forward(row), self.settings.chunk
        if name in ("patch_embedding", "latent"):
            chunks = self._chunks(latents)
            x = torch.stack([self._dispatcher.chunk(chunks, k) for k in forward.chunks])
            if name == "latent":
                return _slots(x.float())
            return self.transformer.patches(x).float().unflatten(1, (unit, -1)).flatten(0, 1)
        if name not in SIGNALS:
            raise ValueError(f"unknown signal {name!r}; this backbone offers {', '.join(sorted(SIGNALS))}")
        return time_signal(name, self.transformer, self.settings, forward, self.device)

    def velocity(self, latents: Tensor, row: Row, visit: Visit) -> Tensor:
        forward, chunks, unit = self._forward(row), self._chunks(latents), self.settings.chunk
        window = latents[row.slots.start : row.slots.stop]

        def guided(x: Tensor, parts: Sequence[Row]) -> Tensor:
            if visit.watches(VELOCITY):
                some = [chunk for part in parts for chunk in range(part.slots.start // unit, part.slots.stop // unit)]
                return _slots(self._dispatcher.velocity(chunks, forward, some))

            def blocks(branch: str) -> Blocks:
                return SitedBlocks(self.transformer, visit, forward, branch, self._twins)

            return _slots(self._dispatcher.velocity(chunks, forward, blocks=blocks if visit.kinds else None))

        velocity = visit(VELOCITY, window, guided)
        self._dispatcher.compress(forward, visit.method.rank)
        return velocity

    def advance(self, latents: Tensor, row: Row, velocity: Tensor) -> Tensor:
        unit = self.settings.chunk
        chunks = range(row.slots.start // unit, row.slots.stop // unit)
        stepped = self._dispatcher.advance(self._chunks(latents), self._forward(row), self._chunks(velocity), chunks)
        return _slots(stepped)

    def _forward(self, row: Row) -> Forward:
        return self.plan.forwards[row.iteration]

    def _chunks(self, latents: Tensor) -> Tensor:
        """(slots, C, H, W) -> (chunks, C, chunk, H, W)."""
        return latents.unflatten(0, (-1, self.settings.chunk)).transpose(1, 2)

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Iterator[Tensor]:
        """The frames, one chunk at a time, as uint8 batches (T, H, W, 3) on the CPU.

        Frames of a given video are left out (a given image is part of its chunk), and so are those after `frames`.
        """
        video, left = latents.transpose(0, 1), self.settings.frames
        with self.alone("vae"):
            for span in filter(None, map(self.plan.emitted, self.plan.forwards)):
                frames = self.vae.frames(video[:, span[0] : span[1]], self.settings.scale_factor, self._tiling)[:left]
                left -= len(frames)
                yield frames.cpu()


def _slots(chunks: Tensor) -> Tensor:
    """(chunks, C, chunk, H, W) -> (slots, C, H, W)."""
    return chunks.transpose(1, 2).flatten(0, 1)
