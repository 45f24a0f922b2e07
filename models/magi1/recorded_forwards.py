"""Comparison with single recorded forwards of MAGI-1: (i) three chunks at once, (ii) two passes that share a cache."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .attention import Call
from .cache import KVCache
from .chunk_forward import Dispatcher, from_chunks, to_chunks
from .comparison import Case, compare
from .config import ModelConfig, RuntimeConfig
from .dit import Layer, Magi1DiT
from .embed import FREQUENCIES
from .schedule import Forward, Schedule, step_length

_INTERVALS = {"i": 2.0, "ii": 1.0}  # step intervals of the recorded forwards


class Source(Protocol):
    """What `Forwards` needs of a recording; see recorded.Recording."""

    config: ModelConfig
    settings: RuntimeConfig
    reference: bool

    @property
    def model(self) -> Magi1DiT: ...

    def build(self, params_dtype: str) -> Magi1DiT: ...

    def tensors(self, name: str) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class Inputs:
    """The inputs of one recorded transformer call."""

    latents: Tensor  # (n, C, chunk_width, h, w)
    times: Tensor
    text: list[Tensor]
    visible: list[tuple[int, int]]
    first: int  # the number of the first chunk


class Forwards:
    """The single forwards of a recording."""

    def __init__(self, recording: Source) -> None:
        self.recording = recording

    def cases(self) -> Iterator[Case]:
        """The comparison of every recorded group of outputs of single forwards, float32 and bfloat16."""
        yield from self._forwards()
        yield from self._forward_bf16()

    def _compare(self, name: str, pairs: list[tuple[Tensor, Tensor]]) -> Case:
        return compare(name, pairs, self.recording.config.dtype)

    def _inputs(self, recorded: dict[str, Tensor], prefix: str) -> Inputs:
        x, ranges = recorded[f"{prefix}.x"][0], recorded[f"{prefix}.kv_range"]
        times = recorded[f"{prefix}.t"][0]
        width, patch = x.shape[1] // len(times), self.recording.config.patch_size
        tokens = width * (x.shape[2] // patch) * (x.shape[3] // patch)
        visible = [(int(a) // tokens, int(b) // tokens) for a, b in ranges]
        pairs = zip(recorded[f"{prefix}.y"], recorded[f"{prefix}.xattn_mask"], strict=True)
        text = [y[0][mask[0] > 0] for y, mask in pairs]
        return Inputs(to_chunks(x, width), times, text, visible, visible[-1][1] - len(times))

    def _step_length(self, kind: str, case: str) -> float | None:
        return step_length(self.recording.settings.num_steps, _INTERVALS[case]) if kind == "distill" else None

    def _run(
        self, model: Magi1DiT, inputs: Inputs, length: float | None, cache: KVCache | None = None, dropped: bool = False
    ) -> Tensor:
        places = range(inputs.first, inputs.first + len(inputs.times))
        out = model(
            inputs.latents,
            inputs.times,
            inputs.text,
            places,
            inputs.visible,
            cache=cache,
            step_length=length,
            dropped=dropped,
        )
        return from_chunks(out)[None]

    @torch.no_grad()
    def fit_last_bits(self, model: Magi1DiT) -> None:
        """Set `last_bits` of the time embedding to the rounding of the recorder's machine.

        A frequency changes by at most one unit in the last place, if the result is then closer to the recorded one.
        """
        recorded = self.recording.tensors("dit_forward")
        kind = next((kind for kind in ("distill", "base") if f"i.{kind}.condition" in recorded), None)
        if kind is None:
            return
        theirs, inputs = recorded[f"i.{kind}.condition"], self._inputs(recorded, "i")
        length = self._step_length(kind, "i")

        def distance(bits: dict[int, int]) -> float:
            model.t_embedder.last_bits = bits
            return float((self._call(model, inputs, length).condition[None] - theirs).double().square().sum())

        best: dict[int, int] = {}
        least = distance(best)
        for frequency in range(FREQUENCIES):
            for units in (-1, 1):
                off = distance(tried := {**best, frequency: units})
                if off < 0.9 * least:  # smaller improvements are rounding noise
                    best, least = tried, off
        model.t_embedder.last_bits = best

    def _call(self, model: Magi1DiT, inputs: Inputs, length: float | None) -> Call:
        n = len(inputs.times)
        return model.prepare(
            inputs.latents.shape, inputs.times, inputs.text, range(n), inputs.visible, range(n), step_length=length
        )

    def _forwards(self) -> Iterator[Case]:
        recorded = self.recording.tensors("dit_forward")
        for kind in ("distill", "base"):
            outputs = {name: tensor for name, tensor in recorded.items() if name.startswith(f"i.{kind}.")}
            if outputs:
                inputs, length = self._inputs(recorded, "i"), self._step_length(kind, "i")
                ours = self._inside(inputs, length)
                ours["out"] = self._run(self.recording.model, inputs, length)
                ours["out_dropped"] = self._run(self.recording.model, inputs, length, dropped=True)
                theirs = {name.removeprefix(f"i.{kind}."): tensor for name, tensor in outputs.items()}
                known = {name: tensor for name, tensor in theirs.items() if name in ours}
                for name, tensor in known.items():
                    yield self._compare(f"dit_forward.i.{kind}.{name}", [(ours[name], tensor)])
            if f"ii.{kind}.pass1.out" in recorded:
                yield from self._cache_passes(recorded, kind)

    def _inside(self, inputs: Inputs, length: float | None) -> dict[str, Tensor]:
        """The intermediate tensors of a forward, with official names and layouts."""
        model = self.recording.model
        call = self._call(model, inputs, length)
        hidden = model.embed(inputs.latents)
        found = {
            "embedded_x": hidden.flatten(0, 1)[:, None],
            "condition": call.condition[None],
            "rope_sin_cos": torch.cat(call.rotary()[::-1], -1).flatten(0, 1),
            "y_xattn_flat_first_chunk": call.text()[0],
        }
        for i, layer in enumerate(model.layers):
            assert isinstance(layer, Layer)
            core, cross = layer.self_attention(hidden, call)
            hidden = layer(hidden, call)
            parts = {"core_attn": core, "cross_attn": cross, "output": hidden}
            found |= {f"layer{i}.{name}": part.flatten(0, 1)[:, None] for name, part in parts.items()}
        return found

    def _cache_passes(self, recorded: dict[str, Tensor], kind: str) -> Iterator[Case]:
        first, second = (self._inputs(recorded, f"ii.{name}") for name in ("pass1", "pass2"))
        n, length = len(second.times), self._step_length(kind, "ii")
        tokens = math.prod(first.latents.shape[2:]) // self.recording.config.patch_size**2
        chunks = max(first.first + len(first.times), second.first + n)
        cache = KVCache(self.recording.model.config, chunks, tokens, "cpu")
        out = self._run(self.recording.model, first, length, cache)
        pairs = [(out, recorded[f"ii.{kind}.pass1.out"])]
        for i, rows in enumerate(cache.layers):
            if (kept := recorded.get(f"ii.{kind}.pass1.kv_layer{i}")) is not None:
                pairs.append((rows.flatten(0, 1)[: len(kept)], kept))
        yield self._compare(f"dit_forward.ii.{kind}.pass1", pairs)
        if (out2 := recorded.get(f"ii.{kind}.pass2.out")) is not None:
            ours = self._run(self.recording.model, second, length, cache)
            yield self._compare(f"dit_forward.ii.{kind}.pass2", [(ours, out2)])
        if (blended := recorded.get(f"ii.{kind}.pass3.near_clean_velocity")) is not None:
            ours = self._duplicated(second, cache, length or 0.0)
            yield self._compare(f"dit_forward.ii.{kind}.pass3", [(ours, blended)])

    def _duplicated(self, inputs: Inputs, cache: KVCache, length: float) -> Tensor:
        flight = range(inputs.first, inputs.first + len(inputs.times))
        times = tuple(inputs.times.tolist())
        forward = Forward(
            0, 0, 0, flight, (0,) * len(times), times, times, tuple(inputs.visible), length, duplicate=True
        )
        plan = Schedule((forward,), flight.stop, flight.start, 0, inputs.latents.shape[2], (), length)
        settings = self.recording.settings.with_(distill=True, cfg_number=1)
        dispatcher = Dispatcher(self.recording.model, settings, plan, inputs.text)
        dispatcher.cache = cache
        before = torch.zeros(flight.start, *inputs.latents.shape[1:])
        return from_chunks(dispatcher.velocity(torch.cat([before, inputs.latents]), forward))[None]

    def _forward_bf16(self) -> Iterator[Case]:
        """Case (i) in bfloat16.

        Different rounding grows through the layers, so the tolerance is the recorded difference between bfloat16 and
        float32. The recorder's attention was in float32. Kernels with attention in bfloat16 may reach the full
        tolerance; the recorder's order of operations must stay below half of it.
        """
        recorded, exact = self.recording.tensors("dit_forward_bf16"), self.recording.tensors("dit_forward")
        if not recorded or "i.distill.out" not in exact:
            return
        ours = self._run(self.recording.build("bfloat16"), self._inputs(exact, "i"), self._step_length("distill", "i"))
        gap = recorded["out"] - exact["i.distill.out"]
        error = (ours - recorded["out"]).abs()
        share = 0.5 if self.recording.reference else 1.0
        yield Case("dit_forward_bf16.out", error.max().item(), gap.abs().max().item() * share)
        yield Case("dit_forward_bf16.out_mean", error.mean().item(), gap.abs().mean().item() * share)
