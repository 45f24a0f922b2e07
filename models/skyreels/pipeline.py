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
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

import torch
from diffusers.hooks.hooks import HookRegistry, ModelHook
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from torch import Tensor

from engine.ledger import Entry, flops
from engine.loop import decide
from engine.method import Method
from engine.row import VELOCITY, Decision, Mode, Row
from engine.visit import Visit
from models.skyreels.price import Price
from models.skyreels.settings import SkyReels
from models.skyreels.signals import SIGNALS, Signals
from models.wan.settings import SPATIAL

HOOK = "scope_harness"
PIPELINES = tuple(f"SkyReelsV2DiffusionForcing{kind}Pipeline" for kind in ("", "ImageToVideo", "VideoToVideo"))
Matrices = tuple[Tensor, Tensor, Tensor, list[tuple[int, int]]]
"""Of a segment, (rows, slots) each: timesteps, their indices, which slots a row updates; then the rows' intervals."""

WRAPPED = ("check_inputs", "generate_timestep_matrix")  # where a call begins; where a segment does


class PipelineHook(ModelHook):
    """Runs one method in one pipeline. What a method may ask of it is `Capabilities` of engine/method.py."""

    name, settings = "the pipeline", None
    offers = frozenset({"narrow", *SIGNALS})
    _begun: tuple[Matrices, int, int] | None  # a segment whose rows are not known yet
    _visit: Visit | None  # None for a row that updates nothing

    def __init__(self, pipe: Any, method: Method) -> None:
        super().__init__()
        self.pipe, self.method = pipe, method
        self.depth = int(pipe.transformer.config.num_layers)
        self.ledger: list[Entry] = []
        self.seconds: list[float] = []  # of every row
        self.rows: list[Row] = []
        self._attached = ExitStack()  # what the method holds open while a segment runs
        self._begin()

    # --- what a method may ask -----------------------------------------------------------------------------------

    @property
    def branches(self) -> tuple[str, ...]:
        return ("cond", "uncond") if self.pipe.do_classifier_free_guidance else ("cond",)

    def advice(self, lacking: str) -> str:
        return "it stands outside the model's forward; use run.py, or a setting that works on the velocity alone"

    def schedule(self) -> Sequence[Row]:
        """The rows of the segments that have begun."""
        return self.rows

    def probe(self, name: str, latents: Tensor, row: Row) -> Tensor:
        first = row.slots.start - self._offset
        return self._signals.of(name, latents, self._when[first : first + len(row.slots)])

    # --- on and off ----------------------------------------------------------------------------------------------

    def attach(self) -> None:
        for name in WRAPPED:
            setattr(self.pipe, name, getattr(self, f"_{name}")(getattr(self.pipe, name)))
        HookRegistry.check_if_exists_or_initialize(self.pipe.transformer).register_hook(self, HOOK)

    def detach(self) -> None:
        HookRegistry.check_if_exists_or_initialize(self.pipe.transformer).remove_hook(HOOK)
        for name in WRAPPED:
            self.pipe.__dict__.pop(name, None)
        self._attached.close()
        self.method.reset()

    def _check_inputs(self, stock: Callable[..., Any]) -> Callable[..., Any]:
        def checked(*args: Any, **kwargs: Any) -> Any:
            self.ledger, self.seconds = [], []
            self._begin()
            return stock(*args, **kwargs)

        return checked

    def _generate_timestep_matrix(self, stock: Callable[..., Any]) -> Callable[..., Any]:
        def matrix(
            slots: int, template: Tensor, base: int, ar_step: int = 5, ready: int = 0, block: int = 1, *more: Any
        ) -> Any:
            made = stock(slots, template, base, ar_step, ready, block, *more)
            self._begun = (made, ready, block)  # read at the first forward: with a last image the pipeline changes it
            return made

        return matrix

    def _begin(self) -> None:
        """A call begins."""
        self._attached.close()
        self.method.reset()
        self.rows, self._next, self._first, self._length = [], 0, 0, 0
        self._begun = None
        self._done: Tensor | None = None  # what the row's first branch left for the second
        self._fresh = False

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
        self.method.check(self)
        self._attached.close()
        self._attached.enter_context(self.method.attached(self))
        self.method.reset()

    def _sigmas(self) -> list[float]:
        """The scheduler's noise levels, from noise to clean. Raises ValueError where they do not fall at every step."""
        scheduler = self.pipe.scheduler
        found = getattr(scheduler, "sigmas", None)
        levels = [] if found is None else [float(s) for s in found][: len(scheduler.timesteps) + 1]
        if len(levels) < 2 or any(b >= a for a, b in pairwise(levels)):
            raise ValueError(
                f"{type(scheduler).__name__} has noise levels that do not fall at every step ({levels[:4]} ...), so a "
                "velocity cannot be extrapolated along them; use the pipeline's own scheduler"
            )
        return levels

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
            self._row, self._visit, self._fresh = whole, None, True
            return
        self._when, self._offset = [int(t) for t in when[0].tolist()], whole.slots.start
        unknown = set(self._when) - set(self._grid)
        rate = 16 if fps is not None and int(next(iter(fps))) == 0 else 24
        if unknown or rate != self._signals.fps:
            self._grid = sorted({*self._grid, *unknown})
            self._signals = Signals(self.pipe.transformer, self._grid, rate)
        given_end = whole.step[-1] == whole.steps and not whole.active[-1]  # a last image: other frames attend to it
        row = whole if given_end else self.method.narrow(whole)
        latents = _slots(hidden)[row.slots.start - whole.slots.start : row.slots.stop - whole.slots.start]
        probed: list[str] = []
        plan = decide(self, self.method, latents, row, probed)  # type: ignore[arg-type]
        self._row, self._latents = row, latents
        self._visit = Visit(self.method, row, self.depth, plan, probed)
        self._fresh = all(d.mode is Mode.RECOMPUTE for parts in plan.values() for _, d in parts)

    def _compute(self, stock: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
        """The stock forward of the row's slots; the others, which no step reads, are zero."""
        whole, row = self.rows[self._next], self._row
        if row.slots == whole.slots:
            out = stock(*args, **kwargs)
            return out[0] if isinstance(out, tuple) else out.sample
        a, b = row.slots.start - whole.slots.start, row.slots.stop - whole.slots.start
        cut = {"hidden_states": kwargs["hidden_states"][:, :, a:b], "timestep": kwargs["timestep"][:, a:b]}
        out = stock(*args, **{**kwargs, **cut, "return_dict": False})[0]
        full = torch.zeros_like(kwargs["hidden_states"], dtype=out.dtype)
        full[:, :, a:b] = out
        return full

    def _stand_in(self, hidden: Tensor) -> Tensor:
        """What the method hands back instead, in the form of the forward's output; the same for every branch."""
        if self._done is not None:
            return self._done
        whole, row = self.rows[self._next], self._row
        assert self._visit is not None  # such a row is computed
        velocity = self._visit(VELOCITY, self._latents, _nothing)
        full = torch.zeros_like(hidden)
        batch, channels = hidden.shape[:2]
        a = row.slots.start - whole.slots.start
        full[:, :, a : a + len(row.slots)] = velocity.unflatten(1, (batch, channels)).permute(1, 2, 0, 3, 4)
        return full

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
            self._visit(VELOCITY, self._latents, lambda x, parts: own)
        self.ledger += self._visit.entries()
        self._next, self._done = self._next + 1, None

    # --- what came of it -----------------------------------------------------------------------------------------

    def executed(self) -> float:
        """FLOPs executed over those of the stock loop, denoiser only, attention dense as the stock forward runs it."""
        settings = _settings(self.pipe, self._shape)
        price = Price(settings)
        full = [Entry.of(row, Decision(Mode.RECOMPUTE), "", ()) for row in self.rows[: self._next]]
        return flops(self.ledger, price.iteration)[0] / flops(full, price.iteration)[0]

    @property
    def _shape(self) -> tuple[int, int]:
        return int(self._latents.shape[-2]), int(self._latents.shape[-1])


def _slots(x: Tensor) -> Tensor:
    """(B, C, slots, H, W) -> (slots, B C, H, W), float32: a batch counts as channels, so it shares its decisions."""
    return x.permute(2, 0, 1, 3, 4).flatten(1, 2).float()


def _nothing(x: Tensor, parts: Sequence[Row]) -> Tensor:
    raise RuntimeError("a row that is stood in for was computed")


def _as_asked(out: Tensor, kwargs: dict[str, Any]) -> Any:
    return Transformer2DModelOutput(sample=out) if kwargs.get("return_dict", True) else (out,)


def _settings(pipe: Any, shape: tuple[int, int]) -> SkyReels:
    """What the price of a forward depends on, for one slot; `shape` is that of a latent."""
    architecture = {k: v for k, v in dict(pipe.transformer.config).items() if not k.startswith("_")}
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
        architecture=architecture,
    )
