"""The numbers of a line of the main table, and why a number is missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from reports import streaming
from reports.line import INTERVALS
from reports.metric import ALSO, EVERY, SIMILARITIES, Metric
from reports.records import Study
from reports.statistics import NONE, Estimate, mean

EXACT = {"lpips": 0.0, "ssim": 1.0}  # the Original against itself; its PSNR is infinite


def estimates(
    study: Study, identity: Mapping[str, str], records: pd.DataFrame, random: bool
) -> tuple[dict[str, Estimate], dict[str, str]]:
    """Every metric of a line; and by metric, why it has no value or what its value leaves out.

    random: the weights are random, so quality has no meaning.
    """
    found, blanks = {}, {}
    for metric in EVERY:
        found[metric.name], why = _estimate(study, identity, records, metric, random)
        if why:
            blanks[metric.name] = why
    valid = records[records["status"] == "ok"]
    if len(valid) and valid["prompt"].nunique() == 1:
        blanks[INTERVALS] = "one prompt only"
    return found, blanks


def also(records: pd.DataFrame) -> dict[str, float]:
    """The means of `ALSO` over the valid videos."""
    valid = records[records["status"] == "ok"]
    return {
        name: mean(valid[source] * scale, valid["prompt"], geometric).value
        for name, (source, scale, geometric) in ALSO.items()
    }


def _estimate(
    study: Study, identity: Mapping[str, str], records: pd.DataFrame, metric: Metric, random: bool
) -> tuple[Estimate, str]:
    valid = records[records["status"] == "ok"]
    if not len(valid):
        reasons = [reason for reason in records["reason"] if reason]
        return NONE, f"no valid video ({reasons[0]})" if reasons else "no valid video"
    if metric.quality and random:
        return NONE, "random weights"
    if metric.name == "vbench":
        return _vbench(study, identity)
    itself = identity["method"] == "original" and valid["reference"].isin(["", *valid["key"]]).all()
    if itself and metric in SIMILARITIES:
        if metric.name not in EXACT:
            return NONE, "infinite: the Original compared with itself"
        return Estimate(EXACT[metric.name], np.nan, np.nan), ""
    values = valid[metric.source] * metric.scale
    infinite = np.isposinf(values)
    if infinite.any() and not infinite.all():  # an infinite value would make the mean infinite
        estimate = mean(values[~infinite], valid["prompt"][~infinite], metric.geometric, metric.shape)
        return (
            estimate,
            f"{infinite.sum()} of {len(values)} videos are identical to the Original and excluded from the mean",
        )
    estimate = mean(values, valid["prompt"], metric.geometric, metric.shape)
    if np.isnan(estimate.value):
        return NONE, _lacks(study, valid, metric)
    told = streaming.left_out(valid) if metric.name == "first_chunk_s" else ""
    return Estimate(estimate.value, *np.clip(estimate[1:], metric.least, metric.most)), told


def _lacks(study: Study, valid: pd.DataFrame, metric: Metric) -> str:
    """Why none of the valid videos has a value."""
    if metric.geometric:  # a ratio to the Original
        return "the records name no Original, or it is missing, failed or invalid"
    if metric.quality and not valid["scored"].any():
        return "not scored yet, run python -m eval"
    if metric.group == "streaming":
        return streaming.lacks(study.record(valid.iloc[0]).run)
    if metric.group == "drift":
        return _no_drift(study.record(valid.iloc[0]).quality or {}, metric)
    lacks = (study.record(valid.iloc[0]).quality or {}).get(f"{metric.name}_missing")
    return str(lacks or "not recorded")


def _no_drift(quality: Mapping[str, Any], metric: Metric) -> str:
    if metric.title.endswith("(VBench)"):
        return "VBench-Long has not scored this dimension on at least two clips of a video"
    scored = "alone" in quality
    return "the video is too short" if scored else "scored by an older version, run python -m eval RESULTS --redo"


def _vbench(study: Study, identity: Mapping[str, str]) -> tuple[Estimate, str]:
    """VBench's total in percent, computed by the evaluation over a whole cell; it has no interval over prompts."""
    report = study.cell_file("vbench", identity)
    if report.get("total"):
        return Estimate(float(report["total"]["total"]), np.nan, np.nan), ""
    lacks = len(report.get("total_lacks", ()))
    return NONE, f"{16 - lacks} of 16 dimensions have a score" if report else "not computed"
