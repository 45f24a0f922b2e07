"""A folder of numbers recorded from the official code, and ours beside them, case by case.

    config.json, state_dict.safetensors        the model, its settings, and what was run (`scenarios`)
    dit_forward[_bf16].safetensors             single forwards: (i) without, (ii) with a cache
    rollout_<scenario>.safetensors             whole videos, from the inputs in rollout_inputs.safetensors
    reuse_baselines.safetensors                of it, the official loop's video
    vae_config.json, vae_state_dict, vae_io    the autoencoder
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from .attention import KVCache
from .checkpoint import CheckpointError, check, empty_dit, kept_as, take
from .config import RuntimeConfig, read_config
from .dispatch import Dispatcher, from_chunks, rollout, to_chunks
from .dit import Magi1DiT, stays_float32
from .schedule import Forward, Schedule, schedule, step_length, time_grid
from .text import SpecialTokens, chunk_texts, negative_text
from .tiling import Tiling
from .vae import VaeConfig, ViTVAE

FLOAT32_TOLERANCE = 1e-5
_BFLOAT16_SHARE = 0.1  # of the mean magnitude, for a folder recorded in bfloat16
_INTERVALS = {"i": 2.0, "ii": 1.0}  # step intervals of the recorded forwards
_SWITCHES = {"PAD_STATIC": "static", "PAD_DYNAMIC": "dynamic", "PAD_BORDERNESS": "borderness", "PAD_HQ": "hq"}
_SWITCHES |= {"PAD_THREE_D_MODEL": "3d", "PAD_TWO_D_ANIME": "2d", "PAD_DURATION": "duration"}
_NO_SPATIAL_TILES = 100_000


class Case(NamedTuple):
    name: str
    error: float  # largest absolute difference
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance  # False for NaN


@dataclass(frozen=True)
class Inputs:
    """One recorded call: what went into the transformer."""

    latents: Tensor  # (n, C, chunk_width, h, w)
    times: Tensor
    text: list[Tensor]
    visible: list[tuple[int, int]]
    first: int  # the number of the first chunk


class Recording:
    """A recorded folder.

    Args:
        folder: where it is.
        reference: run with the order of operations of the recorder, to the last bit; else as videos are made.

    Raises:
        CheckpointError, ValueError: in one line, if a file is missing or damaged.
    """

    def __init__(self, folder: Path, reference: bool = True) -> None:
        self.folder, self.reference = Path(folder), reference
        for name in ("config.json", "state_dict.safetensors"):
            if not (self.folder / name).is_file():
                raise CheckpointError(f"{self.folder} has no {name}; give a folder recorded from the official code")
        self.entries: dict[str, Any] = json.loads((self.folder / "config.json").read_text())
        self.config, self.settings = read_config(self.folder / "config.json")

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors of a file, none if it was not recorded."""
        path = self.folder / f"{name}.safetensors"
        try:
            return load_file(path) if path.is_file() else {}
        except SafetensorError as error:
            raise CheckpointError(f"{path} is cut off or damaged ({error}); record it again") from error

    @cached_property
    def model(self) -> Magi1DiT:
        """The transformer in the recorded precision."""
        return self._build(self.config.params_dtype)

    def _build(self, params_dtype: str) -> Magi1DiT:
        config = replace(self.config, params_dtype=params_dtype)
        path = self.folder / "state_dict.safetensors"
        model = empty_dit(config, reference=self.reference)
        check({name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}, {path: []})
        # The recorder copied float32 weights into a model of `params_dtype`: norms were rounded before their upcast.
        rounded = {
            name: tensor.to(config.dtype) if stays_float32(name) and "norm" in name else tensor
            for name, tensor in self.tensors("state_dict").items()
        }
        take(model, rounded.items(), lambda name: kept_as(name, config.dtype), "cpu")
        return model

    @torch.no_grad()
    def cases(self) -> Iterator[Case]:
        """Every recorded output group with our distance from it."""
        with sdpa_kernel(SDPBackend.MATH) if self.reference else nullcontext():
            yield from self._all()

    def _all(self) -> Iterator[Case]:
        yield from self._forwards()
        yield from self._forward_bf16()
        for name in self.entries.get("scenarios", {}):
            if recorded := self.tensors(f"rollout_{name}"):
                yield self._rollout(name, recorded)
        yield from self._sixteen_steps()
        yield from self._vae()

    # ------------------------------------------------------------------------------------------- single forwards

    def _inputs(self, recorded: dict[str, Tensor], prefix: str) -> Inputs:
        x, ranges = recorded[f"{prefix}.x"][0], recorded[f"{prefix}.kv_range"]
        times = recorded[f"{prefix}.t"][0]
        width, patch = x.shape[1] // len(times), self.config.patch_size
        tokens = width * (x.shape[2] // patch) * (x.shape[3] // patch)
        visible = [(int(a) // tokens, int(b) // tokens) for a, b in ranges]
        pairs = zip(recorded[f"{prefix}.y"], recorded[f"{prefix}.xattn_mask"], strict=True)
        text = [y[0][mask[0] > 0] for y, mask in pairs]
        return Inputs(to_chunks(x, width), times, text, visible, visible[-1][1] - len(times))

    def _step_length(self, kind: str, case: str) -> float | None:
        return step_length(self.settings.num_steps, _INTERVALS[case]) if kind == "distill" else None

    def _run(
        self, model: Magi1DiT, inputs: Inputs, length: float | None, cache: KVCache | None = None, dropped: bool = False
    ) -> Tensor:
        places = range(inputs.first, inputs.first + len(inputs.times))
        out = model(
            inputs.latents, inputs.times, inputs.text, places, inputs.visible,
            cache=cache, step_length=length, dropped=dropped,
        )  # fmt: skip
        return from_chunks(out)[None]

    def _forwards(self) -> Iterator[Case]:
        recorded = self.tensors("dit_forward")
        for kind in ("distill", "base"):
            outputs = {name: tensor for name, tensor in recorded.items() if name.startswith(f"i.{kind}.")}
            if outputs:
                inputs, length = self._inputs(recorded, "i"), self._step_length(kind, "i")
                ours = self._inside(inputs, length)
                ours["out"] = self._run(self.model, inputs, length)
                ours["out_dropped"] = self._run(self.model, inputs, length, dropped=True)
                theirs = {name.removeprefix(f"i.{kind}."): tensor for name, tensor in outputs.items()}
                known = {name: tensor for name, tensor in theirs.items() if name in ours}
                for name, tensor in known.items():
                    yield self._case(f"dit_forward.i.{kind}.{name}", [(ours[name], tensor)])
            if f"ii.{kind}.pass1.out" in recorded:
                yield from self._cache_passes(recorded, kind)

    def _inside(self, inputs: Inputs, length: float | None) -> dict[str, Tensor]:
        """What a forward computes on its way, official names and layouts."""
        model, n = self.model, len(inputs.times)
        call = model.prepare(
            inputs.latents.shape, inputs.times, inputs.text, range(n), inputs.visible, range(n), step_length=length
        )
        hidden = model.embed(inputs.latents)
        found = {
            "embedded_x": hidden.flatten(0, 1)[:, None],
            "condition": call.condition[None],
            "rope_sin_cos": torch.cat([call.sin, call.cos], -1).flatten(0, 1),
            "y_xattn_flat_first_chunk": call.text[0],
        }
        for i, layer in enumerate(model.layers):
            core, cross = layer.self_attention(hidden, call)
            hidden = layer(hidden, call)
            parts = {"core_attn": core, "cross_attn": cross, "output": hidden}
            found |= {f"layer{i}.{name}": part.flatten(0, 1)[:, None] for name, part in parts.items()}
        return found

    def _cache_passes(self, recorded: dict[str, Tensor], kind: str) -> Iterator[Case]:
        first, second = (self._inputs(recorded, f"ii.{name}") for name in ("pass1", "pass2"))
        n, length = len(second.times), self._step_length(kind, "ii")
        tokens = math.prod(first.latents.shape[2:]) // self.config.patch_size**2
        chunks = max(first.first + len(first.times), second.first + n)
        cache = KVCache(self.model.config, chunks, tokens, "cpu")
        out = self._run(self.model, first, length, cache)
        pairs = [(out, recorded[f"ii.{kind}.pass1.out"])]
        for i, rows in enumerate(cache.layers):
            if (kept := recorded.get(f"ii.{kind}.pass1.kv_layer{i}")) is not None:
                pairs.append((rows.flatten(0, 1)[: len(kept)], kept))
        yield self._case(f"dit_forward.ii.{kind}.pass1", pairs)
        if (out2 := recorded.get(f"ii.{kind}.pass2.out")) is not None:
            yield self._case(f"dit_forward.ii.{kind}.pass2", [(self._run(self.model, second, length, cache), out2)])
        if (blended := recorded.get(f"ii.{kind}.pass3.near_clean_velocity")) is not None:
            ours = self._duplicated(second, cache, length or 0.0)
            yield self._case(f"dit_forward.ii.{kind}.pass3", [(ours, blended)])

    def _duplicated(self, inputs: Inputs, cache: KVCache, length: float) -> Tensor:
        flight = range(inputs.first, inputs.first + len(inputs.times))
        times = tuple(inputs.times.tolist())
        forward = Forward(
            0, 0, 0, flight, (0,) * len(times), times, times, tuple(inputs.visible), length, duplicate=True
        )  # fmt: skip
        plan = Schedule((forward,), flight.stop, flight.start, 0, inputs.latents.shape[2], (), length)
        dispatcher = Dispatcher(self.model, self.settings.with_(distill=True, cfg_number=1), plan, inputs.text)
        dispatcher.cache = cache
        before = torch.zeros(flight.start, *inputs.latents.shape[1:])
        return from_chunks(dispatcher.velocity(torch.cat([before, inputs.latents]), forward))[None]

    def _forward_bf16(self) -> Iterator[Case]:
        """Case (i) in bfloat16. Roundings that fall differently spread, so the yardstick is what bfloat16 itself
        costs: the recorded distance between bfloat16 and float32. The recorder attended in float32; kernels that
        attend in bfloat16 may come as far, the same order of operations must stay well below."""
        recorded, exact = self.tensors("dit_forward_bf16"), self.tensors("dit_forward")
        if not recorded or "i.distill.out" not in exact:
            return
        ours = self._run(self._build("bfloat16"), self._inputs(exact, "i"), self._step_length("distill", "i"))
        gap = recorded["out"] - exact["i.distill.out"]
        error = (ours - recorded["out"]).abs()
        share = 0.5 if self.reference else 1.0
        yield Case("dit_forward_bf16.out", error.max().item(), gap.abs().max().item() * share)
        yield Case("dit_forward_bf16.out_mean", error.mean().item(), gap.abs().mean().item() * share)

    # ------------------------------------------------------------------------------------------------ whole videos

    def _scenario(self, overrides: dict[str, Any], engine: dict[str, Any]) -> RuntimeConfig:
        sections = self.entries.get("config", self.entries)
        return RuntimeConfig.from_dict(
            {**sections["runtime_config"], **overrides}, {**sections["engine_config"], **engine}
        )

    def _dispatcher(self, settings: RuntimeConfig, given: int) -> Dispatcher:
        inputs, plan = self.tensors("rollout_inputs"), schedule(settings, given)
        on = {name for name, value in self.entries.get("env", {}).items() if str(value).lower() in ("1", "true")}
        names = ("other_tokens", "caption_token", "logo_token")
        tokens = SpecialTokens.of(*(inputs[f"special.{name}"] for name in names))
        caption = inputs["caption_embs"][0, 0][inputs["emb_masks"][0] > 0]
        text = chunk_texts(caption, tokens, plan.chunks - plan.given, [_SWITCHES[n] for n in _SWITCHES if n in on])
        null = self.model.y_embedder.null_text
        prefix = inputs["prefix_video"][0, :, :given] if given else None
        return Dispatcher(
            self.model, settings, plan, text, prefix, negative_text(null, tokens) if "NEG_PROMPT" in on else null
        )

    def _rollout(self, name: str, recorded: dict[str, Tensor]) -> Case:
        scenario = self.entries["scenarios"][name]
        settings = self._scenario(scenario.get("runtime_overrides", {}), scenario.get("engine", {}))
        dispatcher = self._dispatcher(settings, scenario.get("prefix_frames", 0))
        pairs = [(torch.tensor(time_grid(settings.num_steps, settings.shortcut_mode)), recorded["t_grid"])]
        count = 0
        for forward, velocity, latents in rollout(dispatcher, to_chunks(recorded["noise"][0], settings.chunk_width)):
            if (v := recorded.get(f"velocity.{forward.index:03d}")) is not None:
                flight = len(forward.chunks) * settings.chunk_width
                pairs.append((from_chunks(velocity)[None], v[:, :, -flight:]))
            if frames := dispatcher.schedule.emitted(forward):
                pairs.append((from_chunks(latents)[None, :, frames[0] : frames[1]], recorded[f"chunk.{count:02d}"]))
                count += 1
        pairs.append((from_chunks(latents)[None], recorded["final_x"]))
        return self._case(f"rollout_{name}", pairs)

    def _sixteen_steps(self) -> Iterator[Case]:
        recorded = self.tensors("reuse_baselines")
        notes = self.folder / "reuse_baselines.json"
        if "orig_fullkv.final_x" not in recorded or not notes.is_file():
            return
        steps = json.loads(notes.read_text())["orig_fullkv"]["args"]["steps"]
        settings = self.settings.with_(num_steps=steps, noise2clean_kvrange=())
        noise = to_chunks(recorded["noise"][0], settings.chunk_width)
        *_, (_, _, latents) = rollout(self._dispatcher(settings, 0), noise)
        yield self._case("reuse_baselines.orig_fullkv", [(from_chunks(latents)[None], recorded["orig_fullkv.final_x"])])

    # ------------------------------------------------------------------------------------------------- autoencoder

    def _vae(self) -> Iterator[Case]:
        recorded, path = self.tensors("vae_io"), self.folder / "vae_config.json"
        if not recorded or not path.is_file():
            return
        entries = json.loads(path.read_text())
        vae = ViTVAE(VaeConfig.from_dict(entries)).eval()
        weights = self.folder / "vae_state_dict.safetensors"
        check({name: tuple(tensor.shape) for name, tensor in vae.state_dict().items()}, {weights: []})
        vae.load_state_dict(self.tensors("vae_state_dict"))
        runs = {"enc": vae.encode, "dec": vae.decode}
        tiled = {"enc": vae.encode_tiled, "dec": vae.decode_tiled}
        for name, theirs in recorded.items():
            way, grid, what = name.split(".")
            if what == "in":
                continue
            x = recorded[f"{way}.{grid}.in"]
            if what == "moments":
                ours = vae.encoder(x)
            else:
                ours = tiled[way](x, _tiling(entries["tiled"])) if grid == "tiled" else runs[way](x)
            yield Case(f"vae.{name}", _distance([(ours, theirs)]), FLOAT32_TOLERANCE)

    def _case(self, name: str, pairs: list[tuple[Tensor, Tensor]]) -> Case:
        exact = self.config.dtype == torch.float32
        scale = max(theirs.float().abs().mean().item() for _, theirs in pairs)
        return Case(name, _distance(pairs), FLOAT32_TOLERANCE if exact else _BFLOAT16_SHARE * scale)


def _distance(pairs: list[tuple[Tensor, Tensor]]) -> float:
    worst = 0.0
    for ours, theirs in pairs:
        if ours.shape != theirs.shape:
            raise ValueError(f"recorded shape {tuple(theirs.shape)} where ours is {tuple(ours.shape)}")
        error = (ours.float() - theirs.float()).abs().max().item()
        worst = error if math.isnan(error) else max(worst, error)
        if math.isnan(worst):
            return worst
    return worst


def _tiling(entries: dict[str, Any]) -> Tiling:
    spatial = entries.get("allow_spatial_tiling", True)
    return Tiling(
        length=entries["tile_sample_min_length"],
        height=entries["tile_sample_min_height"] if spatial else _NO_SPATIAL_TILES,
        width=entries["tile_sample_min_width"] if spatial else _NO_SPATIAL_TILES,
        spatial_overlap=entries["spatial_tile_overlap_factor"],
        temporal_overlap=entries["temporal_tile_overlap_factor"],
    )
