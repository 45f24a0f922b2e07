"""AnyFlow-FAR, as a backbone: chunk after chunk in a few steps, each seeing the finished ones through kept keys.

A chunk's steps are one row each. After its last step follows a row that updates nothing, the clean pass: it computes
the keys and values of the finished chunk at time 0. The last two chunks are kept in full, all earlier ones in
compressed form. A step goes from the time t to the time r, and the model is told both, so any number of steps works.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path

import torch
from diffusers import AnyFlowFARTransformer3DModel
from torch import Tensor

from engine.resident import drop
from engine.row import VELOCITY, Row, Site
from engine.to_device import carried
from engine.visit import Visit
from models.far.forward import clean, step
from models.far.memory import longest
from models.far.past import Grid, Past, rotations
from models.far.plan import TRAINED, FarPlan
from models.far.price import padding
from models.far.times import Condition, Signals, condition, times
from models.prefix import read_prefix
from models.wan import checkpoint
from models.wan.backbone import WanBackbone
from models.wan.blocks import Text, read_text
from models.wan.vae import decode, encode


class AnyFlowFAR(FarPlan, WanBackbone):
    """One AnyFlow-FAR model with its settings. Building it reads no weights; `load` does."""

    transformer: AnyFlowFARTransformer3DModel

    def load(self) -> None:
        self.unload()
        self.transformer, self.vae = checkpoint.load(self.settings, self.device)
        if self.settings.compile:
            checkpoint.compile_blocks(self.transformer, self.device)

    def forget(self) -> None:
        drop(self, "_text", "_when", "_aimed", "_past", "_rotary", "_given")

    def start(self, text: dict[str, Tensor], seed: int) -> Tensor:
        self._text: dict[str, Text] = {}
        for branch, embedding in text.items():
            there = embedding.to(self.device, self._dtype)
            self._text[branch] = read_text(self.transformer, there, fold=self.settings.fold_padding)
        like = torch.empty(0, device=self.device, dtype=self._dtype)
        self._when: Condition = condition(self.transformer, *self._times, like)
        self._aimed: dict[tuple[int, int], Condition] = {}
        self._given = self._prefix() if self.settings.prefix else None
        self._noise = torch.Generator().manual_seed(seed)
        return torch.zeros(self.settings.latents, *self._latent_shape, device=self.device)

    @property
    def _times(self) -> tuple[list[float], list[float]]:
        return times(self.sigmas, self.settings.use_mean_velocity, TRAINED)

    def _prefix(self) -> Tensor:
        s = self.settings
        frames = read_prefix(Path(s.prefix), s.prefix_frames, s.fps, s.height, s.width)
        return encode(self.vae, frames, self.device)

    def open(self, latents: Tensor, row: Row) -> Tensor:
        # drawn for the whole video, channels first, as in diffusers' pipeline: a seed gives the same noise in both
        channels, height, width = self._latent_shape
        noise = torch.randn(1, channels, len(latents), height, width, generator=self._noise)
        latents.copy_(carried(noise[0].transpose(0, 1), self.device))
        if self._given is not None:
            latents[: len(self._given)] = self._given
        grid, full = Grid.of(self.transformer.config, height, width), self.prices.full
        unseen = [padding(length * full, self.settings) for length in self.chunks.lengths]
        self._past = Past(self.chunks, grid, unseen, longest(self.settings, self.shape, self.chunks))
        self._rotary = rotations(self.transformer, len(latents), grid, self.device)
        return latents

    def probe(self, name: str, latents: Tensor, row: Row) -> Tensor:
        """`time_projection` and `time_embedding` depend on the times alone and are the same for every prompt;
        `latent` and `patch_embedding` depend on the present latents. See times.Signals."""
        return self._signals.of(name, latents[row.slots.start : row.slots.stop], row.step[0])

    @cached_property
    def _signals(self) -> Signals:
        return Signals(self.transformer, *self._times)

    def velocity(self, latents: Tensor, row: Row, visit: Visit) -> Tensor:
        x, chunk = latents[row.slots.start : row.slots.stop], row.number(row.slots.start)
        if not row.updating:
            self._clean(latents, chunk, self.branches)
            return x  # which `advance` does not use
        guidance, rotary = Site("guidance"), self._rotary[0][row.slots.start : row.slots.stop]

        def one(x: Tensor, parts: Sequence[Row], branch: str) -> Tensor:
            if row.renew and chunk:
                self._clean(latents, chunk - 1, (branch,), whole=True)
                visit.kept(branch, range(row.slots.start))
            when, text = self._told(row), self._text[branch]
            x = x.to(self._dtype)
            return step(self.transformer, x, when, text, self._past, chunk, rotary, visit, branch).float()

        def guided(x: Tensor, parts: Sequence[Row]) -> Tensor:
            runs = {branch: partial(one, branch=branch) for branch in self.branches}
            results = [visit(guidance._replace(branch=branch), x, run) for branch, run in runs.items()]
            if len(results) == 1:
                return results[0]
            v, v_uncond = results
            return v_uncond + self.settings.guidance * (v - v_uncond)

        return visit(VELOCITY, x, guided)

    def _told(self, row: Row) -> Condition:
        """The modulation of a step, which leads to the next one or, without a stop in between, to `row.aim`."""
        first, last = row.step[0], row.aim
        if last <= first + 1 or not self.settings.use_mean_velocity:
            return self._when.of(first)
        if (first, last) not in self._aimed:
            t = self._times[0]
            self._aimed[first, last] = condition(self.transformer, [t[first]], [t[last]], self._when.time)
        return self._aimed[first, last]

    def _clean(self, latents: Tensor, chunk: int, branches: Sequence[str], whole: bool = False) -> None:
        """The clean pass after `chunk`; `whole` computes the keys of all chunks anew."""
        when, x = self._when.of(self.settings.steps), latents.to(self._dtype)
        for branch in branches:
            clean(self.transformer, x, when, self._text[branch], self._past, chunk, self._rotary, branch, whole)
        own = self.chunks.lengths[chunk + 1] * self.prices.full
        self._past.clear_behind(self._past.denoised(chunk + 1)[0] + own)

    def advance(self, latents: Tensor, row: Row, velocity: Tensor) -> Tensor:
        if row.updating:
            latents[row.slots.start : row.slots.stop] -= (row.sigma[0] - row.sigma_next[0]) * velocity
        return latents

    def decode(self, latents: Tensor) -> Iterator[Tensor]:
        """The frames as uint8 batches (T, H, W, 3) on the CPU, see vae.decode."""
        with self.alone("vae"):
            yield from decode(self.vae, latents, self.device)
