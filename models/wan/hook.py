"""What the hooks of the stock pipelines share: the method's view of a call, its decisions, and when it is on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

from diffusers.hooks.hooks import HookRegistry, ModelHook
from torch import Tensor

from engine.ledger import Entry
from engine.loop import decide
from engine.method import Method
from engine.row import Decision, Mode, Row
from engine.visit import Visit
from models.wan.parameters import onload

HOOK = "scope_harness"  # the name of our hook at the transformer


@dataclass
class Called:
    """The settings of a pipeline's call, under the names that they have in run.py. A schedule may be made for some."""

    name: str  # the model whose operating points are used
    frames: int = 0  # pixel frames
    height: int = 0
    width: int = 0
    steps: int = 0
    guidance: float = 1.0
    ar_step: int = 0
    block: int = 0  # slots per AR unit, where all units have the same
    attention: str = ""  # "full" or "block_causal"


class PipelineHook(ModelHook):
    """Runs one method in one pipeline. What a method may ask of it is `Capabilities` of engine/method.py."""

    kinds: ClassVar[tuple[str, ...]]  # the names of the pipeline classes
    models: ClassVar[str]  # the model of the menu whose operating points are the default
    offers: frozenset[str]
    parts: ClassVar[bool]  # whether a method may decide per AR unit, whatever its decisions depend on
    wrapped: ClassVar[tuple[str, ...]]  # methods of the pipeline that the hook listens to: where a call begins, ...

    def __init__(self, pipe: Any, method: Method, model: str) -> None:
        super().__init__()
        self.pipe, self.method, self.model = pipe, method, model
        self.depth = int(pipe.transformer.config.num_layers)
        self.ledger: list[Entry] = []
        self.seconds: list[float] = []  # of every row
        self.rows: list[Row] = []
        self.settings = Called(model)
        self._attached = ExitStack()  # what the method holds open while a segment runs
        self._begin()

    # --- what a method may ask -----------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return type(self.pipe).__name__

    @property
    def branches(self) -> tuple[str, ...]:
        return ("cond", "uncond") if self.pipe.do_classifier_free_guidance else ("cond",)

    def advice(self, lacking: str) -> str:
        return "it stands outside the model's forward; use run.py, or a setting that works on the velocity alone"

    def schedule(self) -> Sequence[Row]:
        """The rows of the segments, or of the chunks, that have begun."""
        return self.rows

    def probe(self, name: str, latents: Tensor, row: Row) -> Tensor:
        raise NotImplementedError

    # --- on and off ----------------------------------------------------------------------------------------------

    def attach(self) -> None:
        for name in self.wrapped:
            setattr(self.pipe, name, getattr(self, f"_{name}")(getattr(self.pipe, name)))
        HookRegistry.check_if_exists_or_initialize(self.pipe.transformer).register_hook(self, HOOK)

    def detach(self) -> None:
        HookRegistry.check_if_exists_or_initialize(self.pipe.transformer).remove_hook(HOOK)
        for name in self.wrapped:
            self.pipe.__dict__.pop(name, None)
        self._attached.close()
        self.method.reset()

    def _check_inputs(self, stock: Callable[..., Any]) -> Callable[..., Any]:
        def checked(*args: Any, **kwargs: Any) -> Any:
            self.ledger, self.seconds = [], []
            self._begin()
            return stock(*args, **kwargs)

        return checked

    def _begin(self) -> None:
        """A call begins."""
        self._attached.close()
        self.method.reset()
        self.rows, self._next = [], 0
        self._visit: Visit | None = None  # None for a row that no method hears of

    def _ready(self) -> None:
        """A segment begins: check the method against its rows. Raises ValueError where it cannot run on them."""
        self.settings.steps, self.settings.guidance = self.rows[-1].steps, float(self.pipe.guidance_scale)
        self.method.check(self)
        self._attached.close()
        self._attached.enter_context(self.method.attached(self))
        self.method.reset()

    def _sigmas(self) -> list[float]:
        """The scheduler's noise levels, from noise to clean. Raises ValueError where they do not fall at every step."""
        scheduler = self.pipe.scheduler
        found = getattr(scheduler, "sigmas", None)
        levels = [] if found is None else [float(s) for s in found][: len(scheduler.timesteps) + 1]
        if len(levels) < 2 or any(not b < a for a, b in pairwise(levels)):
            raise ValueError(
                f"{type(scheduler).__name__} has noise levels that do not fall at every step ({_told(levels)}), so a "
                "velocity cannot be extrapolated along them; use the pipeline's own scheduler"
            )
        return levels

    # --- one row -------------------------------------------------------------------------------------------------

    def _choose(self, latents: Tensor, row: Row) -> list[tuple[Row, Decision]]:
        """The decisions about `row`, one per part of it, for all guidance branches."""
        onload(self.pipe.transformer)
        probed: list[str] = []
        plan = decide(self, self.method, latents, row, probed)  # type: ignore[arg-type]
        self._latents, self._visit = latents, Visit(self.method, row, self.depth, plan, probed)
        return plan[""]

    def executed(self) -> float:
        """FLOPs executed over those of the stock loop, denoiser only, attention dense as the stock forward runs it."""
        raise NotImplementedError

    @property
    def _shape(self) -> tuple[int, int]:
        return int(self._latents.shape[-2]), int(self._latents.shape[-1])

    def _full(self) -> list[Entry]:
        """The ledger of the stock loop up to the last row that has run."""
        return [Entry.of(row, Decision(Mode.RECOMPUTE, why=row.forced), "", ()) for row in self.rows[: self._next]]


def _told(levels: Sequence[float]) -> str:
    """The first levels, up to the first that does not fall."""
    place = next((i for i, (a, b) in enumerate(pairwise(levels)) if not b < a), 0)
    part = levels[max(0, place - 1) : place + 3]
    return f"{'... ' if place > 1 else ''}{', '.join(f'{level:.4g}' for level in part)} ..." if part else "none"


def nothing(x: Tensor, parts: Sequence[Row]) -> Tensor:
    """Stands where a computation would, in a row that the method supplies."""
    raise RuntimeError("a row that is stood in for was computed")


def architecture(transformer: Any) -> dict[str, Any]:
    """What a transformer of diffusers was built with."""
    return {k: v for k, v in dict(transformer.config).items() if not k.startswith("_")}
