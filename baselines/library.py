"""The libraries themselves as rows: diffusers' cache hooks, and cache-dit, on the same transformer and schedule.

    the library's hooks are put on the model's own modules for one video, anew for every segment
    the model's own forward runs under them, guidance branch by guidance branch, told which branch it is
    what they skipped is read off the layers that really ran, never off the library's own counters

`library: diffusers` has `technique` first_block_cache, mag_cache, taylorseer, pyramid_attention_broadcast, sea_cache;
`library: cache_dit` (an extra, `pip install -e .[external]`) has dbcache. `options` are the fields of the library's own
configuration, under its own names. `technique: none` puts no hook on: the model's own forward alone.

Limits that are the library's: one decision for the whole window, one count of steps for all frames, one noise level
(the mean over the updating ones) and no notion of an AR unit. diffusers' TaylorSeer finds no attention by default here,
its patterns must be spelt out; its attention broadcast has one cache for both guidance branches and is refused with
guidance; its FasterCache expects both branches in one batch and is not offered.

Site: inside the model's own forward.
Signal: the library's.
Memory: the library's, counted in its state.
Changed: nothing of the library; `technique: none` equals the Original to rounding (1e-5), since it is another forward.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from torch import Tensor, nn

from baselines.shared.cadence import one_of
from engine.method import Capabilities, Method, Probe
from engine.row import TRANSFORMER, Decision, Mode, Row, Site

LIBRARIES = {"diffusers": "baselines.shared.diffusers_hooks", "cache_dit": "baselines.shared.cache_dit_hooks"}
NONE = "none"


@dataclass
class Run:
    """What a library is told of the segment that begins."""

    steps: int  # forwards of each guidance branch
    branches: int
    sigma: float = 1.0  # of the present row, mean over the updating slots; changes as the loop goes on


class Library(Protocol):
    """A module that drives one library."""

    TECHNIQUES: Mapping[str, Mode]  # and what its stand-ins are: reused or extrapolated

    def check(self, technique: str, options: Mapping[str, Any], branches: int) -> None:
        """Raises ValueError for options that the technique does not have, or if the library is not installed."""
        ...

    def enable(self, transformer: nn.Module, technique: str, options: Mapping[str, Any], run: Run) -> None: ...

    def disable(self, transformer: nn.Module) -> None: ...

    def tensors(self, transformer: nn.Module) -> Iterable[Tensor]:
        """What the hooks hold."""
        ...


@dataclass
class External(Method):
    library: str  # diffusers | cache_dit
    technique: str  # of that library; "none": its hooks stay off
    options: dict[str, Any]  # of the library's own configuration; see its documentation

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
            held = list(self.state())  # the account is read after the video
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
            raise RuntimeError("a library's hooks need a model: decide within `attached`")
        self.run = Run(self.rows[part.segment], len(self.model.branches))
        transformer = self.model.transformer  # type: ignore[attr-defined]
        self.driver.enable(transformer, self.technique, self.options, self.run)
        self.hooked = transformer

    def sites(self, depth: int, row: Row) -> Sequence[Site]:
        return (TRANSFORMER,)

    def state(self) -> Iterable[Tensor]:
        return self.held if self.hooked is None else self.driver.tensors(self.hooked)


def tensors_in(roots: Iterable[object], package: str) -> Iterator[Tensor]:
    """Every tensor that `roots` hold in containers and in objects of `package`, each once; modules are not entered."""
    seen: set[int] = set()
    waiting = list(roots)
    while waiting:
        found = waiting.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        if isinstance(found, Tensor):
            yield found
        elif isinstance(found, Mapping):
            waiting += found.values()
        elif isinstance(found, list | tuple | set):
            waiting += found
        elif type(found).__module__.split(".")[0] == package and not isinstance(found, nn.Module):
            waiting += vars(found).values() if hasattr(found, "__dict__") else ()
