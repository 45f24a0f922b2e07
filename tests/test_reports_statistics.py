"""Intervals agree with an independent bootstrap and are over prompts, not videos."""

import math

import numpy as np
import pytest

from reports import statistics


def test_mean_and_interval_against_scipys_bootstrap():
    from scipy.stats import bootstrap

    values = np.random.default_rng(5).gamma(3.0, 2.0, 60)
    ours = statistics.mean(values, np.arange(60))
    theirs = bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=1).confidence_interval
    assert ours.value == pytest.approx(values.mean())
    width = theirs.high - theirs.low
    assert abs(ours.low - theirs.low) < 0.05 * width and abs(ours.high - theirs.high) < 0.05 * width


def test_the_interval_is_over_prompts_and_not_over_videos():
    values, prompts = np.repeat([0.0, 1.0, 2.0, 3.0], 50), np.repeat(list("abcd"), 50)
    many = statistics.mean(values, prompts)
    few = statistics.mean(np.arange(4.0), np.array(list("abcd")))
    assert (many.low, many.high) == pytest.approx((few.low, few.high))
    assert many.high - many.low > 1.5  # 200 independent videos would give 0.3


def test_ratios_are_averaged_as_ratios():
    estimate = statistics.mean(np.array([0.5, 2.0, 4.0]), np.array([0, 1, 2]), geometric=True)
    assert estimate.value == pytest.approx(4 ** (1 / 3))
    assert 0.5 <= estimate.low < estimate.value < estimate.high <= 4.0


@pytest.mark.parametrize(
    "values, expected", [([], math.nan), ([math.nan], math.nan), ([3.0], 3.0), ([1.0, math.inf], math.inf)]
)
def test_without_two_prompts_there_is_no_interval(values, expected):
    estimate = statistics.mean(np.array(values), np.zeros(len(values)))
    assert estimate.value == pytest.approx(expected, nan_ok=True)
    assert math.isnan(estimate.low) and math.isnan(estimate.high)


def test_a_band_holds_its_mean_and_is_nan_for_one_curve():
    curves_ = np.random.default_rng(0).normal(0, 1, (30, 5)) + np.arange(5)
    middle, low, high = statistics.band(curves_)
    assert middle == pytest.approx(curves_.mean(0)) and (low < middle).all() and (middle < high).all()
    assert np.isnan(statistics.band(curves_[:1])[1]).all()
