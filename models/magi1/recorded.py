"""Comparison of our MAGI-1 with a folder of tensors recorded from the official code.

config.json, state_dict.safetensors        the model, its settings, and the recorded `scenarios`
dit_forward[_bf16].safetensors             single forwards: (i) without, (ii) with a cache
rollout_<scenario>.safetensors             whole videos, from the inputs in rollout_inputs.safetensors
reuse_baselines.safetensors                only the video of the official loop is used
vae_config.json, vae_state_dict, vae_io    the VAE
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from .checkpoint import CheckpointError, check, empty_dit, kept_as, take
from .chunk_forward import Dispatcher, from_chunks, rollout, to_chunks
from .comparison import Case, compare
from .config import RuntimeConfig, read_config
from .dit import Magi1DiT, stays_float32
from .recorded_forwards import Forwards
from .schedule import schedule, time_grid
from .text import SpecialTokens, chunk_texts, negative_text
from .tiling import Tiling
from .vae import VaeConfig, ViTVAE

_SWITCHES = {"PAD_STATIC": "static", "PAD_DYNAMIC": "dynamic", "PAD_BORDERNESS": "borderness", "PAD_HQ": "hq"}
_SWITCHES |= {"PAD_THREE_D_MODEL": "3d", "PAD_TWO_D_ANIME": "2d", "PAD_DURATION": "duration"}
_NO_SPATIAL_TILES = 100_000


class Recording:
    """A folder recorded from the official code.

    Args:
        folder: its path.
        reference: whether to use the recorder's order of operations, which gives the same rounding; else the kernels
            that generate videos.

    Raises:
        CheckpointError, ValueError: a file is missing or damaged; the message is one line.
    """

    def __init__(self, folder: Path, reference: bool = True) -> None:
        self.folder, self.reference = Path(folder), reference
        for name in ("config.json", "state_dict.safetensors"):
            if not (self.folder / name).is_file():
                raise CheckpointError(f"{self.folder} has no {name}; give a folder recorded from the official code")
        self.entries: dict[str, Any] = json.loads((self.folder / "config.json").read_text())
        self.config, self.settings = read_config(self.folder / "config.json")

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors of a file; none if the file does not exist."""
        path = self.folder / f"{name}.safetensors"
        try:
            return load_file(path) if path.is_file() else {}
        except SafetensorError as error:
            raise CheckpointError(f"{path} is cut off or damaged ({error}); record it again") from error

    @cached_property
    def model(self) -> Magi1DiT:
        """The transformer in the recorded precision."""
        return self.build(self.config.params_dtype)

    def build(self, params_dtype: str) -> Magi1DiT:
        """The transformer with hidden states of `params_dtype`."""
        config = replace(self.config, params_dtype=params_dtype)
        path = self.folder / "state_dict.safetensors"
        model = empty_dit(config, reference=self.reference)
        check({name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}, {path: []})
        # The recorder copied float32 weights into a model of `params_dtype`, which rounded the weights of norms.
        rounded = {
            name: tensor.to(config.dtype) if stays_float32(name) and "norm" in name else tensor
            for name, tensor in self.tensors("state_dict").items()
        }
        take(model, rounded.items(), lambda name: kept_as(name, config.dtype), "cpu")
        if self.reference:
            Forwards(self).fit_last_bits(model)
        return model

    @torch.no_grad()
    def cases(self) -> Iterator[Case]:
        """The comparison of every recorded group of outputs."""
        with ExitStack() as kernels:
            if self.reference:
                kernels.enter_context(sdpa_kernel(SDPBackend.MATH))
                # oneDNN's bfloat16 products depend on the CPU (AMX); without it the recorded numbers come out exactly
                kernels.enter_context(torch.backends.mkldnn.flags(enabled=False, allow_tf32=False))
            yield from self._all()

    def _all(self) -> Iterator[Case]:
        yield from Forwards(self).cases()
        for name in self.entries.get("scenarios", {}):
            if recorded := self.tensors(f"rollout_{name}"):
                yield self._rollout(name, recorded)
        yield from self._sixteen_steps()
        yield from self._vae()

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
        return compare(f"rollout_{name}", pairs, self.config.dtype)

    def _sixteen_steps(self) -> Iterator[Case]:
        recorded = self.tensors("reuse_baselines")
        notes = self.folder / "reuse_baselines.json"
        if "orig_fullkv.final_x" not in recorded or not notes.is_file():
            return
        steps = json.loads(notes.read_text())["orig_fullkv"]["args"]["steps"]
        settings = self.settings.with_(num_steps=steps, noise2clean_kvrange=())
        noise = to_chunks(recorded["noise"][0], settings.chunk_width)
        *_, (_, _, latents) = rollout(self._dispatcher(settings, 0), noise)
        pairs = [(from_chunks(latents)[None], recorded["orig_fullkv.final_x"])]
        yield compare("reuse_baselines.orig_fullkv", pairs, self.config.dtype)

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
            yield compare(f"vae.{name}", [(ours, theirs)])


def _tiling(entries: dict[str, Any]) -> Tiling:
    spatial = entries.get("allow_spatial_tiling", True)
    return Tiling(
        length=entries["tile_sample_min_length"],
        height=entries["tile_sample_min_height"] if spatial else _NO_SPATIAL_TILES,
        width=entries["tile_sample_min_width"] if spatial else _NO_SPATIAL_TILES,
        spatial_overlap=entries["spatial_tile_overlap_factor"],
        temporal_overlap=entries["temporal_tile_overlap_factor"],
    )
