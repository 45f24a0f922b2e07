"""Means with 95 % intervals, bootstrapped over prompts: videos of one prompt are not independent."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd

RESAMPLES = 2000  # more: interval ends that move less from seed to seed, and a slower report
LEVEL = 0.95


class Estimate(NamedTuple):
    """A mean and its interval; NaN where there is no value, the interval also where there is one prompt."""

    value: float
    low: float
    high: float


NONE = Estimate(np.nan, np.nan, np.nan)


def mean(values: np.ndarray, prompts: np.ndarray, geometric: bool = False) -> Estimate:
    """Mean over videos with a percentile interval from resampling whole prompts, the same one at every call.

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
    cluster, _ = pd.factorize(prompts)
    sums, counts = np.bincount(cluster, values), np.bincount(cluster)
    if len(sums) == 1:
        return Estimate(float(values.mean()), np.nan, np.nan)
    times = _resamples(len(sums))
    means = (times @ sums) / (times @ counts)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(values.mean()), float(low), float(high))


@lru_cache(maxsize=2)
def _resamples(n: int) -> np.ndarray:
    """How often each of n prompts is drawn in each resample, (RESAMPLES, n)."""
    return np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), RESAMPLES).astype(float)


def band(curves: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(mean, low, high), each (T,), of curves (n, T): a 95 % bootstrap over the n rows, NaN if n is 1."""
    middle = np.nanmean(curves, 0)
    if len(curves) == 1:
        return middle, np.full_like(middle, np.nan), np.full_like(middle, np.nan)
    low, high = np.quantile(_resamples(len(curves)) @ curves / len(curves), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return middle, low, high
