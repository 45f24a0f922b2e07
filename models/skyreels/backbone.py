"""SkyReels-V2 diffusion forcing behind the backbone protocol.

Facts that shape it: every latent frame has its own noise level and sampler state; the stock pipelines forward the whole
window at every row, idle frames included; the conditional and the unconditional branch are two forwards; a long
video continues from the last latents of the one before, lightly noised anew at every row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan, SkyReelsV2Transformer3DModel, UniPCMultistepScheduler
from torch import Tensor

from engine.ledger import Entry
from engine.method import TRANSFORMER, VELOCITY, Row, Site
from engine.visit import Visit
from engine.weights import digest
from models.skyreels import checkpoint, text
from models.skyreels.forward import Opening, Text, condition, forward, opening, read_text
from models.skyreels.own_forward import Place, own_forward
from models.skyreels.price import Price
from models.skyreels.settings import SPATIAL, SkyReels
from models.skyreels.unipc import UniPC

WAITING = 999  # the timestep that the stock schedule gives to a frame that has not started
SIGNALS = frozenset({"time_projection", "time_embedding", "latent", "patch_embedding"})
SITES = frozenset({"blocks", "branches", "cross_attention", "guidance", "nested", "narrow", "transformer"})


class SkyReelsV2:
    """One SkyReels-V2 model at one setting. Built cheaply; `load` brings the weights."""

    Settings = SkyReels
    offers = SITES | SIGNALS

    def __init__(self, settings: SkyReels, device: torch.device) -> None:
        self.settings, self.device = settings, device
        self.name, self.branches = settings.name, settings.branches
        scheduler = UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=settings.shift
        )
        scheduler.set_timesteps(settings.steps)
        self.sigmas: list[float] = scheduler.sigmas.tolist()
        self.timesteps: list[int] = [int(t) for t in scheduler.timesteps]
        self.rows = settings.rows(self.sigmas)
        self.causal_block = settings.block if settings.attention == "block_causal" else 0
        self._sampler = UniPC(self.sigmas, device, in_place=True)

    # --- before any weight is read -----------------------------------------------------------------------------

    @cached_property
    def prices(self) -> Price:
        return Price(self.settings)

    @property
    def depth(self) -> int:
        return self.prices.depth

    @property
    def parameters(self) -> int:
        """Parameters of the denoiser."""
        return self.prices.parameters

    @property
    def frame_borders(self) -> list[int]:
        """The first pixel frame of every segment after the first."""
        return [1 + 4 * (s.first + s.prefix - 1) for s in self.settings.segments[1:]]

    def advice(self, lacking: str) -> str:
        if lacking == "partial":
            return "its attention spans the whole interval, so no part of a row can be forwarded alone; decide per row"
        return "choose another method or another signal"

    def schedule(self) -> Sequence[Row]:
        return self.rows

    def price(self, entries: Sequence[Entry]) -> tuple[float, float]:
        return self.prices.iteration(entries)

    @cached_property
    def weights_id(self) -> str:
        """Changes with the content of the weight files; "random" without them."""
        if self.settings.weights == "random":
            return "random"
        return digest(checkpoint.files(checkpoint.locate(self.settings), self.settings))

    # --- one video -----------------------------------------------------------------------------------------------

    transformer: SkyReelsV2Transformer3DModel
    vae: AutoencoderKLWan

    def load(self) -> None:
        self.transformer, self.vae = checkpoint.load(self.settings, self.device)

    def texts(self, prompts: Iterable[str], cache: Path | None = None) -> dict[str, Tensor]:
        """Embeddings of `prompts`, and of the negative prompt where guidance needs it; see text.embed."""
        negative = [self.settings.negative_prompt] if len(self.branches) > 1 else []
        return text.embed([*prompts, *negative], self.settings, self.device, cache)

    def conditioning(self, prompt: str, texts: dict[str, Tensor]) -> dict[str, Tensor]:
        """The embedding of each guidance branch."""
        named = {"cond": prompt, "uncond": self.settings.negative_prompt}
        return {branch: texts[named[branch]] for branch in self.branches}

    def start(self, text: dict[str, Tensor], seed: int) -> Tensor:
        dtype = self.transformer.dtype
        self._embedding = {branch: embedding.to(self.device, dtype) for branch, embedding in text.items()}
        self._text: dict[str, Text] = {
            branch: read_text(self.transformer, embedding) for branch, embedding in self._embedding.items()
        }
        self._seed = seed
        self._noise = torch.Generator().manual_seed(seed)
        return torch.zeros(self.settings.latents, *self._latent_shape, device=self.device)

    @property
    def _latent_shape(self) -> tuple[int, int, int]:
        s = self.settings
        return self.transformer.config.in_channels, s.height // SPATIAL, s.width // SPATIAL

    def open(self, latents: Tensor, row: Row) -> Tensor:
        segment = self.settings.segments[row.segment]
        channels, height, width = self._latent_shape
        # drawn for the whole window and channel first, as the stock pipeline does, so that a seed means the same there
        noise = torch.randn(1, channels, segment.length, height, width, generator=self._noise)
        noise = noise[0].transpose(0, 1).to(self.device)
        latents[segment.first + segment.prefix : segment.first + segment.length] = noise[segment.prefix :]
        self._sampler.reset(latents[row.slots.start : row.slots.stop])
        return latents

    def probe(self, name: str, latents: Tensor, row: Row) -> Tensor:
        """`time_projection`, `time_embedding`: known from the timesteps alone, hence the same for every prompt;
        `latent`, `patch_embedding`: of the present latents. All float32."""
        window = latents[row.slots.start : row.slots.stop]
        if name == "latent":
            return window.float().clone()  # the sampler writes to `latents`
        if name == "patch_embedding":
            patch = self.transformer.patch_embedding
            x = window.transpose(0, 1)[None].float()
            out = F.conv3d(x, patch.weight.float(), patch.bias.float(), stride=patch.stride)
            return out.flatten(3)[0].permute(1, 2, 0)
        embed = self.transformer.condition_embedder
        time = embed.time_embedder.float()(embed.timesteps_proj(self._timesteps(row)).float())
        if name == "time_embedding":
            return time
        if name != "time_projection":
            raise ValueError(f"no signal {name!r}; this backbone offers {', '.join(sorted(SIGNALS))}")
        weight, bias = embed.time_proj.weight.float(), embed.time_proj.bias.float()
        return F.linear(F.silu(time), weight, bias).unflatten(-1, (6, -1))

    def velocity(self, latents: Tensor, row: Row, visit: Visit) -> Tensor:
        window = latents[row.slots.start : row.slots.stop]

        def guided(x: Tensor, parts: Sequence[Row]) -> Tensor:
            x, dtype, fps = self._noised_overlap(x, row), self.transformer.dtype, self.settings.fps
            timesteps = self._timesteps(row)
            when = condition(self.transformer, timesteps, fps, dtype)

            @cache
            def begun() -> Opening | None:
                """What all branches share, unless a method has a word to say inside the blocks."""
                shared = len(self.branches) > 1 and visit.kinds <= {"velocity", "guidance"}
                return opening(self.transformer, x.to(dtype), when, self.causal_block) if shared else None

            def one(branch: str) -> Tensor:
                def run(x: Tensor, parts: Sequence[Row]) -> Tensor:
                    if visit.watches(TRANSFORMER):
                        place, embedding = Place.of(row, self.rows), self._embedding[branch]
                        v, skipped = own_forward(
                            self.transformer, x.to(dtype), timesteps, embedding, fps, branch, place, self.causal_block
                        )
                        visit.left_out(branch, skipped)
                        return v.float()
                    text, causal = self._text[branch], self.causal_block
                    v = forward(self.transformer, x.to(dtype), when, text, visit, branch, causal, begun=begun())
                    return v.float()

                return visit(Site("guidance", branch=branch), x, run)

            results = [one(branch) for branch in self.branches]
            if len(results) == 1:
                return results[0]
            v, v_uncond = results
            return v_uncond + self.settings.guidance * (v - v_uncond)

        return visit(VELOCITY, window, guided)

    def _timesteps(self, row: Row) -> Tensor:
        """The integer timestep of every slot: 999 while waiting, 0 when finished, addnoise on the overlap."""
        segment = self.settings.segments[row.segment]
        steps = []
        for slot, k, active in zip(row.slots, row.step, row.active, strict=True):
            if slot - segment.first < segment.prefix:
                steps.append(self.settings.addnoise)
            elif k == row.steps:
                steps.append(0)
            else:
                steps.append(self.timesteps[k] if active else WAITING)
        return torch.tensor(steps, device=self.device)

    def _noised_overlap(self, x: Tensor, row: Row) -> Tensor:
        """The clean overlap, noised anew at every row from a generator of its own, so that no method's skipping and
        no other caller of the global generator changes what the others see."""
        segment = self.settings.segments[row.segment]
        overlap = segment.first + segment.prefix - row.slots.start
        if overlap <= 0 or not self.settings.addnoise:
            return x
        name = f"{self._seed}/{row.segment}/{row.iteration}".encode()
        generator = torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(name).digest()[:7], "little"))
        level = 0.001 * self.settings.addnoise
        noise = torch.randn(segment.prefix, *x.shape[1:], generator=generator)[-overlap:].to(x)
        return torch.cat([(1 - level) * x[:overlap] + level * noise, x[overlap:]])

    def advance(self, latents: Tensor, row: Row, velocity: Tensor) -> Tensor:
        updating = row.updating
        if not updating:
            return latents
        first, segment = updating[0], self.settings.segments[row.segment]
        a, b = first - row.slots.start, updating[-1] + 1 - row.slots.start
        index = torch.tensor(row.step[a:b], device=self.device)
        own = slice(first - segment.first, updating[-1] + 1 - segment.first)
        window = slice(first, updating[-1] + 1)
        latents[window] = self._sampler.step(latents[window], velocity[a:b], own, index)
        return latents

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Iterator[Tensor]:
        """One latent at a time through the causal VAE: 1 frame, then 4 at a time, (T, H, W, 3) uint8 on the CPU."""
        vae = self.vae
        mean, std = (
            torch.tensor(values, device=self.device).view(1, -1, 1, 1)
            for values in (vae.config.latents_mean, vae.config.latents_std)
        )
        z = (latents * std + mean).transpose(0, 1)[None].to(vae.dtype)
        vae.clear_cache()
        try:
            for i in range(z.shape[2]):
                vae._conv_idx = [0]
                one = vae.post_quant_conv(z[:, :, i : i + 1])
                frames = vae.decoder(one, feat_cache=vae._feat_map, feat_idx=vae._conv_idx, first_chunk=i == 0)
                frames = (frames[0].float() / 2 + 0.5).clamp(0, 1)
                yield (frames * 255).round().to(torch.uint8).permute(1, 2, 3, 0).cpu()
        finally:
            vae.clear_cache()
