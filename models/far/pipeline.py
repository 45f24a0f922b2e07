"""A method of ours inside a stock diffusers pipeline of AnyFlow-FAR.

The stock loop calls the transformer once per step of a chunk, with both guidance branches in one batch, and once more
after every chunk but the last: the clean pass, which writes the finished chunk's keys and values. A hook at the
transformer's forward tells the two apart by the pipeline's own flag:

* a clean pass always runs, and no method hears of it;
* a step that is skipped returns the stand-in v for both branches, and the pipeline's v_uncond + g (v - v_uncond) is v.

The pipeline tells the transformer of a chunk when it begins, so the rows are known chunk by chunk.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from diffusers.models.transformers.transformer_anyflow_far import AnyFlowFARTransformerOutput
from torch import Tensor

from engine.ledger import Entry, flops
from engine.row import VELOCITY, Decision, Mode, Row
from models.far.capabilities import SIGNALS
from models.far.settings import Far
from models.far.shape import Shape
from models.far.stock_price import StockPrice
from models.far.times import Signals, times
from models.wan.hook import PipelineHook, architecture, nothing
from models.wan.settings import SPATIAL, TEMPORAL

CLEAN = "clean pass"


class FarHook(PipelineHook):
    """Runs one method in one AnyFlow-FAR pipeline. A row is one chunk, so a method may decide per row or per unit."""

    kinds, models, parts = ("AnyFlowFARPipeline",), "far", True
    offers = frozenset({"partial", *SIGNALS})
    wrapped = ("check_inputs", "prepare_latents")

    def probe(self, name: str, latents: Tensor, row: Row) -> Tensor:
        return self._signals.of(name, latents, row.step[0])

    def advice(self, lacking: str) -> str:
        if lacking == "narrow":
            return "a row is one chunk, and none of its frames can be left out; use a setting with selective=none"
        return super().advice(lacking)

    def _prepare_latents(self, stock: Callable[..., Any]) -> Callable[..., Any]:
        def prepared(*args: Any, **kwargs: Any) -> Any:
            latents = stock(*args, **kwargs)
            self._total, (height, width) = latents.shape[2], latents.shape[-2:]
            self.settings = replace(
                self.settings,
                frames=1 + TEMPORAL * (self._total - 1),
                height=height * SPATIAL,
                width=width * SPATIAL,
            )
            return latents

        return prepared

    def _begin(self) -> None:
        super()._begin()
        self._total = 0  # latent slots of the video; 0 outside a call
        self._lengths: list[int] = []  # of the chunks that have begun

    # --- one forward ---------------------------------------------------------------------------------------------

    def new_forward(self, module: Any, *args: Any, **kwargs: Any) -> Any:
        """The transformer's forward: hidden_states (branches * B, slots, C, H, W) -> the velocity, or a clean pass."""
        stock, flag, hidden = self.fn_ref.original_forward, kwargs.get("kv_cache_flag"), kwargs.get("hidden_states")
        if flag is None or hidden is None or not self._total:
            return stock(*args, **kwargs)  # no row of the loop: somebody else calls the transformer
        lengths, begin = list(kwargs["chunk_partition"]), time.perf_counter()
        self._text = int(kwargs["encoder_hidden_states"].shape[1])
        if flag["is_cache_step"]:
            out = stock(*args, **kwargs)
            self._passed(lengths)
        else:
            if lengths != self._lengths:
                self._chunk(lengths, kwargs)
            out = self._step(stock, hidden, args, kwargs)
        self.seconds.append(time.perf_counter() - begin)
        return out

    def _passed(self, lengths: list[int]) -> None:
        """After a clean pass. Those of given chunks come before the first step; their rows are made at that step."""
        if not self.rows:
            return
        self.rows.append(self._row(len(lengths) - 1, self.rows[-1].steps))
        self._note(self.rows[-1])

    def _note(self, row: Row) -> None:
        self.ledger.append(Entry.of(row, Decision(Mode.RECOMPUTE, why=CLEAN), "", ()))
        self._next += 1

    def _chunk(self, lengths: list[int], kwargs: dict[str, Any]) -> None:
        """The rows of the chunk that begins, the last of `lengths`. Raises ValueError if the method cannot run."""
        first, self._lengths = not self.rows, lengths
        self._levels = self._sigmas()
        steps, own = len(self._levels) - 1, len(lengths) - 1
        if first:
            self._given = sum(lengths[:own])
            self.rows = [self._row(chunk, steps) for chunk in range(own)]
            for row in list(self.rows):
                self._note(row)
        for step in range(steps):
            self.rows.append(self._row(own, step))
        if not first:
            return
        mean = not torch.equal(kwargs["timestep"], kwargs["r_timestep"])
        trained = self.pipe.scheduler.config.num_train_timesteps
        self._signals = Signals(self.pipe.transformer, *times(self._levels, mean, trained))
        self._ready()

    def _row(self, chunk: int, step: int) -> Row:
        """The row of one step of `chunk`; the step after the last one is the clean pass."""
        slots = range(sum(self._lengths[:chunk]), sum(self._lengths[: chunk + 1]))
        n, steps = len(slots), len(self._levels) - 1
        clean = step == steps
        return Row(
            iteration=len(self.rows) if chunk == len(self._lengths) - 1 else chunk,
            segment=0,
            slots=slots,
            steps=steps,
            step=(step,) * n,
            sigma=(self._levels[step],) * n,
            sigma_next=(self._levels[min(step + 1, steps)],) * n,
            active=(not clean,) * n,
            unit=n,
            forced=CLEAN if clean else "",
            last=not clean and slots.stop == self._total and step + 1 == steps,
            given=self._given,
            settled=slots.start,
            borders=tuple(sum(self._lengths[:k]) for k in range(len(self._lengths))),
        )

    def _step(self, stock: Callable[..., Any], hidden: Tensor, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """One step of a chunk: computed, or the method's stand-in."""
        if self._next >= len(self.rows):
            raise RuntimeError(f"{self.name} took more steps in a chunk than its scheduler has; call disable()")
        row, batch = self.rows[self._next], hidden.shape[0] // len(self.branches)
        (_, made), *_ = self._choose(_slots(hidden[:batch]), row)
        assert self._visit is not None
        if made.mode is Mode.RECOMPUTE:
            out = stock(*args, **kwargs)
            own = _slots(self._guided(out[0]))
            self._visit(VELOCITY, self._latents, lambda x, parts: own)
        else:
            velocity = self._visit(VELOCITY, self._latents, nothing).unflatten(1, (batch, -1)).permute(1, 0, 2, 3, 4)
            sample = torch.cat([velocity.to(hidden.dtype)] * len(self.branches))
            out = _as_asked(sample, kwargs)
        self.ledger += self._visit.entries()
        self._next += 1
        return out

    def _guided(self, velocity: Tensor) -> Tensor:
        """The velocity (B, slots, C, H, W) after guidance, as the pipeline computes it; `velocity` has all branches."""
        if len(self.branches) == 1:
            return velocity.float()
        without, own = velocity.float().chunk(2)
        return without + self.pipe.guidance_scale * (own - without)

    def executed(self) -> float:
        given = Far(
            weights="random",
            frames=1 + TEMPORAL * (sum(self._lengths) - 1),
            chunk_partition=self._lengths,
            height=self.settings.height,
            width=self.settings.width,
            guidance=2.0 if len(self.branches) == 2 else 1.0,
            text_length=self._text,
            architecture=architecture(self.pipe.transformer),
        )
        price = StockPrice(given, Shape.of(given)).both
        return flops(self.ledger, price)[0] / flops(self._full(), price)[0]


def _slots(x: Tensor) -> Tensor:
    """(B, slots, C, H, W) -> (slots, B C, H, W), float32: a batch counts as channels, so it shares its decisions."""
    return x.permute(1, 0, 2, 3, 4).flatten(1, 2).float()


def _as_asked(sample: Tensor, kwargs: dict[str, Any]) -> Any:
    cache = kwargs.get("kv_cache")
    if kwargs.get("return_dict", True):
        return AnyFlowFARTransformerOutput(sample=sample, kv_cache=cache)
    return sample, cache
