"""The page docs/few_steps.md and its figure, from the tables that benchmarks/few_steps.py measured.

gain      of a setting: mean over prompts of (PSNR - PSNR of fixed steps at the same FLOPs), interpolated in log FLOPs
          between the numbers of steps that were run, with the same weights
interval  95 %, over the prompts (reports.statistics.interval)
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from reports import style
from reports.records import PRINTED
from reports.statistics import mean

ROOT = Path(__file__).parents[1]
PAGE, TABLE, TIMES = (ROOT / "docs" / name for name in ("few_steps.md", "few_steps.csv", "few_steps_times.csv"))
FIXED = "original"
WANTED = 16  # prompts
KINDS = {  # how a method chooses its cost, for the sentences
    "scope": "Caching and predicting whole steps",
    "xcache": "Reusing the previous chunk's blocks",
    "uniform": "A fixed schedule of skipped steps",
    "budget": "The best fixed schedule that a search found on calibration prompts",
    "dsa_proxy": "Stopping by the change of the clean estimate",
    "dsa": "Stopping by the trained head",
}


@dataclass(frozen=True)
class Setting:
    """The videos of one model, method and setting. Arrays have an entry per prompt, in the same order everywhere."""

    model: str
    method: str
    words: str
    steps: int
    prompts: tuple[str, ...]
    passes: tuple[tuple[int, ...], ...]  # of every chunk
    gflop: np.ndarray
    psnr: np.ndarray  # dB
    right: np.ndarray  # (prompts, 3): whether colour, shape and direction are those of the prompt

    @property
    def name(self) -> str:
        if self.method == FIXED:
            return f"Fixed, {self.steps} step{'s' * (self.steps > 1)}"
        return " ".join(filter(None, [PRINTED.get(self.method, self.method), self.words])) + f", {self.steps} steps"

    @cached_property
    def mean_passes(self) -> float:
        return float(np.mean([np.mean(chunks) for chunks in self.passes]))

    @property
    def spread(self) -> str:
        """The fewest and the most passes of a chunk."""
        every = [count for chunks in self.passes for count in chunks]
        return f"{min(every)}" if min(every) == max(every) else f"{min(every)} to {max(every)}"


@dataclass(frozen=True)
class Gain:
    """What a setting gains over fixed steps of the same FLOPs, in dB."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"

    @property
    def words(self) -> str:
        if self.low > 0:
            return f"{self.value:.2f} dB better [{self.low:+.2f}, {self.high:+.2f}]"
        if self.high < 0:
            return f"{-self.value:.2f} dB worse [{self.low:+.2f}, {self.high:+.2f}]"
        return f"not significantly different, {self}"


def settings(path: Path = TABLE) -> list[Setting]:
    """The settings of the table, cheapest first within a model and method."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: (*_key(row), row["prompt"]))
    found = []
    for (model, method, words, steps), group in groupby(rows, key=_key):
        own = list(group)
        passes = tuple(tuple(map(int, row["passes"].split())) for row in own)
        gflop, psnr = (np.array([float(row[name]) for row in own]) for name in ("gflop", "psnr"))
        right = np.array([[int(row[name]) for name in ("colour", "shape", "direction")] for row in own])
        prompts = tuple(row["prompt"] for row in own)
        found.append(Setting(model, method, words, int(steps), prompts, passes, gflop, psnr, right))
    return sorted(found, key=lambda one: (one.model, one.method != FIXED, one.method, float(one.gflop.mean())))


def _key(row: dict[str, str]) -> tuple[str, str, str, int]:
    return row["model"], row["method"], row["setting"], int(row["steps"])


def gain(one: Setting, fixed: list[Setting]) -> Gain | None:
    """None where the setting is cheaper or dearer than all fixed steps with a finite PSNR."""
    usable = sorted((f for f in fixed if np.isfinite(f.psnr).all()), key=lambda f: float(f.gflop.mean()))
    if not usable or any(f.prompts != one.prompts for f in usable):
        return None
    costs = np.log([f.gflop.mean() for f in usable])
    here = np.log(one.gflop)
    if here.min() < costs[0] - 1e-9 or here.max() > costs[-1] + 1e-9:
        return None
    curves = np.array([f.psnr for f in usable]).T
    apart = one.psnr - np.array([np.interp(x, costs, curve) for x, curve in zip(here, curves, strict=True)])
    found = mean(apart, np.arange(len(apart)), shape="normal")
    return Gain(found.value, found.low, found.high)


def page(table: Path = TABLE, times: Path = TIMES) -> str:
    """docs/few_steps.md."""
    found = settings(table)
    parts = ["# What helps at few steps", _head(found), "## What follows", _follows(found)]
    for model, group in groupby(found, key=lambda one: one.model):
        own = list(group)
        fixed = [one for one in own if one.method == FIXED]
        parts += [f"## {model}", _table(own, fixed)]
        if model == "far_tiny":
            parts += ["![PSNR against FLOPs](few_steps.png)"]
    return "\n\n".join([*parts, "## Time to each chunk", _times(times), "## What does not follow", CAUTION])


CAUTION = (
    """
* **Nothing about the order at full size.** Both models have 1.8 million parameters and scenes of one moving shape.
* **Nothing about DSA as its authors trained it.** Only its abstract is public; head, target, objective and policy are
  ours.
* **Nothing about SCOPE at its best.** Its slow and fast were set for 4 steps; at 8 steps both compute 3.
* **PSNR is the distance from 50 steps of the same weights**, not beauty: a video may be far from it and follow its
  prompt.
""".strip()
    + "\n"
)


def _head(found: list[Setting]) -> str:
    prompts = len(found[0].prompts)
    few = f" ({WANTED} are wanted for a verdict)" * (prompts < WANTED)
    return (
        f"{sum(len(one.prompts) for one in found)} videos of 81 frames of 64 × 64, {prompts} prompts that nothing was "
        f"fitted to{few}; written by `python -m benchmarks.few_steps` from `docs/few_steps.csv`, which it read from "
        "the videos of `python run.py experiment=few_steps`. *Passes* are forwards of the model per chunk, clean "
        "passes left out; GFLOP are those of the denoiser for a whole video, clean passes included. PSNR is against 50 "
        "steps of the same weights, prompt and noise: every number of steps approximates the same path, so this is an "
        "error, not a taste. *Gain* is the difference from fixed steps of the same FLOPs, paired over prompts, with "
        "its 95 % interval. Whether the prompt is followed is read from the frames, without a reference."
    )


def _table(own: list[Setting], fixed: list[Setting]) -> str:
    head = ["setting", "passes per chunk", "range", "GFLOP", "PSNR (dB)", "gain (dB)", "colour", "shape", "direction"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for one in own:
        over = None if one.method == FIXED else gain(one, fixed)
        shares = [f"{share:.0%}" for share in one.right.mean(0)]
        finite = np.isfinite(one.psnr).all()
        psnr = mean(one.psnr, np.arange(len(one.psnr)), shape="normal") if finite else None
        told = f"{psnr.value:.1f} [{psnr.low:.1f}, {psnr.high:.1f}]" if psnr else "the reference"
        cost = f"{one.gflop.mean():.2f}"
        lines.append([one.name, f"{one.mean_passes:.2f}", one.spread, cost, told, str(over or ""), *shares])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _follows(found: list[Setting]) -> str:
    said = []
    for model, group in groupby(found, key=lambda one: one.model):
        own = list(group)
        fixed = [one for one in own if one.method == FIXED]
        said.append(f"* **{model}, fixed steps.** {_fixed(fixed)}")
        for method, same in groupby([one for one in own if one.method != FIXED], key=lambda one: one.method):
            told = [(one, gain(one, fixed)) for one in same]
            known = [(one, over) for one, over in told if over is not None]
            if known:
                said.append(f"* **{model}, {PRINTED.get(method, method)}.** {_verdict(method, known)}")
    return "\n".join(said)


def _fixed(fixed: list[Setting]) -> str:
    """What more steps bring, in PSNR and in prompts followed."""
    usable = [one for one in fixed if np.isfinite(one.psnr).all()]
    levels = ", ".join(f"{one.psnr.mean():.1f} dB at {one.steps}" for one in usable)
    shapes = ", ".join(f"{one.right[:, 1].mean():.0%} at {one.steps}" for one in fixed)
    return f"PSNR: {levels}. Videos with the prompt's shape: {shapes}."


def _verdict(method: str, known: list[tuple[Setting, Gain]]) -> str:
    """All settings of a method in one sentence, then the best and the worst."""
    count, kind = len(known), KINDS.get(method, "It")
    better = sum(over.low > 0 for _, over in known)
    worse = sum(over.high < 0 for _, over in known)
    best = max(known, key=lambda pair: pair[1].value)
    least = min(known, key=lambda pair: pair[1].value)
    every = f"all {count} settings" if count > 1 else "its one setting"
    if better == count:
        said = f"{kind} is better than fixed steps of the same FLOPs in {every}."
    elif worse == count:
        said = f"{kind} is worse than fixed steps of the same FLOPs in {every}."
    else:
        said = (
            f"{kind} is better than fixed steps of the same FLOPs in {better} of {count} settings and worse in {worse}."
        )
    told = f" Best: {best[0].name} with {best[0].mean_passes:.2f} passes per chunk, {best[1].words}."
    return said + told + (f" Worst: {least[0].name}, {least[1].words}." if count > 1 else "")


def _times(path: Path) -> str:
    """When each chunk is denoised, and what a chunk takes."""
    if not path.is_file():
        return "Not measured yet: `python -m benchmarks.few_steps times` does it."
    with path.open(encoding="utf-8", newline="") as file:
        rows = [(row[0], np.array(row[1:], float)) for row in csv.reader(file)]
    chunks = len(rows[0][1])
    head = ["setting", *(f"chunk {k + 1}" for k in range(chunks)), "median interval"]
    lines = [head, ["---", *["---:"] * (chunks + 1)]]
    lines += [[name, *(f"{t:.2f}" for t in at), f"{np.median(np.diff(at)):.2f}"] for name, at in rows]
    under = (
        "Seconds of processor time of one thread from the text to the end of each chunk's denoising, median over "
        "prompts, decoding left out. Clean passes fall between the chunks. The model is far_tiny_dsa; for SCOPE, "
        "far_tiny."
    )
    return under + "\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def picture(table: Path = TABLE) -> None:
    """docs/few_steps.png: PSNR against FLOPs of both models."""
    found = settings(table)
    models = sorted({one.model for one in found})
    with rc_context(style.SETTINGS):
        drawn = Figure((5.6 * len(models), 4.6))
        panels = drawn.subplots(1, len(models), sharey=True, squeeze=False)[0]
        for axes, model in zip(panels, models, strict=True):
            own = [one for one in found if one.model == model and np.isfinite(one.psnr).all()]
            for method, group in groupby(own, key=lambda one: one.method):
                points = [(float(one.gflop.mean()), float(one.psnr.mean())) for one in group]
                name = "fixed steps" if method == FIXED else PRINTED.get(method, method)
                line = "-" if method == FIXED else ""
                axes.plot(*zip(*points, strict=True), line, marker="o", ms=4, color=style.colour(method), label=name)
            axes.set(xscale="log", xlabel="GFLOP per video", title=model)
            axes.legend(fontsize=8)
        panels[0].set_ylabel("PSNR against 50 steps (dB)")
        style.save(drawn, PAGE.parent, "few_steps")
        (PAGE.parent / "few_steps.svg").unlink()
