"""Compare every published number with ours: matches, differs, not comparable or not run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reports.claims import NAMES, Claim, claims
from reports.line import Line
from reports.marks import Kind
from reports.metric import BY_NAME
from reports.records import Study
from reports.settings_check import by_definition, obstacle, plan_unlike_paper, unlike_paper
from reports.verdict import MATCHES, Outcome, Verdict, compare
from reports.video import settings

QUALITY = {"vbench", "lpips", "ssim", "psnr"}
# A line of the paper gets the first of these that one of its cells has.
ORDER = (Outcome.DIFFERS, Outcome.MATCHES, Outcome.FLOPS_MATCH, Outcome.NOT_COMPARABLE, Outcome.NOT_RUN)
BY_DEFINITION = Verdict(Outcome.BY_DEFINITION)  # the Original compared with itself; does not count for the line
COUNTED = Verdict(Outcome.FLOPS_MATCH, "counted by a dry run")
ANOTHER_GPU = Verdict(Outcome.NOT_COMPARABLE, "another GPU")
TINY = Verdict(Outcome.NOT_COMPARABLE, "tiny preset")


@dataclass(frozen=True)
class Cell:
    """The paper's number, ours (NaN if there is none), and the verdict."""

    printed: float
    ours: float
    verdict: Verdict


@dataclass(frozen=True)
class Judged:
    """A line of a published table, our line for it, and the verdicts."""

    claim: Claim
    line: Line | None  # of the main table
    cells: Mapping[str, Cell]  # by metric
    verdict: Verdict
    planned: str = ""  # the full-size model whose FLOPs a dry run counted; there is no line then

    @property
    def reproduced(self) -> str:
        """Our line, as printed; empty where there is none."""
        if self.planned:
            return f"{self.planned}: counted by a dry run"
        return f"{self.line.model}: {self.line.name}" if self.line else ""


def judge(study: Study, lines: Sequence[Line]) -> Iterator[Judged]:
    """The claims in the paper's order, each with a verdict per cell and one for the line.

    A claim is judged twice where we have a line of the tiny model and a dry run of the full-size one: no verdict is of
    both.
    """
    for claim in claims():
        line = _find(study, lines, claim)
        full = NAMES[claim.model][0]
        plan = _plan(study, claim) if line is None or line.model != full else {}
        if line or not plan:
            cells = {name: _cell(study, claim, line, name, printed) for name, printed in claim.numbers.items()}
            yield Judged(claim, line, cells, _of_line(cells))
        if plan:
            cells = {name: _cell(study, claim, None, name, printed) for name, printed in claim.numbers.items()}
            cells["flops_pf"] = _counted(plan, claim)
            yield Judged(claim, None, cells, _of_line(cells), planned=full)


def summary(judged: Sequence[Judged]) -> str:
    """One sentence: how many lines of the paper have which verdict."""
    found: dict[tuple[str, str, str], list[Outcome]] = {}
    for one in judged:  # a claim may have two
        found.setdefault((one.claim.table, one.claim.model, one.claim.name), []).append(one.verdict.outcome)
    counts = Counter(min(outcomes, key=ORDER.index) for outcomes in found.values())
    told = ", ".join(
        f"{counts[outcome]} {'match' if outcome is Outcome.MATCHES else outcome.value}"
        for outcome in (Outcome.MATCHES, *(other for other in ORDER if other is not Outcome.MATCHES))
        if counts[outcome]
    )
    return f"{len(found)} published lines: {told}."


def _of_line(cells: Mapping[str, Cell]) -> Verdict:
    """The verdict of a line: the first in `ORDER` that a cell has, with the deciding columns or the first reason.

    "Another GPU" applies to the seconds alone, so any other reason is more informative.
    """
    verdicts = {name: cell.verdict for name, cell in cells.items() if cell.verdict != BY_DEFINITION}  # no evidence
    outcome = next(kind for kind in ORDER if any(verdict.outcome is kind for verdict in verdicts.values()))
    deciding = {name: verdict for name, verdict in verdicts.items() if verdict.outcome is outcome}
    if outcome in (Outcome.MATCHES, Outcome.DIFFERS):
        return Verdict(outcome, ", ".join(BY_NAME[name].title for name in deciding))
    return min(deciding.values(), key=lambda verdict: verdict == ANOTHER_GPU)


def _cell(study: Study, claim: Claim, line: Line | None, name: str, printed: float) -> Cell:
    ours = line.value(name) if line else math.nan
    return Cell(printed, ours, _verdict(study, claim, line, name, ours, printed))


def _counted(plan: Mapping[str, Any], claim: Claim) -> Cell:
    """The PFLOPs that a dry run counted."""
    printed, ours = claim.numbers["flops_pf"], float(plan["flops_pf"]["dense"])
    why = plan_unlike_paper(plan, claim.model)
    verdict = Verdict(Outcome.NOT_COMPARABLE, why) if why else compare("flops_pf", ours, printed)
    return Cell(printed, ours, COUNTED if verdict == MATCHES else verdict)


def _find(study: Study, lines: Sequence[Line], claim: Claim) -> Line | None:
    """The line of the main table that a claim refers to; the full-size model's if there is one."""
    for model in NAMES[claim.model]:
        own = [line for line in lines if (line.model, line.method) == (model, claim.method) and len(line.valid)]
        if claim.fraction:
            own = [line for line in own if _is(_set(study, line).get("fraction"), claim.fraction)]
        elif claim.taus and (stated := [line for line in own if _taus(study, line) == claim.taus]):
            own = stated
        elif claim.method == "original":
            # At the paper's number of frames, where the menu has another, the line is a variant.
            own = sorted(own, key=lambda line: line.variant != "")
        else:
            own = [line for line in own if (line.speed, line.variant) == (claim.speed, "")]
        if len(own) > 1:
            return min(own, key=lambda line: bool(unlike_paper(study, line, claim.model, claim.taus, claim.fraction)))
        if own:
            return own[0]
    return None


def _taus(study: Study, line: Line) -> tuple[float, float] | None:
    method = _set(study, line)
    return (method["tau_cache"], method["tau_predict"]) if {"tau_cache", "tau_predict"} <= set(method) else None


def _set(study: Study, line: Line) -> dict[str, Any]:
    """The method's settings of a line."""
    return settings(study.record(line.records.iloc[0])).get("method") or {}


def _is(value: Any, wanted: float) -> bool:
    return isinstance(value, float) and math.isclose(value, wanted, rel_tol=1e-6)


def _plan(study: Study, claim: Claim) -> dict[str, Any]:
    """The plan that counts the Original's PFLOPs without a run (RESULTS/plan/<model>/original.json); empty if none."""
    identity = {"model": NAMES[claim.model][0], "method": "original", "speed": "", "variant": ""}
    return study.cell_file("plan", identity) if claim.method == "original" and "flops_pf" in claim.numbers else {}


def _verdict(study: Study, claim: Claim, line: Line | None, name: str, ours: float, printed: float) -> Verdict:
    if line is None:
        lost = claim.table == "table2" and claim.unstated and claim.speed != "fast"
        return (
            Verdict(Outcome.NOT_COMPARABLE, "the paper does not state the thresholds")
            if lost
            else Verdict(Outcome.NOT_RUN, f"python run.py experiment={claim.table}")
        )
    if line.model.endswith("_tiny"):
        return TINY
    if line.marked(Kind.RANDOM) and name in QUALITY:
        return Verdict(Outcome.NOT_COMPARABLE, "random weights")
    if math.isnan(ours):
        return Verdict(Outcome.NOT_RUN, line.blanks.get(name, ""))
    if by_definition(claim.method, name):
        return BY_DEFINITION
    if name == "time_s":
        return ANOTHER_GPU
    if claim.unstated:
        return Verdict(Outcome.NOT_COMPARABLE, "the paper does not state the setting")
    why = obstacle(study, line, claim.model, name, claim.taus, claim.fraction)
    return Verdict(Outcome.NOT_COMPARABLE, why) if why else compare(name, ours, printed)
