"""Extrapolation formulas: exact where they should be, wrong where they should be, and how their errors grow."""

import math

import numpy as np
import pytest

from engine.forecast import newton, taylor, taylorseer, weights

SPACINGS = [(0.05, 0.05), (0.03, 0.07), (0.07, 0.03), (0.2, 0.01)]


def quadratic(s):
    return 3 - 2 * s + 5 * s * s


def anchors(h1, h2, f=quadratic, s0=0.5):
    """Three points on a falling coordinate, oldest first."""
    return [(s, f(s)) for s in (s0 + h1 + h2, s0 + h1, s0)]


@pytest.mark.parametrize("h1,h2", SPACINGS)
@pytest.mark.parametrize("h", [-0.3, -0.05, -0.01, 0.4])
def test_newton_is_exact_on_quadratics_at_unequal_spacing(h1, h2, h):
    assert newton(anchors(h1, h2), 0.5 + h) == pytest.approx(quadratic(0.5 + h), abs=1e-12)


@pytest.mark.parametrize("h1,h2", SPACINGS)
def test_newton_is_exact_whichever_way_the_coordinate_runs(h1, h2):
    points = [(-s, value) for s, value in anchors(h1, h2)]
    assert newton(points, -0.4) == pytest.approx(quadratic(0.4), abs=1e-12)


@pytest.mark.parametrize("formula", [taylor, taylorseer])
@pytest.mark.parametrize("h1,h2", SPACINGS)
def test_the_taylor_forms_are_not_exact_on_quadratics(formula, h1, h2):
    assert abs(formula(anchors(h1, h2), 0.4) - quadratic(0.4)) > 1e-3


@pytest.mark.parametrize("formula", [newton, taylor, taylorseer])
def test_two_points_make_a_straight_line_and_one_a_constant(formula):
    assert formula([(1.0, 4.0), (0.5, 3.0)], 0.25) == pytest.approx(2.5)
    assert formula([(1.0, 4.0)], 0.25) == 4.0


@pytest.mark.parametrize("formula,order", [(newton, 3), (taylor, 2), (taylorseer, 2)])
def test_orders_of_convergence_on_a_smooth_function(formula, order):
    """Halving every distance divides the error by 2^order."""
    errors = [abs(formula(anchors(0.7 * h, 1.3 * h, math.sin), 0.5 - h) - math.sin(0.5 - h)) for h in (2e-3, 1e-3)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("k,gain", [(1, 7), (2, 17), (3, 31), (4, 49), (5, 71)])
def test_noise_gain_of_the_second_order_at_equal_gaps(k, gain):
    """The sum of |weights|: the factor on an error of the anchors, k gaps ahead."""
    found = weights(newton, (0.0, 1.0, 2.0), at=2.0 + k)
    assert sum(map(abs, found)) == pytest.approx(gain)
    assert sum(found) == pytest.approx(1)
    assert sum(map(abs, weights(newton, (0.0, 1.0), at=1.0 + k))) == pytest.approx(2 * k + 1)


def test_weights_are_the_formula():
    levels, values = [0.9, 0.7, 0.65], [2.0, -1.0, 4.0]
    for formula in (newton, taylor, taylorseer):
        by_weights = sum(w * v for w, v in zip(weights(formula, tuple(levels), 0.5), values, strict=True))
        assert by_weights == pytest.approx(formula(list(zip(levels, values, strict=True)), 0.5))


def test_formulas_work_on_arrays_as_on_numbers():
    values = np.arange(6.0).reshape(3, 2)
    points = list(zip([0.9, 0.7, 0.65], values, strict=True))
    expected = [newton(list(zip([0.9, 0.7, 0.65], column, strict=True)), 0.5) for column in values.T]
    assert newton(points, 0.5) == pytest.approx(expected)


# SCOPE's Eq. 10-12: latent error after K predicted Euler steps of size h, with |v''| = M on v = M/2 s^2


def accumulated_error(m, h, steps):
    """The error of the secant through two anchors h apart, along Euler's steps."""

    def velocity(s):
        return 0.5 * m * s * s

    points, error = [(h, velocity(h)), (0.0, velocity(0.0))], 0.0
    for k in range(1, steps + 1):
        error += h * abs(newton(points, -k * h) - velocity(-k * h))
    return error


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_error_of_the_secant_is_the_corrected_bound_and_exceeds_the_papers(steps):
    """e_k = M/2 kh (kh + h) adds up to M h^3 K(K+1)(K+2)/6; the paper's M/2 (kh)^2 gives M h^3 K(K+1)(2K+1)/12."""
    m, h = 3.0, 0.04
    found = accumulated_error(m, h, steps)
    corrected = m * h**3 * steps * (steps + 1) * (steps + 2) / 6
    papers = m * h**3 * steps * (steps + 1) * (2 * steps + 1) / 12
    assert found == pytest.approx(corrected, rel=1e-12)
    assert found / papers == pytest.approx({1: 2.0, 2: 1.6, 3: 10 / 7, 5: 14 / 11}[steps])
