"""Means with 95 % intervals over prompts: videos of one prompt are not independent.

Values without a strong skew (PSNR in dB, logarithms of ratios, paired differences) have Student's t interval, from 5
prompts on at least as far out as Hall (1992) puts each end for the skewness that is left. Positive values (seconds,
memory, FLOPs, LPIPS, and 1 - SSIM) have an interval of the arithmetic mean of a log-normal value: Cox's method (Zhou
and Gao 1997) with quantiles of Student's t, each end at least as far out as the former interval's. From 5 prompts on
both cover the true mean in at least 93 % of tables up to a log deviation of 1.5 (`python -m benchmarks.coverage`). With
fewer prompts this would need an assumption about the skew, so skewed values have no interval. No bootstrap is used: the
studentised one becomes extremely wide if a resample misses an outlier, and covers 90 % at 32 prompts and a log
deviation of 1.5.
"""

import math
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import nctdtr, stdtrit  # scipy.stats would take most of a second to import

LEVEL = 0.95
POWER = 0.8  # probability of detecting a real difference; raising it: more videos are needed
MOST_PROMPTS = 10**6  # a difference that needs more prompts counts as undetectable
FEWEST = 5  # prompts; with fewer, intervals of skewed values do not reach 95 % coverage
FARTHEST = 10  # times the mean; an upper end beyond it is printed as infinite: the values do not bound it
Shape = Literal["any", "normal", "positive", "below one"]  # the distribution that an interval assumes


class Estimate(NamedTuple):
    """A mean and its interval; all NaN without a value, and the interval NaN with one prompt."""

    value: float
    low: float
    high: float


NONE = Estimate(np.nan, np.nan, np.nan)


def mean(values: np.ndarray, prompts: np.ndarray, geometric: bool = False, shape: Shape = "any") -> Estimate:
    """Mean over videos with its interval over prompts.

    Args:
        values: (n,), NaN for a video without a value, which then does not count.
        prompts: (n,), the prompt of each video.
        geometric: the geometric mean, for ratios; values must be positive.
        shape: "normal": `interval`. "positive": skewed upwards from 0, as seconds; no interval below `FEWEST` prompts
            or with a prompt of 0. "below one": the same of 1 - value, as SSIM. "any": as positive if it can be, else t.

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
        return Estimate(*(float(np.exp(end)) for end in mean(np.log(values), prompts, shape="normal")))
    if shape == "below one":
        below = mean(1 - values, prompts, shape="positive")
        return Estimate(float(values.mean()), 1 - below.high, 1 - below.low)
    sums, counts = _clusters(values, prompts)
    value, (low, high) = float(values.mean()), (float(end[0]) for end in interval(sums[:, None], counts))
    if shape == "normal" or np.ptp(values) == 0:
        return Estimate(value, low, high)
    if len(sums) >= FEWEST and (sums > 0).all():
        return Estimate(value, *_skewed(sums / counts, value, low, high))
    return Estimate(value, low, high) if shape == "any" else Estimate(value, np.nan, np.nan)


def _skewed(means: np.ndarray, value: float, low: float, high: float) -> tuple[float, float]:
    """The interval of the mean of log-normal values, reaching `interval`'s where that is positive.

    Args:
        means: (prompts,), positive, at least `FEWEST`.
        value: the mean over videos, which the interval holds.
        low, high: of `interval`.
    """
    logs, prompts = np.log(means), len(means)
    variance = logs.var(ddof=1)
    # The log of the mean is mu + sigma^2 / 2. Its error has a part from each; n - 3 in place of n - 1 in the second
    # makes up for an error that is itself estimated, which matters below ten prompts.
    error = math.sqrt(variance / prompts + variance**2 / (2 * (prompts - 3)))
    middle, reach = logs.mean() + variance / 2, stdtrit(prompts - 1, (1 + LEVEL) / 2) * error
    lowest, highest = math.exp(middle - reach), max(high, math.exp(min(middle + reach, 700.0)))  # exp overflows at 710
    lowest = min(lowest, low) if low > 0 else min(lowest, value)
    return lowest, highest if highest <= FARTHEST * value else math.inf


def interval(sums: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % interval (low, high), each (k,), of k means from their sums per prompt; NaN where there is one prompt.

    Student's t, from `FEWEST` prompts on with each end at least as far out as Hall's correction for skewness puts it.

    Args:
        sums: (prompts, k), each prompt's sum over its videos.
        counts: (prompts,), its number of videos.
    """
    prompts = len(sums)
    if prompts < 2:
        return np.full(sums.shape[1], np.nan), np.full(sums.shape[1], np.nan)
    middle, error = sums.sum(0) / counts.sum(), standard_error(sums, counts)
    bound = stdtrit(prompts - 1, (1 + LEVEL) / 2)
    if prompts < FEWEST:
        return middle - bound * error, middle + bound * error
    residuals = sums - counts[:, None] * middle
    spread = np.sqrt(np.square(residuals).mean(0))
    skewness = (residuals**3).mean(0) / np.where(spread > 0, spread, 1) ** 3
    low, high = (_hall(end, skewness, prompts) for end in (-bound, bound))
    return middle - np.fmax(high, bound) * error, middle - np.fmin(low, -bound) * error


def _hall(quantile: float, skewness: np.ndarray, prompts: int) -> np.ndarray:
    """Where the t statistic of values of a skewness (k,) has its quantile: the inverse of Hall's (1992) cubic."""
    flat = np.abs(skewness) < 1e-6
    scale = np.where(flat, 1, skewness) / math.sqrt(prompts)
    found = 3 / scale * (np.cbrt(1 + scale * (quantile - scale / 6)) - 1)
    return np.where(flat, quantile, found)


def standard_error(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The standard error (k,) of each mean over prompts, linearised since prompts may have unequal counts."""
    prompts = len(sums)
    residuals = sums - counts[:, None] * (sums.sum(0) / counts.sum())
    return np.sqrt(prompts / (prompts - 1) * np.square(residuals).sum(0)) / counts.sum()


def videos_needed(differences: np.ndarray, prompts: np.ndarray) -> float:
    """How many pairs of videos are needed to detect the mean difference with a power of `POWER`.

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
    """The power of the paired t test for a mean difference of `size` standard deviations, in its own direction."""
    bound = stdtrit(prompts - 1, (1 + LEVEL) / 2)
    found = 1 - float(nctdtr(prompts - 1, size * math.sqrt(prompts), bound))
    return 1.0 if math.isnan(found) else found  # scipy gives NaN far out, where nothing is missed


def band(curves: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(mean, low, high), each (T,), of curves (n, T): the 95 % interval over the n curves, NaN if n is 1."""
    return np.nanmean(curves, 0), *interval(curves, np.ones(len(curves)))


def _clusters(values: np.ndarray, prompts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sum of the values of each prompt, and how many they are."""
    cluster, _ = pd.factorize(prompts)
    return np.bincount(cluster, values), np.bincount(cluster).astype(float)
