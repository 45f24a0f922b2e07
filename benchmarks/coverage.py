"""The coverage of the tables' 95 % intervals: how often they contain the true mean, in simulations.

    python -m benchmarks.coverage [tables=2000]

Each simulated table draws prompts, several seeds per prompt and failed videos, from distributions with the shapes of
the main table's columns. reports/statistics.py computes the interval (nan if a table would print none). Student's t,
the percentile bootstrap and BCa are computed for comparison. The last line is one JSON object: coverage in percent by
column and size.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence

import numpy as np
from rich.progress import track
from scipy.stats import norm, t

from reports import statistics
from terminal import tolerate

PROMPTS = ((3, 2), (5, 2), (8, 2), (12, 2), (32, 3), (64, 3))  # prompts, seeds
LOST = 0.05  # share of invalid videos; prompts then have unequal numbers of videos
METHODS = ("ours", "student", "percentile", "bca")
Draw = Callable[[np.random.Generator, int, int], np.ndarray]


def lpips(rng: np.random.Generator, prompts: int, seeds: int) -> np.ndarray:
    """Right-skewed: some prompts are far from the Original and vary more between seeds; mean 0.2."""
    return rng.gamma(2, 0.1, (prompts, 1)) * rng.gamma(4, 0.25, (prompts, seeds))


def ssim(rng: np.random.Generator, prompts: int, seeds: int) -> np.ndarray:
    """Left-skewed, never above 1; mean 6 / 7.2."""
    return 1 - rng.beta(1.2, 6, (prompts, 1)) * rng.gamma(16, 1 / 16, (prompts, seeds))


def psnr(rng: np.random.Generator, prompts: int, seeds: int) -> np.ndarray:
    """Normal between prompts and between seeds; mean 22."""
    return 22 + 3 * rng.normal(size=(prompts, 1)) + 1.5 * rng.normal(size=(prompts, seeds))


def time(rng: np.random.Generator, prompts: int, seeds: int) -> np.ndarray:
    """Log-normal: strongly skewed, as on a machine that is sometimes shared; mean exp(0.305)."""
    return np.exp(0.6 * rng.normal(size=(prompts, 1)) + 0.5 * rng.normal(size=(prompts, seeds)))


def scattered(rng: np.random.Generator, prompts: int, seeds: int) -> np.ndarray:
    """Log-normal with the largest spread between prompts for which the interval is meant; mean exp(1.125)."""
    return np.exp(1.5 * rng.normal(size=(prompts, 1))) * np.ones((1, seeds))


def delta(rng: np.random.Generator, prompts: int, seeds: int) -> np.ndarray:
    """A paired difference of two LPIPS that share the effect of the prompt; mean -0.02."""
    shared = rng.gamma(2, 0.1, (prompts, 1))
    return shared * (0.9 * rng.gamma(6, 1 / 6, (prompts, seeds)) - rng.gamma(6, 1 / 6, (prompts, seeds)))


def speedup(rng: np.random.Generator, prompts: int, seeds: int) -> np.ndarray:
    """A ratio of two times, averaged geometrically: adaptive methods skip less on some prompts; log mean -0.3."""
    return np.exp(0.9 - rng.gamma(1.5, 0.8, (prompts, 1)) + 0.1 * rng.normal(size=(prompts, seeds)))


COLUMNS: dict[str, tuple[Draw, float, statistics.Shape | None]] = {  # draw, true mean, shape (None for a ratio)
    "lpips": (lpips, 0.2, "positive"),
    "ssim": (ssim, 6 / 7.2, "below one"),
    "psnr": (psnr, 22.0, "normal"),
    "time": (time, float(np.exp((0.6**2 + 0.5**2) / 2)), "positive"),
    "delta": (delta, -0.02, "normal"),
    "scattered": (scattered, float(np.exp(1.5**2 / 2)), "positive"),
    "speedup": (speedup, float(np.exp(-0.3)), None),
}


def coverage(column: str, prompts: int, seeds: int, tables: int, others: bool = False) -> dict[str, float]:
    """The share of intervals that contain the true mean, in percent: `ours`, with `others` all of METHODS."""
    draw, truth, shape = COLUMNS[column]
    ratio = shape is None
    rng, hits = np.random.default_rng([prompts, list(COLUMNS).index(column)]), dict.fromkeys(METHODS, 0.0)
    for _ in range(tables):
        values = np.where(rng.random((prompts, seeds)) < LOST, np.nan, draw(rng, prompts, seeds))
        values[:, 0] = np.where(np.isnan(values).all(1), draw(rng, prompts, seeds)[:, 0], values[:, 0])
        names = np.repeat(np.arange(prompts), seeds)
        _, low, high = statistics.mean(values.ravel(), names, ratio, shape or "normal")
        hits["ours"] += np.nan if np.isnan(low) else low <= truth <= high
        if others:
            known, logs = ~np.isnan(values), np.log(values) if ratio else values
            sums, counts = np.where(known, logs, 0).sum(1), known.sum(1)
            goal = np.log(truth) if ratio else truth
            for name, (low, high) in _others(sums, counts, rng).items():
                hits[name] += low <= goal <= high
    return {name: 100 * hit / tables for name, hit in hits.items() if others or name == "ours"}


def _others(sums: np.ndarray, counts: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Student's t, the percentile bootstrap, and BCa (Efron 1987, acceleration by the jackknife over prompts)."""
    times = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), 1000)
    means = np.sort((times @ sums) / (times @ counts))
    kept = (sums.sum() - sums) / (counts.sum() - counts)
    skew = kept.mean() - kept
    acceleration = (skew**3).sum() / (6 * (skew**2).sum() ** 1.5)
    below = np.clip((means < sums.sum() / counts.sum()).mean(), 1e-3, 1 - 1e-3)
    shifted = norm.ppf(below) + norm.ppf([0.025, 0.975])
    levels = norm.cdf(norm.ppf(below) + shifted / (1 - acceleration * shifted))
    middle, error = sums.sum() / counts.sum(), statistics.standard_error(sums[:, None], counts)[0]
    student = middle + np.array([-1, 1]) * t.ppf(0.975, len(sums) - 1) * error
    return {"student": student, "percentile": np.quantile(means, [0.025, 0.975]), "bca": np.quantile(means, levels)}


def main(arguments: Sequence[str]) -> None:
    tables = int(dict(a.split("=", 1) for a in arguments).get("tables", 2000))
    cells = [(column, *size) for column in COLUMNS for size in PROMPTS]
    found = {}
    for column, prompts, seeds in track(cells, "tables"):
        found[f"{column} {prompts}x{seeds}"] = coverage(column, prompts, seeds, tables, others=True)
    print(f"coverage of 95 % intervals over {tables} tables each\n{'prompts x seeds':20}", *METHODS)
    for name, shares in found.items():
        print(f"{name:20}", *(f"{shares[method]:{len(method)}.1f}" for method in METHODS))
    print(json.dumps(found))


if __name__ == "__main__":
    tolerate()
    main(sys.argv[1:])
