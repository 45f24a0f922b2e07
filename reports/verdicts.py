"""Every published cell beside what this folder reproduces of it: matches, differs, not comparable or not run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from reports import published
from reports.metric import BY_NAME
from reports.records import ROW, Study, settings
from reports.settings_check import by_definition, obstacle, plan_unlike_paper, unlike_paper

TOLERANCE = {  # how far from the printed number still matches; a share of it where `relative`
    "speedup": (0.05, True),
    "flops_pf": (0.005, True),
    "flops_speedup": (0.01, True),
    "vbench": (0.5, False),
    "lpips": (0.02, False),
    "ssim": (0.02, False),
    "psnr": (0.5, False),
    "peak_memory_gb": (0.05, True),
}
QUALITY = {"vbench", "lpips", "ssim", "psnr"}
ORDER = (
    "differs",
    "matches",
    "not comparable",
    "not run",
)  # the verdict of a row is the first that one of its cells has
BY_DEFINITION = "by definition"  # the Original against itself; left out of the verdict of its row
NAMES = {"skyreels": ("skyreels", "skyreels_tiny"), "magi": ("magi1", "magi1_tiny")}  # ours, the full size first
POINTS = {  # the operating points that stand for rows of Table 2, where they are not called row1, row2, ...
    ("skyreels", "3(core)"): "fast",
    ("magi", "1"): "slow",
    ("magi", "2(core)"): "fast",
}
KEPT = {"skyreels": 10 / 50, "magi": 20 / 64}  # of the steps, in Table 12


@dataclass(frozen=True)
class Claim:
    """A row that the paper prints, and where ours would be."""

    table: str
    row: str  # as the paper names it
    model: str  # "skyreels" or "magi"
    numbers: dict[str, float]
    method: str
    speed: str = ""
    taus: tuple[float, float] | None = None  # the thresholds that the row is of, where the paper states them
    unstated: bool = False  # the paper does not say with which setting the row was made
    fraction: float = 0.0  # of the steps that a reduced-step row keeps


def claims() -> Iterator[Claim]:
    """The 35 rows of Tables 1, 2 and 12 in the paper's order."""
    ours = {theirs: name for name, theirs in published.METHODS.items()}
    for line in published.table("table1").to_dict("records"):
        name, _, speed = line["method"].partition("-")
        if line["method"] == published.ONE_ROW:
            name, speed = line["method"], "fast"  # our slow point is the same
        if line["method"] == "SCOPE-fast":
            speed = "paper"  # its core configuration; our fast point is tuned on the tiny models
        unstated = name not in ("Original",)
        yield Claim("table1", line["method"], line["model"], _numbers(line), ours[name], speed, unstated=unstated)
    for line in published.table("table2").to_dict("records"):
        taus = None if "?" in line["tau_c"] else (float(line["tau_c"]), float(line["tau_p"]))
        row = f"{line['row']}: {line['tau_c']}, {line['tau_p']}"
        speed = POINTS.get((line["model"], line["row"]), f"row{line['row'][0]}")
        yield Claim("table2", row, line["model"], _numbers(line), "scope", speed, taus, unstated=taus is None)
    for line in published.table("table12").to_dict("records"):
        name, _, steps = line["config"].partition("-")
        whole = steps in ("50step", "64step")
        method = "scope" if name == "SCOPE" else "original" if whole else "reduced_steps"
        speed = "fast" if method == "scope" else ""
        fraction = KEPT[line["model"]] if method == "reduced_steps" else 0.0
        yield Claim(
            "table12", line["config"], line["model"], _numbers(line), method, speed, None, method == "scope", fraction
        )


def judge(study: Study, frame: pd.DataFrame) -> pd.DataFrame:
    """A line per claim: what the paper printed, what this folder has, a verdict per cell and one for the row."""
    return pd.DataFrame([_judge(study, frame, claim) for claim in claims()])


def summary(verdicts: pd.DataFrame) -> str:
    """One sentence: how many rows of the paper have which verdict."""
    counts = verdicts["verdict"].value_counts()
    told = ", ".join(
        f"{counts[verdict]} {'match' if verdict == 'matches' else verdict}"
        for verdict in ("matches", "differs", "not comparable", "not run")
        if counts.get(verdict)
    )
    return f"{len(verdicts)} published rows: {told}."


def _numbers(line: dict[str, str]) -> dict[str, float]:
    return {ours: float(line[theirs]) for theirs, ours in published.COLUMNS.items() if line.get(theirs)}


def _judge(study: Study, frame: pd.DataFrame, claim: Claim) -> dict[str, Any]:
    found = _find(study, frame, claim)
    line: dict[str, Any] = {
        "table": claim.table,
        "model": claim.model,
        "row": claim.row,
        "reproduced": "" if found is None else f"{found['model']}: {found['name']}",
    }
    verdicts = {}
    for name, printed in claim.numbers.items():
        plan = _planned(study, claim, name)
        if plan and (found is None or found["model"] != NAMES[claim.model][0]):
            ours, why = float(plan["flops_pf"]["dense"]), plan_unlike_paper(plan, claim.model)
            verdicts[name] = f"not comparable: {why}" if why else compare(name, ours, printed)
        else:
            ours = math.nan if found is None else float(found[name])
            verdicts[name] = _verdict(study, claim, found, name, ours, printed)
        line |= {f"paper_{name}": printed, name: ours, f"verdict_{name}": verdicts[name]}
    verdicts = {name: v for name, v in verdicts.items() if v != BY_DEFINITION}  # no evidence
    line["verdict"] = next(kind for kind in ORDER if any(v.startswith(kind) for v in verdicts.values()))
    deciding = {name: v for name, v in verdicts.items() if v.startswith(line["verdict"])}
    said = line["verdict"] in ("matches", "differs")
    line["why"] = ", ".join(BY_NAME[name].title for name in deciding) if said else _reason(*deciding.values())
    return line


def _reason(*verdicts: str) -> str:
    """The first reason; another GPU concerns the seconds alone, so any other tells more."""
    return min((verdict.partition(": ")[2] for verdict in verdicts), key=lambda why: why == "another GPU")


def _find(study: Study, frame: pd.DataFrame, claim: Claim) -> pd.Series | None:
    """The row of the main table that a claim speaks of, of the full-size model if there is one."""
    for model in NAMES[claim.model]:
        rows = frame[(frame["model"] == model) & (frame["method"] == claim.method) & (frame["videos"] > 0)]
        if claim.fraction:
            rows = _where(rows, lambda line: _is(_set(study, line).get("fraction"), claim.fraction))
        elif claim.taus and len(stated := _where(rows, lambda line: _taus(study, line) == claim.taus)):
            rows = stated
        elif claim.method == "original":  # the paper's frames may not be those of the menu, and then the row has a name
            rows = _first(rows, (rows["variant"] == "").to_numpy(bool))
        else:
            rows = rows[(rows["speed"] == claim.speed) & (rows["variant"] == "")]
        if len(rows) == 1:
            return rows.iloc[0]
        if len(rows):
            papers = [
                not unlike_paper(study, line, claim.model, claim.taus, claim.fraction) for _, line in rows.iterrows()
            ]
            return _first(rows, np.array(papers, bool)).iloc[0]
    return None


def _first(rows: pd.DataFrame, wanted: np.ndarray) -> pd.DataFrame:
    """The rows with the `wanted` ones at the front, in their order."""
    return pd.concat([rows[wanted], rows[~wanted]])


def _where(rows: pd.DataFrame, holds: Callable[[pd.Series], bool]) -> pd.DataFrame:
    return rows[np.array([holds(line) for _, line in rows.iterrows()], bool)]


def _taus(study: Study, line: pd.Series) -> tuple[float, float] | None:
    method = _set(study, line)
    return (method["tau_cache"], method["tau_predict"]) if {"tau_cache", "tau_predict"} <= set(method) else None


def _set(study: Study, line: pd.Series) -> dict[str, Any]:
    """The method's settings of a row of the main table."""
    video = study.videos[(study.videos[ROW] == line[ROW]).all(axis=1)].iloc[0]
    return settings(study.record(video)).get("method") or {}


def _is(value: Any, wanted: float) -> bool:
    return isinstance(value, float) and math.isclose(value, wanted, rel_tol=1e-6)


def _planned(study: Study, claim: Claim, name: str) -> dict[str, Any]:
    """The Original's PFLOPs need no run: a dry run in RESULTS/plan/<model>/original.json counts them; else empty."""
    row = {"model": NAMES[claim.model][0], "method": "original", "speed": "", "variant": ""}
    return study.cell_file("plan", row) if claim.method == "original" and name == "flops_pf" else {}


def _verdict(study: Study, claim: Claim, found: pd.Series | None, name: str, ours: float, printed: float) -> str:
    if found is None:
        lost = claim.table == "table2" and claim.unstated and claim.speed != "fast"
        return (
            "not comparable: the paper does not state the thresholds"
            if lost
            else f"not run: python run.py experiment={claim.table}"
        )
    if found["model"].endswith("_tiny"):
        return "not comparable: tiny preset"
    if "random weights" in found["marks"] and name in QUALITY:
        return "not comparable: random weights"
    if math.isnan(ours):
        reasons = [why for why in found["missing"].split("; ") if why.startswith(BY_NAME[name].title)]
        return f"not run: {reasons[0].partition(': ')[2]}" if reasons else "not run"
    if by_definition(claim.method, name):
        return BY_DEFINITION
    if name == "time_s":
        return "not comparable: another GPU"
    if claim.unstated:
        return "not comparable: the paper does not state the setting"
    why = obstacle(study, found, claim.model, name, claim.taus, claim.fraction)
    return f"not comparable: {why}" if why else compare(name, ours, printed)


def compare(name: str, ours: float, printed: float) -> str:
    """`matches`, or `differs: ` and by how much, within the tolerance of the column `name`."""
    amount, relative = TOLERANCE[name]
    if abs(ours - printed) <= amount * (abs(printed) if relative else 1):
        return "matches"
    share = f" ({(ours - printed) / printed:+.1%})" if printed else ""
    return f"differs: {ours - printed:+.4g}{share}"
