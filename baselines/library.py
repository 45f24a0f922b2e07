"""The libraries themselves: diffusers' cache hooks, and cache-dit, on the same transformer and schedule.

    the library's hooks are set on the model's modules for one video, again for every segment
    the model's own forward runs with them, once per guidance branch; the hooks are told the branch
    the skipped computations are found from the layers that ran, not from the library's own counters

`library: diffusers` has `technique` first_block_cache, mag_cache, taylorseer, pyramid_attention_broadcast, sea_cache;
`library: cache_dit` (an extra, `pip install -e .[external]`) has dbcache. `options` are the fields of the library's own
configuration, with its own names. `technique: none` sets no hook: the model's own forward alone.

Limits of the libraries: one decision for the whole window, one count of steps for all frames, one noise level (the mean
over the updating frames), and no AR units. diffusers' TaylorSeer finds no attention modules here by default, so its
patterns must be given. Its attention broadcast has one cache for both guidance branches, so it is refused with
guidance. Its FasterCache needs both branches in one batch and is not available here.

Site: inside the model's own forward.
Signal: that of the library.
Memory: that of the library, counted in its state.
Changed: nothing in the library; `technique: none` equals the Original up to rounding (1e-5), since it is another
forward.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

import torch

from baselines.shared.cadence import one_of
from baselines.shared.library_memory import bytes_per_slot
from engine.method import Capabilities, Method, Probe
from engine.row import TRANSFORMER, Decision, Mode, Row, Site

if TYPE_CHECKING:
    from torch import Tensor, nn

    from engine.footprint import Sizes

LIBRARIES = {"diffusers": "baselines.shared.diffusers_hooks", "cache_dit": "baselines.shared.cache_dit_hooks"}
NONE = "none"


@dataclass
class Run:
    """The data of a segment that a library needs."""

    steps: int  # number of forwards of each guidance branch
    branches: int  # number of guidance branches
    sigma: float = 1.0  # noise level of the present row, mean over the updating slots; changes from row to row


class Library(Protocol):
    """A module of this package that controls one library."""

    TECHNIQUES: Mapping[str, Mode]  # {technique: CACHE if it reuses results, PREDICT if it extrapolates them}

    def check(self, technique: str, options: Mapping[str, Any], branches: int) -> None:
        """Raise ValueError for options that the technique does not have, or if the library is not installed."""
        ...

    def enable(self, transformer: nn.Module, technique: str, options: Mapping[str, Any], run: Run) -> None: ...

    def disable(self, transformer: nn.Module) -> None: ...

    def tensors(self, transformer: nn.Module) -> Iterable[Tensor]:
        """The tensors that the hooks hold."""
        ...


@dataclass
class External(Method):
    """Sets a library's hooks on the model and reads from them what was skipped."""

    library: str  # diffusers | cache_dit
    technique: str  # a technique of that library; "none": no hooks
    options: dict[str, Any]  # fields of the library's own configuration; see its documentation

    def __post_init__(self) -> None:
        one_of("library", self.library, *LIBRARIES)
        self.driver: Library = import_module(LIBRARIES[self.library])  # type: ignore[assignment]
        one_of(f"technique of {self.library}", self.technique, NONE, *self.driver.TECHNIQUES)
        self.model: Capabilities | None = None
        self.hooked: nn.Module | None = None
        self.held: list[Tensor] = []
        self.reset()

    @property
    def branchwise(self) -> bool:
        return True

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({TRANSFORMER.kind})

    def check(self, model: Capabilities) -> None:
        super().check(model)
        if self.technique != NONE:
            self.driver.check(self.technique, self.options, len(model.branches))

    @contextmanager
    def attached(self, model: Capabilities) -> Iterator[None]:
        self.model, self.rows = model, Counter(row.segment for row in model.schedule())
        try:
            yield
        finally:
            held = list(self.state())  # `state` is called once more after the video
            self.reset()
            self.model, self.held = None, held

    def reset(self) -> None:
        if self.hooked is not None:
            self.driver.disable(self.hooked)
        self.hooked, self.held = None, []

    def decide(self, part: Row, probe: Probe, branch: str = "") -> Decision:
        if self.technique == NONE:
            return Decision(Mode.RECOMPUTE)
        if self.hooked is None:
            self._hook(part)
        levels = [sigma for sigma, on in zip(part.sigma, part.active, strict=True) if on] or part.sigma
        self.run.sigma = sum(levels) / len(levels)
        return Decision(self.driver.TECHNIQUES[self.technique])

    def _hook(self, part: Row) -> None:
        if self.model is None:
            raise RuntimeError("a library's hooks need a model; call `decide` within the context of `attached`")
        self.run = Run(self.rows[part.segment], len(self.model.branches))
        transformer = self.model.transformer  # type: ignore[attr-defined]
        self.driver.enable(transformer, self.technique, self.options, self.run)
        self.hooked = transformer

    def sites(self, depth: int, row: Row) -> Sequence[Site]:
        return (TRANSFORMER,)

    def footprint(self, sizes: Sizes, depth: int, branches: int) -> float | None:
        return bytes_per_slot(self.technique, self.options, sizes, depth, branches)

    def state(self) -> Iterable[Tensor]:
        return self.held if self.hooked is None else self.driver.tensors(self.hooked)


def tensors_in(roots: Iterable[object], package: str) -> Iterator[Tensor]:
    """Every tensor in `roots`, in containers and in objects of `package`, each once. Modules are not searched."""
    seen: set[int] = set()
    waiting = list(roots)
    while waiting:
        found = waiting.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        if isinstance(found, torch.Tensor):
            yield found
        elif isinstance(found, Mapping):
            waiting += found.values()
        elif isinstance(found, list | tuple | set):
            waiting += found
        elif type(found).__module__.split(".")[0] == package and not isinstance(found, torch.nn.Module):
            waiting += getattr(found, "__dict__", {}).values()  # none if it has __slots__
