"""Several methods at once, each at its own sites: the velocity, a guidance branch, spans of blocks, branches of blocks.

    parts, from the outermost site to the innermost:   velocity > guidance > blocks > attention, feed_forward
    an outer part skips its site:   the inner parts are not reached and are told that nothing was computed
    an outer part computes:         the inner parts decide; the outer part keeps the result, approximations included

It is useful if the parts save different computations: FasterCache's CFG cache saves a guidance branch, SCOPE whole
steps. Two parts at the same site (for example overlapping spans of blocks) are an error.

Site: those of its parts.
Signal: those of its parts.
Memory: the sum of its parts.
Changed: not from a paper; an anchor that an outer part keeps may hold an inner part's approximation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from importlib import import_module
from itertools import combinations
from typing import TYPE_CHECKING, Any

from engine.fingerprint import code_of
from engine.method import Capabilities, Method, Probe
from engine.row import Decision, Mode, Row, Site

if TYPE_CHECKING:
    from torch import Tensor

DEPTHS = ("velocity", "guidance", "blocks")  # from the outermost inwards; all other kinds are inside a block


@dataclass
class Composite(Method):
    """Asks the part that owns a site."""

    parts: dict[str, dict[str, Any]]  # {name: settings of a method, with `_target_`}; the outermost site first

    def __post_init__(self) -> None:
        if len(self.parts) < 2:
            raise ValueError(f"parts needs at least two methods, got {len(self.parts)}")
        self.methods = {name: build(name, dict(settings)) for name, settings in self.parts.items()}
        # these settings are part of a record's key, so they include the code of each part
        self.parts = {name: {**given, "code": code_of(type(self.methods[name]))} for name, given in self.parts.items()}
        grains = {name: method.grain for name, method in self.methods.items() if _decides(method)}
        if len(set(grains.values())) > 1:
            raise ValueError(f"all parts must decide per row, or all per unit; got {grains}")
        self._grain = next(iter(grains.values()), "row")
        self.reset()

    @property
    def grain(self) -> str:
        return self._grain

    @property
    def branchwise(self) -> bool:
        return any(method.branchwise for method in self.methods.values())

    def check(self, model: Capabilities) -> None:
        for method in self.methods.values():
            method.check(model)
        found = {name: method.sites(model.depth, model.schedule()[0]) for name, method in self.methods.items()}
        for (one, mine), (other, theirs) in combinations(found.items(), 2):
            _check_apart(one, mine, other, theirs)
        levels = {_level(site) for sites in found.values() for site in sites}
        if levels & {0, 1} and len(levels) > 1 and self.grain == "unit":
            raise ValueError("a forward of a part of the units has no sites inside; set decide_per=row in every part")
        if levels & {0, 1} and len(levels) > 1 and "nested" not in model.offers:
            raise ValueError(
                f"{model.name} has no sites inside a forward if a method uses the velocity; combine methods at blocks "
                "or their branches only"
            )

    def reschedule(self, settings: Any) -> Any:
        for method in self.methods.values():
            settings = method.reschedule(settings)
        return settings

    @contextmanager
    def attached(self, model: Capabilities) -> Iterator[None]:
        with ExitStack() as stack:
            for method in self.methods.values():
                stack.enter_context(method.attached(model))
            yield

    def reset(self) -> None:
        for method in self.methods.values():
            method.reset()
        self.own: dict[tuple[str, str, int], Decision] = {}  # by part, guidance branch and first slot
        self.owner: dict[tuple[str, int], str] = {}
        self.level: dict[str, int] = {}
        self.row = (-1, "")  # iteration, and the branch in which parts that are not branchwise decide

    def narrow(self, row: Row) -> Row:
        for method in self.methods.values():
            row = method.narrow(row)
        return row

    def decide(self, part: Row, probe: Probe, branch: str = "") -> Decision:
        if part.iteration != self.row[0]:
            self.row = part.iteration, branch
        found = []
        for name, method in self.methods.items():
            key = self._key(name, part, branch)
            if method.branchwise or branch == self.row[1]:
                self.own[key] = method.decide(part, probe, key[1])
            found.append(self.own[key])
        lead = next((d for d in found if d.mode is not Mode.RECOMPUTE), found[0])
        return replace(lead, mode=Mode.RECOMPUTE if lead.mode is Mode.RECOMPUTE else Mode.CACHE)

    def settle(self, part: Row, decision: Decision, branch: str = "") -> None:
        for name, method in self.methods.items():
            if not method.branchwise and branch != self.row[1]:
                continue
            key = self._key(name, part, branch)
            if decision.mode is Mode.RECOMPUTE:
                self.own[key] = decision
            reached = not any(
                self.own[self._key(outer, part, branch)].mode is not Mode.RECOMPUTE
                for outer, level in self.level.items()
                if level < self.level.get(name, 0)
            )
            method.settle(part, self.own[key] if reached else Decision(Mode.CACHE, why="not reached"), key[1])

    def _key(self, name: str, part: Row, branch: str) -> tuple[str, str, int]:
        return name, branch if self.methods[name].branchwise else "", part.slots.start

    def sites(self, depth: int, row: Row) -> Sequence[Site]:
        found = {name: method.sites(depth, row) for name, method in self.methods.items()}
        self.owner = {(site.kind, site.span.start): name for name, sites in found.items() for site in sites}
        self.level = {name: min(map(_level, sites), default=0) for name, sites in found.items()}
        return [site for sites in found.values() for site in sites]

    def revise(self, site: Site, part: Row, decision: Decision) -> Decision:
        name = self.owner[site.kind, site.span.start]
        own = self.own[self._key(name, part, site.branch.partition("+")[0])]
        return own if own.mode is Mode.RECOMPUTE else self.methods[name].revise(site, part, own)

    def keep(self, site: Site, part: Row, x: Tensor, out: Tensor) -> None:
        self.methods[self.owner[site.kind, site.span.start]].keep(site, part, x, out)

    def fill(self, site: Site, part: Row, mode: Mode, x: Tensor) -> Tensor:
        return self.methods[self.owner[site.kind, site.span.start]].fill(site, part, mode, x)

    def rank(self, keys: Tensor, queries: Tensor) -> Tensor:
        """By the first part that overrides `rank`."""
        own = [method for method in self.methods.values() if type(method).rank is not Method.rank]
        return own[0].rank(keys, queries) if own else super().rank(keys, queries)

    def state(self) -> Iterable[Tensor]:
        return (tensor for method in self.methods.values() for tensor in method.state())

    def counters(self) -> dict[str, int]:
        return {f"{name}: {what}": n for name, m in self.methods.items() for what, n in m.counters().items()}


def build(name: str, settings: dict[str, Any]) -> Method:
    """A method from its settings. Raises ValueError with the name of the part and the fault."""
    target = str(settings.pop("_target_", ""))
    settings.pop("code", None)
    module, _, attribute = target.rpartition(".")
    try:
        kind = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"parts.{name}._target_={target!r} cannot be imported: {error}") from error
    if not (isinstance(kind, type) and issubclass(kind, Method) and is_dataclass(kind)):
        raise ValueError(f"parts.{name}._target_: got {target}, want a dataclass derived from engine.method.Method")
    known = [field.name for field in fields(kind)]
    for key, value in settings.items():
        if key not in known:
            raise ValueError(f"parts.{name}.{key} is no setting of {kind.__name__}; there are: {', '.join(known)}")
        if value == "???":
            raise ValueError(f"parts.{name}.{key} has no value; set method.parts.{name}.{key}")
    try:
        made = kind(**settings)
    except (TypeError, ValueError) as error:
        raise ValueError(f"parts.{name}: {error}") from error
    assert isinstance(made, Method)
    return made


def _decides(method: Method) -> bool:
    """Whether a method makes decisions; one that only narrows does not."""
    return type(method).decide is not Method.decide


def _level(site: Site) -> int:
    return DEPTHS.index(site.kind) if site.kind in DEPTHS else len(DEPTHS)


def _check_apart(one: str, mine: Sequence[Site], other: str, theirs: Sequence[Site]) -> None:
    for a in mine:
        for b in theirs:
            same = a.kind == b.kind and (not a.span or set(a.span) & set(b.span))
            if same:
                raise ValueError(f"parts {one} and {other} both use {a if a == b else f'{a} and {b}'}; remove one")
    if mine and theirs and min(map(_level, mine)) > min(map(_level, theirs)):
        raise ValueError(f"the sites of part {other} enclose those of {one}; put {other} first")
