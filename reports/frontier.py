"""Quality against cost: each method over its main setting, its FLOPs speedup at equal PSNR, and the Pareto front.

    curve       the lines of one model and method that differ in numbers only (thresholds, intervals, budgets)
    points      of a curve: (geometric mean of the FLOPs speedup, mean PSNR), over the prompts that all curves have
    at L dB     the largest speedup at which the curve, a line through its points in log speedup, has a PSNR of L
    interval    2.5 % to 97.5 % of the same in 2,000 resamples of the prompts; one resample is used for all curves, so
                the ratio of two curves is paired

A curve whose slowest point is below L, or whose fastest point is above L, has a bound instead of a value: "< 1.8" or
"> 6.3". In a resample a bound counts as the value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from reports.line import Line
from reports.records import label
from reports.report import Report
from reports.statistics import LEVEL

LEVELS = (45.0, 40.0, 36.0, 32.0)  # dB
FEWEST = 3  # points of a curve; with fewer there is none
RESAMPLES = 2000
FORMULAS = ("order",)  # numbers that choose a formula, so lines that differ in them are different curves


@dataclass(frozen=True)
class Curve:
    """One method over its main setting. Arrays have a line per prompt and a column per setting, slowest first."""

    model: str
    method: str
    name: str
    speedups: np.ndarray  # (prompts, settings), FLOPs of the Original over the method's
    psnr: np.ndarray  # (prompts, settings), dB

    @property
    def points(self) -> list[tuple[float, float]]:
        """(speedup, PSNR) of each setting."""
        return list(zip(np.exp(np.log(self.speedups).mean(0)), self.psnr.mean(0), strict=True))


@dataclass(frozen=True)
class Reading:
    """The FLOPs speedup of a curve at one PSNR."""

    value: float
    low: float
    high: float
    bound: str = ""  # "<" or ">" if the curve does not reach this PSNR

    def __str__(self) -> str:
        ends = f" [{self.low:.2f}, {self.high:.2f}]" if self.low < self.high else ""
        return f"{self.bound} {self.value:.2f}×".lstrip() + (ends if not self.bound else "")


@dataclass(frozen=True)
class Panel:
    """The curves of one model with the same settings, so with the same Originals."""

    model: str
    lines: list[Line]
    curves: list[Curve]
    partial: list[tuple[Line, int]]  # lines on no curve, since videos are missing; how many there are
    apart: tuple[tuple[str, str], ...] = ()  # settings of the model that its other panels do not have

    @property
    def name(self) -> str:
        return ", ".join([self.model, *(f"{name.rpartition('.')[2]}={value}" for name, value in self.apart)])

    @property
    def kind(self) -> str:
        """The first part of the names of its files."""
        return "_".join(["frontier", *(re.sub(r"[^\w.-]+", "-", value) for _, value in self.apart)])


def panels(report: Report) -> list[Panel]:
    """The panels with at least one curve, in the order of the report.

    All curves of a panel have the same prompts. Lines of reference methods and lines that are marked for their prompts
    are left out, and so are lines without a scored video of a prompt that the largest line has.
    """
    found = []
    for model, lines in report.by_model():
        groups: dict[tuple[tuple[str, str], ...], list[Line]] = {}
        for line in lines:
            if line.ranked and line.known("psnr"):
                groups.setdefault(of_the_model(line), []).append(line)
        made = {settings: _panel(model, own) for settings, own in groups.items()}
        made = {settings: panel for settings, panel in made.items() if panel.curves}
        shared = set.intersection(*map(set, made)) if made else set()
        for settings, panel in made.items():
            found.append(replace(panel, apart=tuple(one for one in settings if one not in shared)))
    return found


def of_the_model(line: Line) -> tuple[tuple[str, str], ...]:
    """The settings of a line that are not the method's, and the attention, which a reader asks for first."""
    told = {"model.attention": attention} if (attention := line.records["attention"].iloc[0]) else {}
    told |= {name: value for name, value in line.changed.items() if not name.startswith("method.")}
    return tuple((name, str(value)) for name, value in sorted(told.items()))


def _panel(model: str, lines: list[Line]) -> Panel:
    values = {line.key: _values(line) for line in lines}
    largest = max(values.values(), key=len)
    whole = [line for line in lines if values[line.key].keys() >= largest.keys()]
    partial = [(line, len(values[line.key])) for line in lines if line not in whole]
    groups: dict[tuple[str, str, tuple], list[Line]] = {}
    for line in whole:
        groups.setdefault((line.method, kind_of(line.speed), fixed(line.changed)), []).append(line)
    groups = {key: own for key, own in groups.items() if len(own) >= FEWEST}
    shared = set.intersection(*(set(key[2]) for key in groups)) if groups else set()
    curves = [
        _curve(model, key, [[values[line.key][prompt] for prompt in sorted(largest)] for line in own], shared)
        for key, own in groups.items()
    ]
    return Panel(model, lines, curves, partial)


def kind_of(speed: str) -> str:
    """The name of an operating point without its number; slow, fast and none are points of one curve.

    >>> kind_of("forwards12"), kind_of("fast"), kind_of("paper")
    ('forwards', '', 'paper')
    """
    return "" if speed in ("slow", "fast", "none", "") else re.sub(r"\d+", "", speed)


def fixed(changed: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    """The settings that a curve does not vary: those that are no numbers of the method, and `FORMULAS`.

    >>> fixed({"method.threshold": 0.1, "method.order": 1, "method.selective": "exact", "model.frames": 97})
    (('method.order', '1'), ('method.selective', 'exact'), ('model.frames', '97'))
    """
    number = (int, float)
    return tuple(
        (name, str(value))
        for name, value in sorted(changed.items())
        if not isinstance(value, number)
        or isinstance(value, bool)
        or not name.startswith("method.")
        or name.rpartition(".")[2] in FORMULAS
    )


def _values(line: Line) -> dict[tuple[str, int], tuple[float, float]]:
    """(FLOPs speedup, PSNR) of each video that can be compared, by prompt and seed.

    The lines of a panel have the same settings of the model, so prompt and seed name the same noise, also where the
    Original was made again by a later version of the code and has another key.

    A broken video counts with its low PSNR: without it a setting would look better than it is. An identical video has
    infinite PSNR; it counts only if it is valid, which the video of a method that skipped nothing is not.
    """
    videos = line.records
    broken = (videos["status"] == "invalid") & np.isfinite(videos["psnr"])
    chosen = videos[((videos["status"] == "ok") & videos["psnr"].notna() | broken) & (videos["reference"] != "")]
    columns = (chosen[name] for name in ("prompt", "seed", "flops_speedup", "psnr"))
    return {(prompt, seed): (speedup, psnr) for prompt, seed, speedup, psnr in zip(*columns, strict=True)}


def _curve(model: str, key: tuple[str, str, tuple], lines: list[list[tuple[float, float]]], shared: set) -> Curve:
    method, speed, settings = key
    variant = ", ".join(f"{name.rpartition('.')[2]}={value}" for name, value in settings if (name, value) not in shared)
    values = np.array(lines)  # (settings, prompts, 2)
    order = np.argsort(np.log(values[..., 0]).mean(1))
    name = label({"method": method, "speed": "paper" if speed == "paper" else "", "variant": variant})
    return Curve(model, method, name, values[order, :, 0].T, values[order, :, 1].T)


def at(points: Sequence[tuple[float, float]], level: float) -> tuple[float, str]:
    """The largest speedup at which a line through points, slowest first, has a PSNR of `level`, and "", "<" or ">".

    >>> at([(2.0, 50.0), (4.0, 40.0), (8.0, 30.0)], 40.0), at([(2.0, 50.0), (4.0, 40.0)], 52.0)
    ((4.0, ''), (2.0, '<'))
    >>> round(at([(2.0, 50.0), (8.0, 30.0)], 40.0)[0], 6), at([(2.0, 50.0), (4.0, 40.0)], 36.0)
    (4.0, (4.0, '>'))
    """
    if points[-1][1] > level:
        return float(points[-1][0]), ">"
    for (slow, above), (fast, below) in reversed(list(pairwise(points))):
        if above >= level >= below:
            share = 0.0 if np.isinf(above) or above == below else (above - level) / (above - below)
            return float(np.exp(np.log(slow) + share * (np.log(fast) - np.log(slow)))), ""
    return float(points[0][0]), "<" if points[0][1] < level else ""


def _speedups(curve: Curve, chosen: np.ndarray, level: float) -> np.ndarray:
    """`at` of every choice of prompts, (choices,); `chosen`: indices, (choices, prompts)."""
    logs, psnr = np.log(curve.speedups)[chosen].mean(1), curve.psnr[chosen].mean(1)  # (choices, settings)
    found = np.where(psnr[:, -1] > level, logs[:, -1], np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        for i in reversed(range(psnr.shape[1] - 1)):
            above, below = psnr[:, i], psnr[:, i + 1]
            flat = np.isinf(above) | (above == below)
            share = np.where(flat, 0.0, (above - level) / (above - below))
            here = np.isnan(found) & (above >= level) & (level >= below)
            found[here] = (logs[:, i] + share * (logs[:, i + 1] - logs[:, i]))[here]
    return np.exp(np.where(np.isnan(found), logs[:, 0], found))


def reading(curve: Curve, level: float) -> Reading:
    """The speedup of a curve at a PSNR, with its interval; with one prompt the interval is NaN."""
    value, bound = at(curve.points, level)
    return Reading(value, *_ends(len(curve.psnr), lambda chosen: _speedups(curve, chosen, level)), bound)


def ratio(first: Curve, other: Curve, level: float) -> Reading:
    """The speedup of `first` over that of `other` at a PSNR, paired over prompts."""

    def apart(chosen: np.ndarray) -> np.ndarray:
        return _speedups(first, chosen, level) / _speedups(other, chosen, level)

    (own, low), (theirs, high) = at(first.points, level), at(other.points, level)
    bound = {(">", ""): ">", ("", "<"): ">", ("<", ""): "<", ("", ">"): "<", ("", ""): ""}.get((low, high), "?")
    return Reading(own / theirs, *_ends(len(first.psnr), apart), bound)


def _ends(prompts: int, statistic: Callable[[np.ndarray], np.ndarray]) -> tuple[float, float]:
    """The ends of the percentile interval of a statistic, from indices (choices, prompts) to (choices,)."""
    if prompts < 2:
        return float("nan"), float("nan")
    from scipy.stats import bootstrap  # takes most of a second, and few reports have a frontier

    found = bootstrap(
        (np.arange(prompts),),
        lambda chosen, axis: statistic(np.atleast_2d(np.asarray(chosen, int))),  # scipy asks for the last axis only
        vectorized=True,
        n_resamples=RESAMPLES,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)


def front(found: Sequence[Curve]) -> list[tuple[Curve, float, float]]:
    """The settings (curve, speedup, PSNR) that no other setting beats in both, the fastest first."""
    every = [(curve, speedup, psnr) for curve in found for speedup, psnr in curve.points]
    kept: list[tuple[Curve, float, float]] = []
    for curve, speedup, psnr in sorted(every, key=lambda point: (-point[1], -point[2])):
        if not kept or psnr > kept[-1][2]:
            kept.append((curve, speedup, psnr))
    return kept
