"""Means with 95 % intervals, bootstrapped over prompts: videos of one prompt are not independent.

The interval is that of the studentised bootstrap (Efron and Tibshirani 1993, chapter 12.5), whole prompts being drawn
again and each resample's error divided by its own standard error, with each end at least as far out as Student's t.
The bootstrap follows skewed values, where t covers the truth up to 3 % too rarely at 32 prompts; t holds where outliers
on both sides cancel, where the bootstrap is as much too narrow. The percentile bootstrap and BCa are worse than either
(`python -m benchmarks.coverage`).
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import nct, t

RESAMPLES = 2000  # more: interval ends that move less from seed to seed, and a slower report
LEVEL = 0.95
POWER = 0.8  # how often a difference is to be found that is there; higher wants more videos
MOST_PROMPTS = 10**6  # prompts beyond which a difference counts as one that no study would find
FEWEST = 5  # prompts below which too few different resamples exist, and Student's t is used
ROUGH = 8  # prompts below which an interval of skewed values covers as little as 89 %, which tables say


class Estimate(NamedTuple):
    """A mean and its interval; NaN where there is no value, the interval also where there is one prompt."""

    value: float
    low: float
    high: float


NONE = Estimate(np.nan, np.nan, np.nan)


def mean(values: np.ndarray, prompts: np.ndarray, geometric: bool = False) -> Estimate:
    """Mean over videos with the interval over prompts, the same one at every call.

    Args:
        values: (n,), NaN for a video without a value, which then does not count.
        prompts: (n,), the prompt of each video.
        geometric: the geometric mean, for ratios; values must be positive.

    >>> mean(np.array([1.0, 4.0]), np.array([0, 1]), geometric=True).value
    2.0
    """
    values, prompts = np.asarray(values, float), np.asarray(prompts)
    known = ~np.isnan(values)
    if not known.any():
        return NONE
    values, prompts = values[known], prompts[known]
    if np.isposinf(values).any():  # identical videos have an infinite PSNR, and so has a mean with one in it
        return Estimate(np.inf, np.nan, np.nan)
    if geometric:
        return Estimate(*(float(np.exp(end)) for end in mean(np.log(values), prompts)))
    sums, counts = _clusters(values, prompts)
    low, high = interval(sums[:, None], counts)
    return Estimate(float(values.mean()), float(low[0]), float(high[0]))


def interval(sums: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % interval (low, high), each (k,), of k means from their sums per prompt; NaN where there is one prompt.

    Args:
        sums: (prompts, k), each prompt's sum over its videos.
        counts: (prompts,), its number of videos.
    """
    prompts = len(sums)
    if prompts < 2:
        return np.full(sums.shape[1], np.nan), np.full(sums.shape[1], np.nan)
    middle, error = sums.sum(0) / counts.sum(), standard_error(sums, counts)
    bound = t.ppf((1 + LEVEL) / 2, prompts - 1)
    low, high = np.full_like(middle, -bound), np.full_like(middle, bound)
    if prompts >= FEWEST:
        drawn = np.quantile(_studentised(sums, counts, middle), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0,
                            method="inverted_cdf")  # no interpolation between infinities
        usable = np.isfinite(drawn)  # not so where nearly all values are equal and resamples miss the odd one
        low, high = np.fmin(low, np.where(usable, drawn, low)[0]), np.fmax(high, np.where(usable, drawn, high)[1])
    return middle - high * error, middle - low * error


def standard_error(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The standard error (k,) of each mean over prompts, linearised since prompts may have unequal counts."""
    prompts = len(sums)
    residuals = sums - counts[:, None] * (sums.sum(0) / counts.sum())
    return np.sqrt(prompts / (prompts - 1) * np.square(residuals).sum(0)) / counts.sum()


def _studentised(sums: np.ndarray, counts: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """Each resample's error over its own standard error, (RESAMPLES, k); infinite where that is 0."""
    prompts, times = len(sums), _resamples(len(sums))
    residuals = sums - counts[:, None] * middle  # of mean 0, so that the squares below do not cancel
    videos = (times @ counts)[:, None]
    moved = times @ residuals / videos
    squares = times @ residuals**2 - 2 * moved * (times @ (residuals * counts[:, None]))
    squares += moved**2 * (times @ counts**2)[:, None]
    tiny = 1e-12 * np.square(residuals).sum(0)
    error = np.sqrt(np.where(squares > tiny, squares, 0) * prompts / (prompts - 1)) / videos
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(error > 0, moved / error, np.where(moved == 0, 0, np.copysign(np.inf, moved)))


def videos_needed(differences: np.ndarray, prompts: np.ndarray) -> float:
    """How many pairs of videos a claim as large as the mean difference wants: to find it in `POWER` of all repeats.

    By the power of the two-sided paired t test at `LEVEL`, from the spread of the paired differences between prompts,
    with as many seeds per prompt as here. NaN with fewer than two prompts; infinite for no difference, or for one so
    small that `MOST_PROMPTS` prompts would not find it.
    """
    sums, counts = _clusters(np.asarray(differences, float), np.asarray(prompts))
    if len(sums) < 2:
        return math.nan
    error, difference = float(standard_error(sums[:, None], counts)[0]), abs(sums.sum() / counts.sum())
    if difference == 0:
        return math.inf
    if error == 0:
        return float(2 * counts.mean())
    size, low, high = difference / (error * math.sqrt(len(sums))), 2, MOST_PROMPTS
    if _power(size, high) < POWER:
        return math.inf
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _power(size, middle) >= POWER else (middle + 1, high)
    return float(low * counts.mean())


def _power(size: float, prompts: int) -> float:
    """How often the paired t test finds a mean difference of `size` standard deviations, with its own sign."""
    bound = t.ppf((1 + LEVEL) / 2, prompts - 1)
    found = float(nct.sf(bound, prompts - 1, size * math.sqrt(prompts)))
    return 1.0 if math.isnan(found) else found  # scipy gives NaN far out, where nothing is missed


def band(curves: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(mean, low, high), each (T,), of curves (n, T): the 95 % interval over the n rows, NaN if n is 1."""
    return np.nanmean(curves, 0), *interval(curves, np.ones(len(curves)))


def _clusters(values: np.ndarray, prompts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sum of the values of each prompt, and how many they are."""
    cluster, _ = pd.factorize(prompts)
    return np.bincount(cluster, values), np.bincount(cluster).astype(float)


@lru_cache(maxsize=2)
def _resamples(n: int) -> np.ndarray:
    """How often each of n prompts is drawn in each resample, (RESAMPLES, n)."""
    return np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), RESAMPLES).astype(float)
