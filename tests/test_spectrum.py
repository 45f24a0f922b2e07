"""Spectrum's forecaster and RACER's blend, by hand and inside SCOPE."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.forecast import newton, spectrum, weights
from engine.history import History
from scope import stability
from scope.method import Scope
from scope.predictors import ANCHORS, ORDER, Guards, Predictor, usable_order
from tests.test_scope import LINE, scope
from tests.toy import Toy, modes, run

# --- Spectrum ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first, last, expected", [(2.0, -8.1, -1.0), (-2.0, 8.1, 1.0), (3.05, 3.05, 1.0), (0, 0, 0)])
def test_two_points_at_the_ends_by_hand(first, last, expected):
    """x(0) = (1, -1, 1, -1, 1), x(1) = (1, 1, 1, 1, 1), x(0.5) = (1, 0, -1, 0, 1).

    X X' + 0.1 I = (5.1 1; 1 5.1) and X x(0.5) = (1, 1), so both weights are 1 / 6.1.
    """
    assert spectrum([(0.0, first), (1.0, last)], 0.5) == pytest.approx(expected)


@pytest.mark.parametrize("levels", [(0.9,), (1.0, 0.9), (1.0, 0.95, 0.8, 0.7), tuple(1 - 0.05 * k for k in range(12))])
@pytest.mark.parametrize("at", [0.65, 0.0, 0.97])
def test_the_forecast_is_the_papers_normal_equation(levels, at):
    """C = (X'X + 0.1 I)^-1 X'H with the Chebyshev polynomials as cos(m arccos tau)."""

    def basis(s):
        return np.cos(np.arange(5) * np.arccos(np.atleast_1d(2 * np.asarray(s) - 1)[:, None]))

    values = np.sin(7 * np.asarray(levels)) - 2
    design = basis(levels)
    coefficients = np.linalg.inv(design.T @ design + 0.1 * np.eye(5)) @ design.T @ values
    found = spectrum(list(zip(levels, values, strict=True)), at)
    assert found == pytest.approx(float(basis(at)[0] @ coefficients), rel=1e-9)
    by_weights = np.dot(weights(spectrum, levels, at), values)
    assert by_weights == pytest.approx(found, rel=1e-9)


def test_without_a_ridge_it_is_exact_on_the_degree_and_not_above():
    levels = (1.0, 0.9, 0.7, 0.55, 0.4)
    for power, exact in ((4, True), (5, False)):
        found = spectrum([(s, (s - 2) ** power) for s in levels], 0.3, ridge=1e-12)
        assert (abs(found - (0.3 - 2) ** power) < 1e-6) is exact


def test_it_does_not_matter_which_end_is_noise():
    falling = [(1.0, 3.0), (0.9, -2.0), (0.7, 5.0)]
    rising = [(1 - s, value) for s, value in falling]
    assert spectrum(falling, 0.6) == pytest.approx(spectrum(rising, 0.4))


def test_the_share_below_one_gives_the_rest_to_the_line_through_the_last_two():
    points = [(1.0, 1.0), (0.9, 4.0), (0.8, 2.0)]
    line, curve = newton(points[1:], 0.7), spectrum(points, 0.7)
    assert spectrum(points, 0.7, share=0.0) == pytest.approx(line) == pytest.approx(0.0)
    assert spectrum(points, 0.7, share=0.25) == pytest.approx(0.25 * curve + 0.75 * line)


def test_points_at_one_level_are_averaged_and_do_not_fail():
    """X has two equal rows of size 3 at 0.5: each weight is 1 / (2 + 0.1 / 3)."""
    assert spectrum([(0.5, 1.0), (0.5, 5.0)], 0.5) == pytest.approx(6 / (2 + 0.1 / 3))


def test_a_history_of_two_values_keeps_both_weights_though_they_do_not_sum_to_one():
    history = History(2)
    for level, value in ((0.0, 2.0), (1.0, -8.1)):
        history.push([3], [level], torch.full((1, 1), value))
    assert history.predict([3], spectrum, [0.5], [1]).item() == pytest.approx(-1.0)


def test_scope_uses_up_to_sixteen_anchors_and_lowers_the_order_before_a_bad_gap():
    predictor = Predictor("spectrum", Guards(99, 1e-6), beta=0.5)
    points = [(1 - 0.04 * k, math.cos(k)) for k in range(20)]
    for s, v in points:
        predictor.keep([0], [s], torch.full((1, 1), v))
    assert ORDER["spectrum"] == 4 and ANCHORS["spectrum"] == 16
    assert predictor.orders([0], [0.2]) == [15]
    assert predictor.predict([0], [0.2]).item() == pytest.approx(spectrum(points[-16:], 0.2), rel=1e-4)
    turned = [0.5, 0.6, 0.9, 0.8, 0.7]
    assert usable_order(turned, 0.6, 15, Guards(99, 1e-6)) == 2
    assert usable_order([0.9, 0.8, 0.8, 0.7, 0.6], 0.5, 15, Guards(99, 1e-6)) == 2
    assert usable_order([0.9, 0.8, 0.7, 0.6], 0.5, 15, Guards(99, 1e-6)) == 3


def test_scope_predicts_from_two_anchors_on_or_waits_for_the_five_that_the_degree_needs():
    _, ledger = run(Toy(**LINE), scope(0, 99, predictor="spectrum"), counters := Counter())
    assert modes(ledger) == "rr" + "p" * 8 and counters["order lowered"] == 8
    _, ledger = run(Toy(**LINE), scope(0, 99, predictor="spectrum", history="recompute"), counters := Counter())
    assert modes(ledger) == "rrrrr" + "p" * 5 and "order lowered" not in counters
    with pytest.raises(ValueError, match="predictor=spectrum needs more than 5 steps per slot, and toy has 5"):
        Scope(0, 9, signal="clock", predictor="spectrum", selective="none").check(Toy(**LINE, steps=5))


# --- RACER ------------------------------------------------------------------------------------------------------------


def of(*values):
    return torch.tensor(values).view(1, 1, 1, -1)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("waited, fade", [(0, 1.0), (1, 1.0), (2, math.exp(-0.3)), (4, math.exp(-0.9))])
def test_the_blend_by_hand(sign, waited, fade):
    """The line is half the prediction, so the risk is 1/2; limit 1/4: kappa = exp(-0.3 (h - 1)) sigmoid(-1)."""
    predicted, line, last = sign * of(3.0, 4.0), sign * of(1.5, 2.0), sign * of(1.0, 8.0)
    kappa = fade / (1 + math.e)
    found, risky = stability.blend(predicted, line, last, 0.25, [waited])
    expected = [sign * (kappa * p + (1 - kappa) * v) for p, v in ((3.0, 1.0), (4.0, 8.0))]
    assert found.flatten().tolist() == pytest.approx(expected, rel=1e-5) and bool(risky)


def test_slots_are_blended_each_by_its_own_risk_and_a_risk_at_the_limit_halves():
    predicted, line = torch.cat([of(3.0, 4.0)] * 2), torch.cat([of(3.0, 4.0), of(1.5, 2.0)])
    found, risky = stability.blend(predicted, line, torch.zeros_like(line), 0.5, [1, 1])
    assert found[1].flatten().tolist() == pytest.approx([1.5, 2.0]) and not bool(risky), "sigmoid(0) = 1/2"
    assert found[0, 0, 0, 0].item() == pytest.approx(3 / (1 + math.exp(-2)))


@pytest.mark.parametrize(
    "predicted, line, risk",
    [((0.0, 0.0), (0.0, 0.0), 0.0), ((2.0, 2.0), (2.0, 2.0), 0.0), ((2.0, -2.0), (-2.0, 2.0), 2.0)],
)
def test_the_risk_of_equal_and_of_opposite_forecasts(predicted, line, risk):
    assert stability.risk(of(*predicted), of(*line)).item() == pytest.approx(risk)


@pytest.mark.parametrize("bad", [(math.nan, 1.0), (math.inf, 1.0)])
def test_a_forecast_of_nothing_or_a_line_that_is_not_finite_gives_the_last_velocity(bad):
    last = of(5.0, 6.0)
    for predicted, line in ((of(0.0, 0.0), of(1.0, 1.0)), (of(1.0, 2.0), of(*bad))):
        found, _ = stability.blend(predicted, line, last, 0.3, [1])
        assert torch.equal(found, last)


@pytest.mark.parametrize("slope", [10.0, -10.0, 0.0])
def test_scope_blends_every_prediction_by_the_steps_since_its_last_forward(slope):
    """v = slope s. A first-order prediction is the line itself, so its risk is 0: kappa = exp(-0.3 (h - 1)) s(1.2)."""
    method = scope(0, 99, warmup=2, predictor="taylor1", risk=0.3)
    latents, ledger = run(Toy(**LINE, field=lambda s: slope * s), method, counters := Counter())
    assert modes(ledger) == "rr" + "p" * 8 and counters == {}
    velocities = [slope, 0.9 * slope]
    for h in range(1, 9):
        kappa = math.exp(-0.3 * (h - 1)) / (1 + math.exp(-1.2))
        velocities.append(kappa * (0.9 - 0.1 * h) * slope + (1 - kappa) * 0.9 * slope)
    assert latents.flatten().tolist() == pytest.approx([-0.1 * sum(velocities)] * 16, rel=1e-4)


def test_the_blend_is_off_by_default_and_counts_the_predictions_above_its_limit():
    toy = {**LINE, "field": lambda s: math.sin(20 * s)}
    plain = scope(0, 99, warmup=3)
    latents, _ = run(Toy(**toy), plain, counters := Counter())
    assert plain.risk == math.inf and "risky" not in counters
    blended, ledger = run(Toy(**toy), replace(plain, risk=0.3), counters := Counter())
    assert not torch.equal(blended, latents) and 0 < counters["risky"] <= modes(ledger).count("p")


@pytest.mark.parametrize("limit", [-0.1, math.nan])
def test_a_limit_that_makes_no_sense_is_refused(limit):
    with pytest.raises(ValueError, match="risk must be positive"):
        Scope(0.1, 0.3, risk=limit)
