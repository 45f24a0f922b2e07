"""The control methods uniform and reduced_steps: what they compute depends only on the step number."""

import math

import pytest
import torch

from baselines.reduced_steps import ReducedSteps
from baselines.uniform import Uniform
from engine.ledger import flops
from engine.row import VELOCITY, Mode, Row
from models.skyreels.settings import SkyReels
from tests.tiny import build, ledger_of, video
from tests.toy import Toy, modes, run

LINE = {"slots": 2, "block": 2, "lag": 0}


@pytest.mark.parametrize(
    "interval,word",
    [
        (1, "rrrrrrrrrr"),
        (1.5, "rcrrcrrcrr"),
        (2, "rcrcrcrcrc"),
        (2.5, "rccrcrccrc"),
        (3, "rccrccrccr"),
        (99, "rccccccccc"),
    ],
)
def test_one_row_in_interval_is_computed(interval, word):
    _, ledger = run(Toy(**LINE), Uniform(interval))
    assert modes(ledger) == word


def test_each_segment_begins_anew_and_a_block_that_begins_is_computed():
    """A row that must be computed does not move the next interval. Rows 0, 4, 8, 12 are due; in row 3 a block has no
    history."""
    _, ledger = run(Toy(slots=6, block=2, lag=3, window=4, overlap=2), Uniform(4))
    assert modes(ledger) == "rccrrcccrcccr" + "rcccrcccrc"
    assert [e.iteration for e in ledger if e.why == "no history"] == [0, 3, 13]


def row(sigma):
    return Row(0, 0, range(1), 10, (3,), (sigma,), (sigma - 0.1,), (True,), unit=1)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_order_n_is_exact_on_polynomials_of_degree_n_and_not_above(order):
    for degree in range(4):
        method = Uniform(9, order)
        for sigma in (1.0, 0.9, 0.7):
            method.keep(VELOCITY, row(sigma), torch.zeros(1, 1), torch.full((1, 1), sigma**degree))
        error = abs(method.fill(VELOCITY, row(0.4), Mode.PREDICT, torch.zeros(1, 1)).item() - 0.4**degree)
        assert (error < 1e-6) is (degree <= order)


def test_stand_ins_follow_newtons_polynomial():
    """Order 1, every second row of ten on v = s^2: row 3 extrapolates from s = 1.0 and 0.8 to 0.7, by hand 0.46."""
    toy = Toy(**LINE, field=lambda s: s * s)
    latents, ledger = run(toy, Uniform(2, order=1))
    assert modes(ledger) == "rprprprprp"
    velocities = [1.0, 1.0]  # the second row has one anchor only
    for k in (2, 4, 6, 8):
        s0, s1 = 1 - k / 10, 1 - (k - 2) / 10
        velocities += [s0**2, s0**2 - 0.1 * (s0**2 - s1**2) / (s0 - s1)]
    assert velocities[3] == pytest.approx(0.46)
    assert latents.flatten().tolist() == pytest.approx([-0.1 * sum(velocities)] * 16, abs=1e-6)


@pytest.mark.parametrize("changes", [{"interval": 0.5}, {"interval": math.nan}, {"interval": 2, "order": 3}])
def test_settings_that_make_no_sense_are_refused(changes):
    with pytest.raises(ValueError, match=r"interval must be|order is"):
        Uniform(**changes)


def test_reduced_steps_scales_the_lag_with_the_steps():
    """The paper's 10-step row: 14 + 13 + 13 = 40 iterations, which only ar_step 1 gives."""
    short = ReducedSteps(0.2).reschedule(SkyReels())
    assert (short.steps, short.ar_step) == (10, 1)
    assert len(short.rows([0.0] * 11)) == 40
    assert ReducedSteps(0.2).reschedule(SkyReels(ar_step=0)).ar_step == 0
    assert ReducedSteps(1.0).reschedule(SkyReels()) == SkyReels()
    assert ReducedSteps(0.001).reschedule(SkyReels()).steps == 1


@pytest.mark.parametrize("fraction", [0, -1, 1.01, math.nan])
def test_a_fraction_that_is_none_is_refused(fraction):
    with pytest.raises(ValueError, match="fraction must lie in"):
        ReducedSteps(fraction)


def test_exact_selection_gives_the_same_video_to_rounding_with_fewer_flops():
    model = build(steps=8, addnoise=0, attention="block_causal")
    whole, exact = (Uniform(2, order=1, selective=how) for how in ("none", "exact"))
    torch.testing.assert_close(video(model, exact), video(model, whole), atol=1e-4, rtol=0)
    costs = [flops(ledger_of(model, method), model.price)[0] for method in (whole, exact)]
    assert costs[1] < 0.95 * costs[0]
    with pytest.raises(ValueError, match="selective is one of none, prefix, exact, got 'hull'"):
        Uniform(2, selective="hull")
