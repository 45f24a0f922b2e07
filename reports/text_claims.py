"""Numbers of the paper outside its tables, and counts that need no weights: ours beside them, with verdicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from reports import published
from reports.line import Line
from reports.records import Study
from reports.report import Report
from reports.settings_check import plan_unlike_paper, unlike_paper
from reports.trajectory import measured, saving
from reports.verdict import MATCHES, Outcome, Verdict, compare
from reports.verdicts import TINY

NO_PLAN = Verdict(Outcome.NOT_RUN, "python run.py experiment=plan counts it without weights")
FULL = {"skyreels": "skyreels", "magi": "magi1"}
FRAMES, SELECTIVE, PREDICTOR = "model.frames", "method.selective", "method.predictor"  # settings of `Line.changed`


@dataclass(frozen=True)
class Other:
    """A number of the paper's text or figures."""

    what: str
    printed: str
    ours: str
    verdict: Verdict


def counts(study: Study) -> list[Other]:
    """Iterations, forwards, FLOPs and parameters of the full-size Originals (RESULTS/plan/<model>/original.json)."""
    found = []
    for line in published.table("counts").to_dict("records"):
        plan: Any = _plan(study, line["model"])
        ours = plan
        for name in line["key"].split("."):
            ours = (ours or {}).get(name)
        what = f"{line['model']}: {line['key'].partition('.')[0].replace('_', ' ').replace('flops pf', 'PFLOP')}"
        verdict = NO_PLAN
        if ours is not None:
            why = plan_unlike_paper(plan, published.MODELS[line["model"]])
            verdict = Verdict(Outcome.NOT_COMPARABLE, why) if why else _count(float(ours), float(line["value"]))
        shown = "" if ours is None else f"{ours:,.6g}" if isinstance(ours, float) else f"{ours:,}"
        printed = f"{float(line['value']):,.10g} ({line['source']})"
        found.append(Other(what, printed, shown, verdict))
    return found


def _plan(study: Study, model: str) -> dict[str, Any]:
    return study.cell_file("plan", {"model": model, "method": "original", "speed": "", "variant": ""})


def _count(ours: float, printed: float) -> Verdict:
    if printed % 1:
        return compare("flops_pf", ours, printed)
    return MATCHES if ours == printed else _differs(f"{ours - printed:+,.10g}")


def _differs(by: str) -> Verdict:
    return Verdict(Outcome.DIFFERS, by)


def others(report: Report) -> list[Other]:
    """A line per number of published/other.csv, in its order."""
    printed = dict(published.table("other")[["key", "value"]].itertuples(index=False, name=None))
    return [Other(what, printed[key], *judge(report, key, printed[key])) for key, (what, judge) in LINES.items()]


Judge = Callable[[Report, str, str], tuple[str, Verdict]]


def _memory(report: Report, key: str, printed: str) -> tuple[str, Verdict]:
    """Peak memory at the published length; a tiny model's is shown but not compared."""
    _, _, when, model, method, _ = [*key.split("_"), ""][:6]
    long = when == "long"
    method = "scope" if long else method
    lines = [
        line
        for line in report.lines
        if line.method == method and line.model.startswith(model) and line.known("peak_memory_gb")
    ]
    lines = _departing(lines, FRAMES) if long else [line for line in lines if not line.variant]
    if not lines:
        return "", Verdict(Outcome.NOT_RUN, "python run.py experiment=fig9")
    line = _full_size_first(lines)[0]
    values = [one.value("peak_memory_gb") for one in lines if one.model == line.model]
    ours = max(values) if long else values[0]
    if line.model != FULL[model]:
        return f"{ours:.3g}", TINY
    if why := "" if long else unlike_paper(report.study, line, model):
        return f"{ours:.3g}", Verdict(Outcome.NOT_COMPARABLE, why)
    low, _, high = printed.partition("-")
    if high:
        inside = float(low) <= ours <= float(high)
        return f"{ours:.3g}", MATCHES if inside else _differs(f"{ours - float(low):+.3g} from {low}")
    return f"{ours:.3g}", compare("peak_memory_gb", ours, float(printed))


def _departing(lines: Sequence[Line], setting: str) -> list[Line]:
    """The lines in which only `setting` differs from the operating point."""
    return [line for line in lines if set(line.changed) == {setting}]


def _full_size_first(lines: Sequence[Line]) -> list[Line]:
    return sorted(lines, key=lambda line: line.model.endswith("_tiny"))


def _selective(report: Report, key: str, printed: str) -> tuple[str, Verdict]:
    fast = _fast(report)
    lines = [line for line in fast if not line.variant]
    if "without" in key:
        lines = [line for line in _departing(fast, SELECTIVE) if line.changed[SELECTIVE] == "none"]
    unstated = Verdict(Outcome.NOT_COMPARABLE, "the paper does not state the thresholds")
    return _lpips(lines, lambda values: values[0], lambda ours: unstated)


def _spread(report: Report, key: str, printed: str) -> tuple[str, Verdict]:
    """The range of LPIPS over predictors, which must be at most the paper's."""
    most = float(printed.strip("<="))
    return _lpips(
        _departing(_fast(report), PREDICTOR),
        lambda values: max(values) - min(values),
        lambda ours: MATCHES if ours <= most else _differs(f"{ours - most:+.4f}"),
    )


def _fast(report: Report) -> list[Line]:
    """SCOPE's fast point on SkyReels-V2 and its variants, if they have LPIPS."""
    return [
        line
        for line in report.lines
        if (line.method, line.speed) == ("scope", "fast") and line.model.startswith("skyreels") and line.known("lpips")
    ]


def _lpips(
    lines: Sequence[Line], of: Callable[[list[float]], float], judge: Callable[[float], Verdict]
) -> tuple[str, Verdict]:
    """`of` the LPIPS of some lines, of the full-size model if it is among them, and `judge`'s verdict."""
    if not lines:
        return "", Verdict(Outcome.NOT_RUN, "python run.py experiment=ablations")
    model = _full_size_first(lines)[0].model
    ours = of([line.value("lpips") for line in lines if line.model == model])
    return f"{ours:.4f}", judge(ours) if model == FULL["skyreels"] else TINY


def _deviation(report: Report, key: str, printed: str) -> tuple[str, Verdict]:
    found = {part["model"]: part for part in measured(report.study.root) if part["model"].startswith("skyreels")}
    if not found:
        return "", Verdict(Outcome.NOT_RUN, "python run.py experiment=fig2")
    model = FULL["skyreels"] if FULL["skyreels"] in found else next(iter(found))
    ours = 100 * saving(found[model], "newton2")
    if model != FULL["skyreels"]:
        return f"{ours:.0f}", TINY
    return f"{ours:.0f}", MATCHES if abs(ours - float(printed)) <= 5 else _differs(f"{ours - float(printed):+.0f}")


def _totals(report: Report, key: str, printed: str) -> tuple[str, Verdict]:
    """The totals of Figure 6, which no counter of either schedule gives; ours are shown instead."""
    plans = {model: _plan(report.study, model) for model in FULL.values()}
    if not all(plans.values()):
        return "", NO_PLAN
    magi, sky = plans["magi1"], plans["skyreels"]
    ours = (
        f"{magi['forwards']} forwards, {magi['chunk_steps']} chunk-steps; {sky['iterations']} iterations, "
        f"{sky['forwards']} forwards"
    )
    theirs = {int(part) for part in printed.strip('"').split(";")}
    mine = {magi["forwards"], magi["chunk_steps"], sky["iterations"], sky["forwards"]}
    return ours, MATCHES if theirs <= mine else _differs("no setting gives the printed totals")


LINES: dict[str, tuple[str, Judge]] = {
    "peak_mem_short_skyreels_original_GB": ("SkyReels-V2, 257 frames, Original: peak memory (GB)", _memory),
    "peak_mem_short_skyreels_scope_GB": ("SkyReels-V2, 257 frames, SCOPE: peak memory (GB)", _memory),
    "peak_mem_short_magi_original_GB": ("MAGI-1, 240 frames, Original: peak memory (GB)", _memory),
    "peak_mem_short_magi_scope_GB": ("MAGI-1, 240 frames, SCOPE: peak memory (GB)", _memory),
    "peak_mem_long_skyreels_range_GB": ("SkyReels-V2, long videos: peak memory (GB)", _memory),
    "peak_mem_long_magi_range_GB": ("MAGI-1, long videos: peak memory (GB)", _memory),
    "lpips_skyreels_fast_with_selective": ("SCOPE-fast on SkyReels-V2 with selective computation: LPIPS", _selective),
    "lpips_skyreels_fast_without_selective": ("SCOPE-fast on SkyReels-V2 without it: LPIPS", _selective),
    "fig2_mean_abs_dev_reduction_pct": ("Prediction against reuse: mean absolute deviation lower by (%)", _deviation),
    "fig6_totals": ("Decisions in Figure 6 (MAGI-1; SkyReels-V2)", _totals),
    "predictor_lpips_spread_skyreels": ("Predictors on SkyReels-V2: spread of LPIPS", _spread),
}
