"""What the paper says outside of its tables, and what can be counted without weights: ours beside it, and a verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from reports import published
from reports.records import Study
from reports.settings_check import plan_unlike_paper, unlike_paper
from reports.trajectory import measured, saving
from reports.verdicts import compare

NO_PLAN = "not run: python run.py experiment=plan counts it without weights"
FULL = {"skyreels": "skyreels", "magi": "magi1"}


@dataclass(frozen=True)
class Other:
    """A number of the paper's text or figures."""

    what: str
    printed: str
    ours: str
    verdict: str


def counts(study: Study) -> list[Other]:
    """Iterations, forwards, FLOPs and parameters of the full-size Originals (RESULTS/plan/<model>/original.json)."""
    found = []
    for line in published.table("counts").to_dict("records"):
        plan: Any = _plan(study, line["model"])
        ours = plan
        for name in line["key"].split("."):
            ours = (ours or {}).get(name)
        what = f"{line['model']}: {line['key'].partition('.')[0].replace('_', ' ').replace('flops pf', 'PFLOP')}"
        why = plan_unlike_paper(plan, published.MODELS[line["model"]])
        said = (
            NO_PLAN if ours is None else f"not comparable: {why}" if why else _count(float(ours), float(line["value"]))
        )
        shown = "" if ours is None else f"{ours:,.6g}" if isinstance(ours, float) else f"{ours:,}"
        printed = f"{float(line['value']):,.10g} ({line['source']})"
        found.append(Other(what, printed, shown, said))
    return found


def _plan(study: Study, model: str) -> dict[str, Any]:
    return study.cell_file("plan", {"model": model, "method": "original", "speed": "", "variant": ""})


def _count(ours: float, printed: float) -> str:
    return (
        compare("flops_pf", ours, printed)
        if printed % 1
        else "matches"
        if ours == printed
        else f"differs: {ours - printed:+,.10g}"
    )


def others(study: Study, frame: pd.DataFrame) -> list[Other]:
    """A line per number of published/other.csv, in its order."""
    printed = dict(published.table("other")[["key", "value"]].itertuples(index=False, name=None))
    return [Other(what, printed[key], *judge(study, frame, key, printed[key])) for key, (what, judge) in LINES.items()]


Judge = Callable[[Study, pd.DataFrame, str, str], tuple[str, str]]


def _memory(study: Study, frame: pd.DataFrame, key: str, printed: str) -> tuple[str, str]:
    """Peak memory of the published length; of a tiny model, ours is shown and not compared."""
    _, _, when, model, method, _ = [*key.split("_"), ""][:6]
    method = "scope" if when == "long" else method
    rows = frame[(frame["method"] == method) & frame["model"].str.startswith(model) & frame["peak_memory_gb"].notna()]
    rows = rows[rows["variant"].str.startswith("frames=")] if when == "long" else rows[rows["variant"] == ""]
    if rows.empty:
        return "", "not run: python run.py experiment=fig9"
    line = rows.sort_values("model", key=lambda names: names.str.endswith("_tiny")).iloc[0]
    ours = float(
        line["peak_memory_gb"] if when == "short" else rows[rows["model"] == line["model"]]["peak_memory_gb"].max()
    )
    if line["model"] != FULL[model]:
        return f"{ours:.3g}", "not comparable: tiny preset"
    if why := unlike_paper(study, line, model) if when == "short" else "":
        return f"{ours:.3g}", f"not comparable: {why}"
    low, _, high = printed.partition("-")
    if high:
        inside = float(low) <= ours <= float(high)
        return f"{ours:.3g}", "matches" if inside else f"differs: {ours - float(low):+.3g} from {low}"
    return f"{ours:.3g}", compare("peak_memory_gb", ours, float(printed))


def _selective(study: Study, frame: pd.DataFrame, key: str, printed: str) -> tuple[str, str]:
    return _lpips(frame, "selective=none" if "without" in key else "", lambda rows: float(rows.iloc[0]), float(printed))


def _spread(study: Study, frame: pd.DataFrame, key: str, printed: str) -> tuple[str, str]:
    """The range of LPIPS over predictors must be as small as the paper says."""
    return _lpips(frame, "predictor=", lambda rows: float(rows.max() - rows.min()), float(printed.strip("<=")), True)


def _lpips(
    frame: pd.DataFrame, variant: str, of: Callable[[pd.Series], float], printed: float, most: bool = False
) -> tuple[str, str]:
    rows = frame[(frame["method"] == "scope") & (frame["speed"] == "fast") & frame["lpips"].notna()]
    rows = rows[rows["variant"].str.startswith(variant) if variant else rows["variant"] == ""]
    rows = rows[rows["model"].str.startswith("skyreels")]
    if rows.empty:
        return "", "not run: python run.py experiment=ablations"
    model = sorted(rows["model"], key=lambda name: name.endswith("_tiny"))[0]
    ours = of(rows[rows["model"] == model]["lpips"])
    if model != FULL["skyreels"]:
        return f"{ours:.4f}", "not comparable: tiny preset"
    if most:
        return f"{ours:.4f}", "matches" if ours <= printed else f"differs: {ours - printed:+.4f}"
    return f"{ours:.4f}", "not comparable: the paper does not state the thresholds"


def _deviation(study: Study, frame: pd.DataFrame, key: str, printed: str) -> tuple[str, str]:
    found = {part["model"]: part for part in measured(study.root) if part["model"].startswith("skyreels")}
    if not found:
        return "", "not run: python run.py experiment=fig2"
    model = FULL["skyreels"] if FULL["skyreels"] in found else next(iter(found))
    ours = 100 * saving(found[model], "newton2")
    if model != FULL["skyreels"]:
        return f"{ours:.0f}", "not comparable: tiny preset"
    return f"{ours:.0f}", "matches" if abs(ours - float(printed)) <= 5 else f"differs: {ours - float(printed):+.0f}"


def _totals(study: Study, frame: pd.DataFrame, key: str, printed: str) -> tuple[str, str]:
    """Figure 6 prints totals that no counter of either schedule gives: ours are said instead."""
    plans = {model: _plan(study, model) for model in FULL.values()}
    if not all(plans.values()):
        return "", NO_PLAN
    magi, sky = plans["magi1"], plans["skyreels"]
    ours = (
        f"{magi['forwards']} forwards, {magi['chunk_steps']} chunk-steps; {sky['iterations']} iterations, "
        f"{sky['forwards']} forwards"
    )
    theirs = {int(part) for part in printed.strip('"').split(";")}
    mine = {magi["forwards"], magi["chunk_steps"], sky["iterations"], sky["forwards"]}
    return ours, "matches" if theirs <= mine else "differs: no setting gives the printed totals"


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
