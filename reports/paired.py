"""Which lines differ significantly: paired differences per prompt and seed, and how many videos a claim needs.

A line is "better" than another only if the 95 % interval of their paired difference excludes zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from reports.line import Line
from reports.metric import Metric
from reports.statistics import NONE, POWER, Estimate, mean, videos_needed

CLAIMED = ("speedup", "lpips", "ssim", "psnr")  # metrics whose best two lines are compared in the notes


class Finding(Enum):
    """The result of a paired comparison; the value is its text in the csv."""

    BETTER = "better"
    OPEN = "no significant difference"
    ONE_PROMPT = "one prompt only"
    NO_VIDEOS = "no videos in common"


@dataclass(frozen=True)
class Pair:
    """The best accelerated line of a model in one metric, compared with another."""

    model: str
    metric: Metric
    first: Line
    other: Line
    pairs: int  # videos of one prompt and Original in both
    prompts: int  # of those videos
    difference: Estimate  # mean of first minus other; of ratios, the geometric mean of first over other
    finding: Finding
    videos_needed: float  # pairs that detect a difference of this size with 80 % power; NaN if unknown


def compare(lines: Sequence[Line], metrics: Sequence[Metric]) -> list[Pair]:
    """For each model and metric, the best accelerated line compared with each of the others."""
    found = []
    for model in dict.fromkeys(line.model for line in lines):
        own = [line for line in lines if line.model == model and line.ranked and len(line.valid)]
        for metric in metrics:
            known = [line for line in own if metric.source and not np.isnan(line.value(metric.name))]
            ranked = sorted(known, key=lambda line: line.value(metric.name), reverse=metric.better == "higher")
            values = [_videos(line, metric) for line in ranked]
            found += [
                Pair(model, metric, ranked[0], other, *_difference(values[0], theirs, metric))
                for other, theirs in zip(ranked[1:], values[1:], strict=True)
            ]
    return found


def best(lines: Sequence[Line], pairs: Sequence[Pair]) -> list[frozenset[str]]:
    """For each line, the metrics in which it is better than every other accelerated line of its model."""
    findings: dict[tuple[tuple[str, ...], str], set[Finding]] = {}
    for pair in pairs:
        findings.setdefault((pair.first.key, pair.metric.name), set()).add(pair.finding)
    won = [place for place, seen in findings.items() if seen == {Finding.BETTER}]
    return [frozenset(metric for key, metric in won if key == line.key) for line in lines]


def notes(pairs: Sequence[Pair]) -> list[str]:
    """For each model, the difference between the best two lines, and how many videos a claim needs."""
    said = []
    for model in dict.fromkeys(pair.model for pair in pairs):
        seconds = {pair.metric.name: pair for pair in reversed(pairs) if pair.model == model}  # the first of each
        claims = [_claim(seconds[name]) for name in CLAIMED if name in seconds]
        said += [f"Best two lines on {model}, paired: {'; '.join(claims)}."] if claims else []
    if said:
        said.append(
            "Bold: the best accelerated line, if for its paired difference from each other line the 95 % interval "
            "excludes zero. Needed: pairs of videos that detect a difference of this size with "
            f"{100 * POWER:.0f} % power."
        )
    return said


def _videos(line: Line, metric: Metric) -> dict[tuple[str, str], float]:
    """The values of a line's valid videos, by prompt and Original."""
    chosen = line.valid
    chosen = chosen[chosen["reference"] != ""]
    values = zip(chosen["prompt"], chosen["reference"], chosen[metric.source] * metric.scale, strict=True)
    return {(prompt, key): value for prompt, key, value in values if np.isfinite(value)}


def _difference(first: dict, second: dict, metric: Metric) -> tuple[int, int, Estimate, Finding, float]:
    """The fields of a `Pair` from `pairs` on."""
    common = [pair for pair in first if pair in second]
    if not common:
        return 0, 0, NONE, Finding.NO_VIDEOS, np.nan
    a, b = (np.array([values[pair] for pair in common]) for values in (first, second))
    apart, prompts = np.log(a / b) if metric.geometric else a - b, np.array([prompt for prompt, _ in common])
    estimate = mean(apart, prompts, shape="normal")
    sign = 1 if metric.better == "higher" else -1
    finding = Finding.ONE_PROMPT if np.isnan(estimate.low) else Finding.OPEN
    if sign * estimate.value > 0 and estimate.low * estimate.high > 0:
        finding = Finding.BETTER
    shown = Estimate(*np.exp(estimate)) if metric.geometric else estimate
    return len(common), len(set(prompts)), shown, finding, videos_needed(apart, prompts)


WORDS = {  # of the first and the other
    Finding.BETTER: "{} better than {}",
    Finding.OPEN: "no significant difference between {} and {}",
    Finding.ONE_PROMPT: "{} and {} have one prompt only",
    Finding.NO_VIDEOS: "{} and {} have no videos in common",
}


def _claim(pair: Pair) -> str:
    show = "×{:.3g}".format if pair.metric.geometric else "{:+.3g}".format
    text = f"{pair.metric.title}: {WORDS[pair.finding].format(pair.first.name, pair.other.name)}"
    if not np.isnan(pair.difference.low):
        value, low, high = map(show, pair.difference)
        text += f", {value} [{low}, {high}], {pair.pairs} pairs"
    return text + (f", {pair.videos_needed:.0f} needed" if np.isfinite(pair.videos_needed) else "")
