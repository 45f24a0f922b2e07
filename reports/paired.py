"""Which rows really differ: differences paired per prompt and seed, and how many videos such a claim wants.

"Better" is said of a row only where the 95 % interval of its paired difference from another keeps clear of none.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from reports.metric import Metric
from reports.records import CONTROLS, ROW, Study
from reports.statistics import POWER, mean, videos_needed

CLAIMED = ("speedup", "lpips", "ssim", "psnr")  # the metrics whose first and second are told apart under the table
COLUMNS = [
    "model",
    "metric",
    "row",
    "against",
    "pairs",
    "prompts",
    "difference",
    "difference_low",
    "difference_high",
    "verdict",
    "videos_needed",
]


def compare(study: Study, frame: pd.DataFrame, metrics: Sequence[Metric]) -> pd.DataFrame:
    """`COLUMNS`: in every metric of a model, the best accelerated row against each of the others.

    `difference` is the mean of best minus other over the pairs of videos of one prompt and seed; of ratios, the
    geometric mean of best over other. `videos_needed` pairs find a difference of this size four times in five.
    """
    lines = []
    for model in dict.fromkeys(frame["model"]):
        rows = frame[(frame["model"] == model) & ~frame["method"].isin(CONTROLS) & (frame["videos"] > 0)]
        for metric in metrics:
            values = rows[metric.name].dropna() if metric.source else pd.Series(dtype=float)
            values = values.sort_values(ascending=metric.better == "lower", kind="stable")
            own = {n: _videos(study, frame.loc[n], metric) for n in values.index}
            for other in values.index[1:]:
                lines.append(
                    [
                        model,
                        metric.name,
                        frame.loc[values.index[0], "name"],
                        frame.loc[other, "name"],
                        *_difference(own[values.index[0]], own[other], metric),
                    ]
                )
    return pd.DataFrame(lines, columns=COLUMNS)


def best(frame: pd.DataFrame, compared: pd.DataFrame) -> pd.Series:
    """For each line of the main table the metrics, `; ` between, in which it is better than every other row."""
    wins: dict[tuple[str, str], list[str]] = {}
    for (model, metric), pairs in compared.groupby(["model", "metric"], sort=False):
        if (pairs["verdict"] == "better").all():
            wins.setdefault((model, pairs["row"].iloc[0]), []).append(metric)
    names = zip(frame["model"], frame["name"], strict=True)
    return pd.Series(["; ".join(wins.get(name, [])) for name in names], frame.index, dtype=object)


def lines(compared: pd.DataFrame, metrics: Sequence[Metric]) -> list[str]:
    """For each model, what separates the first from the second, and how many videos it takes to say so."""
    said = []
    for model, pairs in compared.groupby("model", sort=False):
        claims = [
            _claim(pairs[pairs["metric"] == m.name].iloc[0], m)
            for m in metrics
            if m.name in CLAIMED and (pairs["metric"] == m.name).any()
        ]
        said += [f"First against second on {model}, paired: {'; '.join(claims)}."] if claims else []
    if said:
        said.append(
            "Bold: the best of the accelerated rows, if its paired differences from all others keep clear of "
            f"none at 95 %. Wanted: pairs of videos that find a difference as large in {POWER:.0%} of repeats."
        )
    return said


def _videos(study: Study, row: pd.Series, metric: Metric) -> dict[tuple[str, str], float]:
    """The values of a row's valid videos, by prompt and the Original that each is paired with."""
    videos = study.videos
    chosen = videos[(videos[ROW] == row[ROW]).all(axis=1) & (videos["status"] == "ok")]
    chosen = chosen[chosen["reference"] != ""]
    values = zip(chosen["prompt"], chosen["reference"], chosen[metric.source] * metric.scale, strict=True)
    return {(prompt, key): value for prompt, key, value in values if np.isfinite(value)}


def _difference(first: dict, second: dict, metric: Metric) -> tuple:
    """`COLUMNS` from `pairs` on."""
    common = [pair for pair in first if pair in second]
    if not common:
        return 0, 0, np.nan, np.nan, np.nan, "no videos in common", np.nan
    a, b = (np.array([values[pair] for pair in common]) for values in (first, second))
    apart, prompts = np.log(a / b) if metric.geometric else a - b, np.array([prompt for prompt, _ in common])
    estimate = mean(apart, prompts, shape="normal")
    sign = 1 if metric.better == "higher" else -1
    verdict = "one prompt only" if np.isnan(estimate.low) else "not told apart"
    if sign * estimate.value > 0 and estimate.low * estimate.high > 0:
        verdict = "better"
    shown = np.exp(estimate) if metric.geometric else np.array(estimate)
    return len(common), len(set(prompts)), *shown, verdict, videos_needed(apart, prompts)


def _claim(pair: pd.Series, metric: Metric) -> str:
    show = "×{:.3g}".format if metric.geometric else "{:+.3g}".format
    text = f"{metric.title} {pair['row']} {pair['verdict']} {'than' if pair['verdict'] == 'better' else 'from'} "
    text = text.replace("one prompt only from", "on one prompt against") + pair["against"]
    if not np.isnan(pair["difference_low"]):
        ends = ", ".join(show(pair[f"difference_{end}"]) for end in ("low", "high"))
        text += f" by {show(pair['difference'])} [{ends}], {pair['pairs']} pairs"
    wanted = pair["videos_needed"]
    return text + (f", {wanted:.0f} wanted" if np.isfinite(wanted) else "")
