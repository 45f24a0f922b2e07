"""What an accelerated video will execute, before anything is built: the PFLOP and forwards of a plan.

A method whose decisions depend on the schedule and its settings alone is replayed at full size: every row is decided,
nothing is computed. So is one that decides by a signal of the times, if the checkpoint is there: only the network that
embeds times is read, and runs on the CPU. A method that asks for any other value, such as a velocity, cannot be
replayed, because these tensors have no values. Its count is taken from videos in the store, or from the share of the
Original's FLOPs that its operating point is published to execute. `Own.basis` says which. What is known of nothing
counts every step as computed.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.kept import kept, sources
from engine.ledger import Entry, flops, forwards
from engine.method import TIME_SIGNALS, Method
from engine.row import Row, Site
from engine.weights import WeightsError
from sweep.shipped import shipped

if TYPE_CHECKING:
    from engine.backbone import TimeSignals

UNKNOWN = "; without the model's embedding"  # of times, which decides: fetch the checkpoint for an exact count
EXACT, NOTHING = "exact: every decision replayed", "at most: no step skipped"
WHOLE = "exact: every row is computed"


@dataclass(frozen=True)
class Own:
    """FLOPs in both conventions and forwards that a video of a method executes; forwards are 0 if not known."""

    dense: float
    masked: float
    forwards: int
    basis: str

    @property
    def exact(self) -> bool:
        """Whether it was counted, not estimated."""
        return self.basis.startswith("exact")


def own(model: Any, method: Method, bound: tuple[float, float, int], measured: Sequence[float], share: float) -> Own:
    """The cost of a video of `method`.

    `bound`: dense and masked FLOPs and forwards if no step is skipped. `measured`: dense FLOPs of its videos in the
    store. `share`: of the Original's FLOPs, what the operating point is published to execute; 1 if it says nothing.
    """
    if type(method).decide is Method.decide:
        return Own(*bound, WHOLE)
    if method.decided_by == "schedule" and (found := replayed(model, method)):
        return found
    timed, mark = bool(method.requires & TIME_SIGNALS), ""
    if timed and (files := time_files(model)):
        if found := replayed(model, method, files):
            return found
    elif timed:
        mark = UNKNOWN
    found = _estimate(model, bound, measured, share)
    return replace(found, basis=found.basis + mark)


def time_files(model: Any) -> list[Path]:
    """The files with the model's embedding of times; none if the checkpoint is not there."""
    try:
        found: list[Path] = model.time_files
    except WeightsError:
        return []
    return found


def _estimate(model: Any, bound: tuple[float, float, int], measured: Sequence[float], share: float) -> Own:
    """What a video is expected to execute; arguments as for `own`."""
    if measured:
        ratio = sum(measured) / len(measured) / bound[0]
        return Own(bound[0] * ratio, bound[1] * ratio, 0, f"estimated from {len(measured)} videos in the store")
    if share < 1:
        whole = _original(model)
        return Own(
            whole[0] * share, whole[1] * share, 0, f"estimated: {share:.0%} of the FLOPs, as its row is published"
        )
    return Own(*bound, NOTHING)


def _original(model: Any) -> tuple[float, float]:
    from engine.ledger import plan

    return flops(plan(model.schedule()), model.price)


def replayed(model: Any, method: Method, embedding: Sequence[Path] = ()) -> Own | None:
    """The cost by replaying every decision; None if the method asks for a value that only a forward gives.

    `embedding`: the files with the model's embedding of times, if its signals are to be computed. The answer is kept in
    the user's cache, and that of the menu in the repository: replaying needs torch, which takes seconds to import.
    """
    what = f"plan of {type(method).__module__}.{method!r} on {model.settings!r}"
    files = [*sources("engine", "models", "scope", "baselines", "sweep"), *embedding]

    def found() -> str:
        return shipped(what, model, method, counted, embedding) or counted(model, method, embedding)

    told = json.loads(kept(what, files, found))
    return Own(**told) if told else None


def counted(model: Any, method: Method, embedding: Sequence[Path] = ()) -> str:
    """What `replayed` gives, as JSON, by replaying now."""
    try:
        entries = ledger(model, method, model.time_signals() if embedding else None)
    except (NotImplementedError, RuntimeError):  # it read a tensor without values, or a module; or a broken file
        return "null"
    dense, masked = flops(entries, model.price)
    return json.dumps(asdict(Own(dense, masked, forwards(entries, len(model.branches)), EXACT)))


def ledger(model: Any, method: Method, signals: TimeSignals | None = None) -> list[Entry]:
    """The ledger that `method` would write. Velocities and hidden states are tensors without values.

    `signals`: what the model gives for its signals of times; without it they have no values either.
    """
    from engine.loop import generate
    from sweep.calibration.rehearsal import Rehearsal

    found: list[Entry] = []
    method.reset()
    thin = Thin(method, model.offers)
    try:
        vars(method)["sites"] = thin.sites
        stage = Rehearsal(
            Blank(model, signals), None, model.branches[:1] if not method.branchwise else model.branches, "meta"
        )
        generate(stage, method, None, 0, found)
    finally:
        vars(method).pop("sites", None)
        method.reset()
    return [replace(entry, sites=thin.all_of(entry.sites)) for entry in found]


class Thin:
    """The sites of a method with one block in place of all that have the same kind and cover one block each.

    A method that decides by the schedule treats these alike, so one of each kind shows what happens at all.
    """

    def __init__(self, method: Method, offers: Collection[str]) -> None:
        self._sites, self._offers = method.sites, offers
        self._stand_for: dict[str, list[Site]] = {}  # by the text of the site that is shown

    def sites(self, depth: int, row: Row) -> list[Site]:
        """What Method.sites gives, thinned."""
        shown: dict[str, Site] = {}
        groups: dict[str, list[Site]] = {}
        for site in self._sites(depth, row):
            if site.kind == "cross_attention" and site.kind not in self._offers:
                continue  # the model has it in its attention, and asks no method about it
            name = site.kind if site.kind != "blocks" and len(site.span) == 1 else str(site)
            shown.setdefault(name, site)
            groups.setdefault(name, []).append(site)
        self._stand_for.update({str(shown[name]): group for name, group in groups.items()})
        return list(shown.values())

    def all_of(self, sites: Sequence[str]) -> tuple[str, ...]:
        """The texts of all sites that `sites` stand for, adjacent ones joined."""
        from engine.visit import joined

        return tuple(map(str, joined([one for site in sites for one in self._stand_for[site]])))


class Blank:
    """A backbone that knows its plan and holds nothing."""

    def __init__(self, plan: Any, signals: TimeSignals | None = None) -> None:
        self.plan, self.signals = plan, signals

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plan, name)

    def start(self, text: Any, seed: int) -> Any:
        """Latents of one value per slot, as long as the schedule."""
        import torch

        return torch.zeros(max(row.slots.stop for row in self.plan.schedule()), 1, 1, 1)

    def open(self, latents: Any, row: Row) -> Any:
        """Nothing to draw."""
        return latents

    def probe(self, name: str, latents: Any, row: Row) -> Any:
        """A signal of the times if they are known; else one without values: who reads it decides by content."""
        import torch

        if self.signals and name in TIME_SIGNALS:
            return self.signals(name, row)
        return torch.zeros(len(row.slots), 1, device="meta")
