"""Intervals agree with an independent bootstrap and are over prompts, not videos."""

import math

import numpy as np
import pytest
from scipy.special import stdtrit
from scipy.stats import nct, t

from benchmarks import coverage
from reports import statistics


def test_mean_and_interval_against_a_loop_that_draws_prompts_again_and_students_t():
    rng, values = np.random.default_rng(5), np.random.default_rng(5).gamma(3.0, 2.0, 60)
    studentised = []
    for _ in range(5000):
        drawn = rng.choice(values, 60)
        studentised.append((drawn.mean() - values.mean()) / (drawn.std(ddof=1) / math.sqrt(60)))
    error = values.std(ddof=1) / math.sqrt(60)
    right, left = np.quantile(studentised, [0.975, 0.025])
    student = 2.001  # of 59 degrees of freedom
    assert left < -student < -right  # values skewed to the right: their mean errs further downwards
    low, high = values.mean() - student * error, values.mean() - left * error
    ours = statistics.mean(values, np.arange(60))
    assert ours.value == pytest.approx(values.mean())
    assert (ours.low, ours.high) == pytest.approx((low, high), abs=0.05 * (high - low))


def test_two_prompts_have_students_interval():
    from scipy.stats import ttest_1samp

    values = np.array([1.0, 2.0, 4.0])
    theirs = ttest_1samp(values, 0).confidence_interval(0.95)
    assert statistics.mean(values, np.arange(3))[1:] == pytest.approx((theirs.low, theirs.high))


def test_values_that_are_nearly_all_equal_still_have_a_finite_interval():
    estimate = statistics.mean(np.array([0.0] * 9 + [1.0]), np.arange(10))
    assert np.isfinite(estimate).all() and estimate.low < 0.1 < estimate.high
    assert statistics.mean(np.full(9, 0.3), np.arange(9)) == pytest.approx((0.3, 0.3, 0.3))


def test_the_interval_is_over_prompts_and_not_over_videos():
    values, prompts = np.repeat([0.0, 1.0, 2.0, 3.0], 50), np.repeat(list("abcd"), 50)
    many = statistics.mean(values, prompts)
    few = statistics.mean(np.arange(4.0), np.array(list("abcd")))
    assert (many.low, many.high) == pytest.approx((few.low, few.high))
    assert many.high - many.low > 1.5  # 200 independent videos would give 0.3


def test_ratios_are_averaged_as_ratios():
    estimate = statistics.mean(np.array([0.5, 2.0, 4.0]), np.array([0, 1, 2]), geometric=True)
    assert estimate.value == pytest.approx(4 ** (1 / 3))
    logs = statistics.mean(np.log([0.5, 2.0, 4.0]), np.arange(3))
    assert estimate == pytest.approx(np.exp(logs)) and estimate.low < estimate.value < estimate.high


def test_the_number_of_videos_that_a_claim_needs_finds_it_in_four_of_five_repeats():
    """A difference of half a standard deviation needs 34 prompts in the paired t test."""
    differences = np.tile([-0.5, 1.5], 50) * 1.0  # mean 0.5, deviation 1.005
    assert statistics.videos_needed(differences, np.arange(100)) == 34
    assert statistics.videos_needed(np.repeat(differences, 3), np.repeat(np.arange(100), 3)) == 102
    rng = np.random.default_rng(0)
    found = [statistics.mean(rng.normal(0.5, 1, 34), np.arange(34)).low > 0 for _ in range(400)]
    assert 0.72 <= np.mean(found) <= 0.86
    assert math.isinf(statistics.videos_needed(np.zeros(4), np.arange(4)))
    assert math.isnan(statistics.videos_needed(np.ones(4), np.zeros(4)))


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


@pytest.mark.parametrize("column", coverage.COLUMNS)
def test_intervals_hold_the_truth_as_often_as_they_say(column):
    """32 prompts, three seeds, one video in twenty missing; benchmarks/coverage.py has more sizes. For values that
    are not log-normal, as LPIPS and SSIM here, the interval of a log-normal mean covers the true value more
    often."""
    assert 93 <= coverage.coverage(column, 32, 3, 1500)["ours"] <= 99.5


@pytest.mark.parametrize(
    "prompts", [5, pytest.param(8, marks=pytest.mark.slow), pytest.param(16, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("deviation", [0.3, 1.0, 1.5])
def test_intervals_of_few_log_normal_values_hold_the_truth_in_93_of_100_tables(deviation, prompts):
    rng, truth = np.random.default_rng(1), math.exp(deviation**2 / 2)
    tables = np.exp(deviation * rng.normal(size=(1500, prompts)))
    found = [statistics.mean(values, np.arange(prompts), shape="positive") for values in tables]
    assert np.mean([low <= truth <= high for _, low, high in found]) >= 0.93
    assert all(low <= value <= high for value, low, high in found)
    assert all(high <= 10 * value or math.isinf(high) for value, _, high in found)


@pytest.mark.parametrize("outlier", [0.9, 0.66])
@pytest.mark.parametrize("prompts", [5, 8, 32])
def test_one_outlier_among_nearly_equal_values_does_not_make_the_interval_explode(prompts, outlier):
    values = np.append(np.linspace(0.655, 0.656, prompts - 1), outlier)
    for shape in ("any", "normal", "positive", "below one"):
        value, low, high = statistics.mean(values, np.arange(prompts), shape=shape)
        assert low < value < high and high - low < 10 * (outlier - 0.655)


def test_skewed_values_have_no_interval_where_none_would_keep_its_word():
    few, zero = np.array([0.1, 0.2, 0.3, 0.9]), np.array([0.0, 0.1, 0.1, 0.2, 0.3])
    for values, shape in ((few, "positive"), (few, "below one"), (zero, "positive"), (1 - zero, "below one")):
        estimate = statistics.mean(values, np.arange(len(values)), shape=shape)
        assert estimate.value == pytest.approx(values.mean())
        assert math.isnan(estimate.low) and math.isnan(estimate.high)
    assert statistics.mean(np.zeros(5), np.arange(5), shape="positive") == (0, 0, 0)
    assert statistics.mean(np.ones(5), np.arange(5), shape="below one") == (1, 1, 1)


def test_the_interval_of_ssim_mirrors_that_of_its_distance_from_one():
    distance = np.array([0.01, 0.02, 0.02, 0.05, 0.04, 0.03])
    far = statistics.mean(distance, np.arange(6), shape="positive")
    near = statistics.mean(1 - distance, np.arange(6), shape="below one")
    assert near == pytest.approx((1 - far.value, 1 - far.high, 1 - far.low)) and near.high < 1


@pytest.mark.parametrize("size, pairs", [(1.0, 10), (2.0, 5)])
def test_pairs_wanted_are_those_of_the_paired_t_test(size, pairs):
    differences = np.tile([-1.0, 1.0], 50) * math.sqrt(99 / 100) + size  # deviation 1
    assert statistics.videos_needed(differences, np.arange(100)) == pairs


def test_quantiles_and_power_are_those_of_scipys_distributions():
    """scipy.stats, which takes most of a second to import, is only asked here."""
    for prompts in (2, 3, 5, 16, 97, 10**4):
        bound = t.ppf((1 + statistics.LEVEL) / 2, prompts - 1)
        assert stdtrit(prompts - 1, (1 + statistics.LEVEL) / 2) == bound
        for size in np.geomspace(1e-3, 5, 20):
            theirs = float(nct.sf(bound, prompts - 1, size * np.sqrt(prompts)))
            assert statistics._power(size, prompts) == pytest.approx(theirs, abs=1e-12) or np.isnan(theirs)
