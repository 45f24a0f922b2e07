"""SkyReels-V2 with diffusion forcing, as a backbone.

Every latent frame has its own noise level and sampler state. The official and diffusers' pipelines forward the whole
window at every row, idle frames included, in one forward per guidance branch. A long video is made in segments: each
continues from the last latents of the one before, to which a little noise is added at every row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial

import torch
from diffusers import SkyReelsV2Transformer3DModel
from torch import Tensor

from engine.resident import drop
from engine.row import TRANSFORMER, VELOCITY, Row, Site
from engine.to_device import carried, picked, sent
from engine.visit import WHOLE, Visit
from models.skyreels.attention import KeyValues, View
from models.skyreels.batch import batches, joined, together
from models.skyreels.forward import Opening, condition, forward, opening
from models.skyreels.frames import Condition
from models.skyreels.hooked_forward import Place, own_forward
from models.skyreels.overlap import noised_overlap
from models.skyreels.plan import SkyReelsPlan
from models.skyreels.settings import SkyReels
from models.skyreels.signals import Signals
from models.skyreels.timesteps import timesteps_of
from models.skyreels.unipc import UniPC
from models.wan import checkpoint
from models.wan.backbone import WanBackbone
from models.wan.blocks import Text, read_text
from models.wan.vae import decode


class SkyReelsV2(SkyReelsPlan, WanBackbone):
    """One SkyReels-V2 model with its settings. Building it reads no weights; `load` does."""

    def __init__(self, settings: SkyReels, device: torch.device) -> None:
        super().__init__(settings, device)
        self._sampler = UniPC(self.sigmas, device, in_place=True)

    transformer: SkyReelsV2Transformer3DModel
    _batched = False

    def load(self) -> None:
        self.unload()
        self.transformer, self.vae = checkpoint.load(self.settings, self.device)
        if self.settings.compile:
            checkpoint.compile_blocks(self.transformer, self.device)
        self.ready()

    def ready(self) -> None:
        self._batched = batches(self.settings, self.transformer.config, self.device)

    def forget(self) -> None:
        drop(self, "_embedding", "_text", "_store")
        self._sampler.forget()

    def start(self, text: dict[str, Tensor], seed: int) -> Tensor:
        self._embedding = {branch: embedding.to(self.device, self._dtype) for branch, embedding in text.items()}
        self._text: dict[str, Text] = {
            branch: read_text(self.transformer, embedding, fold=self.settings.fold_padding)
            for branch, embedding in self._embedding.items()
        }
        self._seed = seed
        self._noise = torch.Generator().manual_seed(seed)
        return torch.zeros(self.settings.latents, *self._latent_shape, device=self.device)

    def open(self, latents: Tensor, row: Row) -> Tensor:
        segment = self.settings.segments[row.segment]
        channels, height, width = self._latent_shape
        # drawn for the whole window, channels first, as in diffusers' pipeline: a seed gives the same noise in both
        noise = torch.randn(1, channels, segment.length, height, width, generator=self._noise)
        noise = carried(noise[0].transpose(0, 1), self.device)
        latents[segment.first + segment.prefix : segment.first + segment.length] = noise[segment.prefix :]
        self._sampler.reset(latents[row.slots.start : row.slots.stop])
        self._store = KeyValues()
        return latents

    def probe(self, name: str, latents: Tensor, row: Row) -> Tensor:
        """`time_projection` and `time_embedding` depend on the timesteps alone and are the same for every prompt;
        `latent` and `patch_embedding` depend on the present latents. See signals.Signals."""
        return self._signals.of(name, latents[row.slots.start : row.slots.stop], self._steps(row))

    @cached_property
    def _signals(self) -> Signals:
        return Signals.along(self.transformer, self.settings, self.timesteps)

    def velocity(self, latents: Tensor, row: Row, visit: Visit) -> Tensor:
        guidance = Site("guidance")

        def guided(x: Tensor, parts: Sequence[Row]) -> Tensor:
            x, when = noised_overlap(x, row, self.settings, self._seed), self._condition(row)
            keeps = visit.partial or row.settled < row.context.stop  # else no later forward reads keys of these slots
            view = self._view(row, keeps) if row.context or visit.partial else None
            alike = visit.kinds <= {"velocity"} or (visit.kinds <= WHOLE and not visit.partial)
            begun: list[Opening] = []

            def one(x: Tensor, parts: Sequence[Row], branch: str) -> Tensor:
                if visit.watches(TRANSFORMER):
                    return self._own(x, row, visit, branch)
                self._keep(latents, row, visit, branch)
                return self._forward(x, when, branch, view, visit, visit.places(parts), begun, alike)

            if visit.watches(guidance):
                runs = {branch: partial(one, branch=branch) for branch in self.branches}
                results = [visit(guidance._replace(branch=branch), x, run) for branch, run in runs.items()]
            elif self._batched and visit.kinds <= {"velocity"} and view is None:
                results = self._together(x, when)
            else:
                results = [one(x, parts, branch) for branch in self.branches]
            if len(results) == 1:
                return results[0]
            v, v_uncond = results
            return v_uncond + self.settings.guidance * (v - v_uncond)

        return visit(VELOCITY, latents[row.slots.start : row.slots.stop], guided)

    def _forward(
        self,
        x: Tensor,
        when: Condition,
        branch: str,
        view: View | None,
        visit: Visit | None = None,
        pick: list[int] | None = None,
        begun: list[Opening] | None = None,
        alike: bool = False,
    ) -> Tensor:
        """One guidance branch's velocity of the slots at `pick` (None: all). The part that all branches share is
        stored in `begun`, if given. With `alike` (the method has no sites inside a forward) it includes the first
        self-attention."""
        model, causal, x = self.transformer, self.causal_block, x.to(self._dtype)
        if len(self.branches) == 1 or not (alike or (pick is None and view is None)):
            begun = None
        if pick is not None:  # no sites inside the forward of a part of the row
            x, when, view, visit = picked(x, pick), when.only(pick), view and view.only(pick), None
        if begun is not None and not begun:
            first = (branch, *(other for other in self.branches if other != branch)) if alike else ()
            begun.append(opening(model, x, when, causal, first, view))
        start = begun[0] if begun else None
        return forward(model, x, when, self._text[branch], visit, branch, causal, None, start, view).float()

    def _together(self, x: Tensor, when: Condition) -> list[Tensor]:
        """The velocity of all slots for every guidance branch, computed as one batch."""
        model, causal, x = self.transformer, self.causal_block, x.to(self._dtype)
        start = opening(model, x, when, causal, self.branches)
        text = joined([self._text[branch] for branch in self.branches])
        return [v.float() for v in together(model, x, when, text, causal, start)]

    def _own(self, x: Tensor, row: Row, visit: Visit, branch: str) -> Tensor:
        """The velocity from the forward of the model's own class, with a library's hooks."""
        if row.context or visit.partial:
            raise ValueError("the model's own forward runs whole rows: use no method that narrows or decides per unit")
        model, place, text = self.transformer, Place.of(row, self.rows), self._embedding[branch]
        x, timesteps, fps = x.to(self._dtype), self._timesteps(row), self.settings.fps
        v, skipped = own_forward(model, x, timesteps, text, fps, branch, place, self.causal_block)
        visit.left_out(branch, skipped)
        return v.float()

    def _view(self, row: Row, keeps: bool = True) -> View:
        """The slots that the row's slots attend to: themselves and the row's context. `keeps`: see View."""
        first = self.settings.segments[row.segment].first
        seen = range((row.context or row.slots).start - first, row.slots.stop - first)
        return View(self._store, tuple(slot - first for slot in row.slots), seen, self.causal_block, keeps)

    def _keep(self, latents: Tensor, row: Row, visit: Visit, branch: str) -> None:
        """Compute and store missing keys and values of the context of `row`: those of settled slots in their final
        state, and those of slots that were never computed."""
        store, first = self._store, self.settings.segments[row.segment].first
        final = store.final.setdefault(branch, set())
        lacking = [
            slot
            for slot in row.context
            if (slot < row.settled and slot - first not in final) or not store.knows(branch, slot - first)
        ]
        if not lacking:
            return
        slots = range(lacking[0], lacking[-1] + 1)
        step, active = (row.steps,) * len(slots), (False,) * len(slots)
        context = range(row.context.start, slots.start)
        part = replace(row, slots=slots, step=step, active=active, context=context)
        x = noised_overlap(latents[slots.start : slots.stop], part, self.settings, self._seed)
        self._forward(x, self._condition(part), branch, self._view(part))
        final.update(slot - first for slot in slots if slot < row.settled)
        visit.kept(branch, slots)

    def _condition(self, row: Row) -> Condition:
        return condition(self.transformer, self._timesteps(row), self.settings.fps, self._dtype)

    def _timesteps(self, row: Row) -> Tensor:
        return sent(self._steps(row), self.device)

    def _steps(self, row: Row) -> list[int]:
        return timesteps_of(row, self.settings, self.timesteps)

    def advance(self, latents: Tensor, row: Row, velocity: Tensor) -> Tensor:
        updating = row.updating
        if not updating:
            return latents
        first, segment = updating[0], self.settings.segments[row.segment]
        a, b = first - row.slots.start, updating[-1] + 1 - row.slots.start
        index = sent(row.step[a:b], self.device)
        own = slice(first - segment.first, updating[-1] + 1 - segment.first)
        window = slice(first, updating[-1] + 1)
        latents[window] = self._sampler.step(latents[window], velocity[a:b], own, index)
        return latents

    def decode(self, latents: Tensor) -> Iterator[Tensor]:
        """The frames as uint8 batches (T, H, W, 3) on the CPU, see vae.decode."""
        with self.alone("vae"):
            yield from decode(self.vae, latents, self.device)
