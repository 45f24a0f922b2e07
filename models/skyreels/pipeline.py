"""A method of ours inside a stock diffusers pipeline of SkyReels-V2: the user's call, scheduler and callbacks stay.

The stock loop calls the transformer once per guidance branch and row, and then combines the branches and steps every
frame itself. A hook at the transformer's forward is therefore enough for a method that stands in for the velocity:

* the timestep matrix that the pipeline makes for a segment gives the rows, in the engine's own data (engine/row.py);
* where a row is computed, the stock forward runs, on the slots that the method finds worth forwarding;
* where it is not, every branch returns the stand-in v, and the pipeline's own v_uncond + g (v - v_uncond) is v.

What is needed inside the forward (blocks, keys and values kept between rows) is out of reach and refused.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from inspect import signature
from typing import Any

import torch
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from torch import Tensor

from engine.ledger import Entry, flops
from engine.row import VELOCITY, Decision, Mode, Row
from models.skyreels.price import Price
from models.skyreels.settings import SkyReels
from models.skyreels.signals import SIGNALS, Signals
from models.skyreels.units import check_prefixes, split
from models.wan.hook import PipelineHook, architecture, nothing
from models.wan.settings import SPATIAL

Matrices = tuple[Tensor, Tensor, Tensor, list[tuple[int, int]]]
"""Of a segment, (rows, slots) each: timesteps, their indices, which slots a row updates; then the rows' intervals."""

SIZES = {"frames": "num_frames", "height": "height", "width": "width"}  # of a call, and the pipeline's names for them


class SkyReelsHook(PipelineHook):
    """Runs one method in one SkyReels-V2 pipeline with diffusion forcing."""

    kinds = tuple(f"SkyReelsV2DiffusionForcing{kind}Pipeline" for kind in ("", "ImageToVideo", "VideoToVideo"))
    models, parts = "skyreels", False
    offers = frozenset({"narrow", "partial", *SIGNALS})  # of units, those before all that are skipped
    wrapped = ("check_inputs", "generate_timestep_matrix")  # where a call begins; where a segment does
    _begun: tuple[Matrices, int, int] | None  # a segment whose rows are not known yet

    def probe(self, name: str, latents: Tensor, row: Row) -> Tensor:
        first = row.slots.start - self._offset
        return self._signals.of(name, latents, self._when[first : first + len(row.slots)])

    def _generate_timestep_matrix(self, stock: Callable[..., Any]) -> Callable[..., Any]:
        def matrix(
            slots: int, template: Tensor, base: int, ar_step: int = 5, ready: int = 0, block: int = 1, *more: Any
        ) -> Any:
            made = stock(slots, template, base, ar_step, ready, block, *more)
            attention = "block_causal" if block > 1 else "full"
            self.settings = replace(self.settings, ar_step=ar_step, block=block, attention=attention)
            self._begun = (made, ready, block)  # read at the first forward: with a last image the pipeline changes it
            return made

        return matrix

    def _check_inputs(self, stock: Callable[..., Any]) -> Callable[..., Any]:
        begun = super()._check_inputs(stock)

        def checked(*args: Any, **kwargs: Any) -> Any:
            made, given = begun(*args, **kwargs), signature(stock).bind(*args, **kwargs).arguments
            for name, theirs in SIZES.items():
                setattr(self.settings, name, int(given.get(theirs) or 0))
            return made

        return checked

    def _begin(self) -> None:
        super()._begin()
        self._begun, self._first, self._length = None, 0, 0
        self._done: Tensor | None = None  # what the row's first branch left for the second
        self._fresh = False
        self._held: list[tuple[Row, Tensor]] = []  # units of the row that are skipped, and their velocities

    def _segment(self, made: Matrices, ready: int, block: int) -> None:
        """The rows of a segment from the stock matrices (rows, slots) of timesteps, indices and updates."""
        matrix, _, updates, intervals = made
        sigmas = self._sigmas()
        steps, number = len(sigmas) - 1, self.rows[-1].segment + 1 if self.rows else 0
        self._first += self._length - ready if self.rows else 0
        self._length = updates.shape[1]
        updates = updates.bool().cpu()
        done = torch.where(updates.any(0), 0, steps)  # what is never updated is given: a prefix, a last image
        for i, (active, (start, stop)) in enumerate(zip(updates, intervals, strict=True)):
            step, on, after = (part[start:stop].tolist() for part in (done, active, done + active))
            row = Row(
                iteration=len(self.rows),
                segment=number,
                slots=range(self._first + start, self._first + stop),
                steps=steps,
                step=tuple(step),
                sigma=tuple(sigmas[k] for k in step),
                sigma_next=tuple(sigmas[k] for k in after),
                active=tuple(on),
                unit=block,
                last=i == len(updates) - 1,
                given=self._first + ready,
                settled=self._first,
            )
            self.rows.append(row)
            done = done + active
        self._grid = sorted({int(t) for t in matrix.unique()})
        self._signals = Signals(self.pipe.transformer, self._grid, 24)
        self._ready()
        if self.method.grain == "unit":
            check_prefixes(self, self.method, self.rows[-len(updates) :], self._narrowed)

    def _narrowed(self, whole: Row) -> Row:
        """What the method wants forwarded of a row. With a given last image all of it: other frames attend to that."""
        return whole if whole.step[-1] == whole.steps and not whole.active[-1] else self.method.narrow(whole)

    # --- one forward ---------------------------------------------------------------------------------------------

    def new_forward(self, module: Any, *args: Any, **kwargs: Any) -> Any:
        """The transformer's forward of one guidance branch: hidden_states (B, C, slots, H, W) -> the velocity."""
        stock = self.fn_ref.original_forward
        if self._begun is not None:
            begun, self._begun = self._begun, None
            self._segment(*begun)
        hidden, when = kwargs.get("hidden_states"), kwargs.get("timestep")
        if self._next >= len(self.rows) or hidden is None or when is None or when.ndim != 2:
            return stock(*args, **kwargs)  # no row of the loop: somebody else calls the transformer
        first = self._done is None
        begin = time.perf_counter()
        if first:
            self._decide(hidden, when, kwargs.get("fps"))
        out = self._compute(stock, args, kwargs) if self._fresh else self._stand_in(hidden)
        took = time.perf_counter() - begin
        if first:
            self.seconds.append(took)
        else:
            self.seconds[-1] += took
        self._finish(out, first)
        return _as_asked(out, kwargs)

    def _decide(self, hidden: Tensor, when: Tensor, fps: Any) -> None:
        """One decision for all branches of the row; `when` (B, slots) holds the timesteps. A row that updates nothing
        (the last ones, where the end of the video is a given image) is computed, and no method hears of it."""
        whole = self.rows[self._next]
        if not any(whole.active):
            self._row, self._visit, self._fresh, self._forwarded, self._held = whole, None, True, whole.slots, []
            return
        self._when, self._offset = [int(t) for t in when[0].tolist()], whole.slots.start
        unknown = set(self._when) - set(self._grid)
        rate = 16 if fps is not None and int(next(iter(fps))) == 0 else 24
        if unknown or rate != self._signals.fps:
            self._grid = sorted({*self._grid, *unknown})
            self._signals = Signals(self.pipe.transformer, self._grid, rate)
        row = self._row = self._narrowed(whole)
        latents = _slots(hidden)[row.slots.start - whole.slots.start : row.slots.stop - whole.slots.start]
        fresh, skipped = split(self._choose(latents, row))
        self._fresh, self._held = bool(fresh), []
        self._forwarded = row.slots if not skipped or not fresh else range(row.slots.start, fresh[-1].slots.stop)
        for part, decision in skipped if fresh else ():
            x = latents[part.slots.start - row.slots.start : part.slots.stop - row.slots.start]
            self._held.append((part, self.method.fill(VELOCITY, part, decision.mode, x)))

    def _compute(self, stock: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
        """The stock forward of the slots that are to be computed, with stand-ins for skipped units. The others, which
        no step reads, are zero."""
        whole, slots, hidden = self.rows[self._next], self._forwarded, kwargs["hidden_states"]
        if slots == whole.slots:
            out = stock(*args, **kwargs)
            return out[0] if isinstance(out, tuple) else out.sample
        a, b = slots.start - whole.slots.start, slots.stop - whole.slots.start
        cut = {"hidden_states": hidden[:, :, a:b], "timestep": kwargs["timestep"][:, a:b]}
        out = stock(*args, **{**kwargs, **cut, "return_dict": False})[0]
        full = torch.zeros_like(hidden, dtype=out.dtype)
        full[:, :, a:b] = out
        for part, velocity in self._held:
            self._place(full, part, velocity)
        return full

    def _stand_in(self, hidden: Tensor) -> Tensor:
        """What the method hands back instead, in the form of the forward's output; the same for every branch."""
        if self._done is not None:
            return self._done
        assert self._visit is not None  # such a row is computed
        full = torch.zeros_like(hidden)
        self._place(full, self._row, self._visit(VELOCITY, self._latents, nothing))
        return full

    def _place(self, full: Tensor, part: Row, velocity: Tensor) -> None:
        """Write the method's `velocity` (slots of `part`, B C, H, W) to the forward's output (B, C, slots, H, W)."""
        a, (batch, channels) = part.slots.start - self.rows[self._next].slots.start, full.shape[:2]
        full[:, :, a : a + len(part.slots)] = velocity.unflatten(1, (batch, channels)).permute(1, 2, 0, 3, 4)

    def _finish(self, out: Tensor, first: bool) -> None:
        """After the row's last branch: the method keeps the guided velocity, and the ledger gains the row's entries."""
        if first and len(self.branches) == 2:
            self._done = out
            return
        if self._visit is None:
            self.ledger.append(Entry.of(self._row, Decision(Mode.RECOMPUTE), "", ()))
            self._next, self._done = self._next + 1, None
            return
        if self._fresh:
            guided = out.float()
            if self._done is not None:
                guided = guided + self.pipe.guidance_scale * (self._done.float() - guided)
            a = self._row.slots.start - self.rows[self._next].slots.start
            own = _slots(guided)[a : a + len(self._row.slots)]
            self._visit(VELOCITY, self._latents, self._computed(own))
        self.ledger += [self._as_run(entry) for entry in self._visit.entries()]
        self._next, self._done = self._next + 1, None

    def _computed(self, own: Tensor) -> Callable[[Tensor, Sequence[Row]], Tensor]:
        """The velocities of some parts of the row, out of `own`, those of all its slots."""

        def of(x: Tensor, parts: Sequence[Row]) -> Tensor:
            places = [slice(p.slots.start - self._row.slots.start, p.slots.stop - self._row.slots.start) for p in parts]
            return torch.cat([own[place] for place in places])

        return of

    def _as_run(self, entry: Entry) -> Entry:
        """The entry with the slots that the forward covered: no idle ones and no keys behind the first units."""
        stop = self._forwarded.stop
        idle = tuple((a, min(b, stop)) for a, b in entry.idle if a < stop)
        return replace(entry, idle=idle, seen=(entry.seen[0], min(entry.seen[1], stop))) if self._held else entry

    def executed(self) -> float:
        price = Price(_settings(self.pipe, self._shape))
        return flops(self.ledger, price.iteration)[0] / flops(self._full(), price.iteration)[0]


def _slots(x: Tensor) -> Tensor:
    """(B, C, slots, H, W) -> (slots, B C, H, W), float32: a batch counts as channels, so it shares its decisions."""
    return x.permute(2, 0, 1, 3, 4).flatten(1, 2).float()


def _as_asked(out: Tensor, kwargs: dict[str, Any]) -> Any:
    return Transformer2DModelOutput(sample=out) if kwargs.get("return_dict", True) else (out,)


def _settings(pipe: Any, shape: tuple[int, int]) -> SkyReels:
    """What the price of a forward depends on, for one slot; `shape` is that of a latent."""
    guidance = 2.0 if pipe.do_classifier_free_guidance else 1.0
    return SkyReels(
        weights="random",
        frames=1,
        base_frames=1,
        overlap=0,
        block=1,
        height=shape[0] * SPATIAL,
        width=shape[1] * SPATIAL,
        guidance=guidance,
        architecture=architecture(pipe.transformer),
    )
