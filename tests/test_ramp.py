"""Our own: the line of fitted slope by hand, what it is refused for, and the fit on velocities that are known."""

import json
import math
from itertools import combinations

import numpy as np
import pytest
import torch
import yaml

from baselines.budget import Budget
from baselines.ramp import Ramp
from engine.method import Original
from engine.row import VELOCITY, Mode, Row
from sweep.schedules.fit import Statistics, best, growth
from sweep.schedules.fit_task import Recorder, levels_of, mandatory
from sweep.schedules.task import lag_of
from tests import tiny_menu
from tests.tiny import build, texts_of, video
from tests.toy import Toy, modes, run

LINE = {"slots": 2, "block": 2, "lag": 0}
GAINS = [1.0] * 10

# --- the method -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gain, expected", [(1.0, -0.5), (0.0, 0.25), (0.4, -0.05), (-0.5, 0.625)])
def test_the_slope_of_a_step_is_multiplied_by_its_gain(gain, expected):
    """v = s^2 at 1 and 0.5, read at 0: the line ends at 0.25 - 0.75."""
    method = Ramp([[0, 1]], [[*GAINS[:3], gain, *GAINS[4:]]])
    for sigma in (1.0, 0.5):
        row = Row(0, 0, range(1), 10, (1,), (sigma,), (0.4,), (True,), unit=1)
        method.keep(VELOCITY, row, torch.zeros(1, 1), torch.full((1, 1), sigma**2))
    row = Row(0, 0, range(1), 10, (3,), (0.0,), (-0.1,), (True,), unit=1)
    assert method.fill(VELOCITY, row, Mode.PREDICT, torch.zeros(1, 1)).item() == pytest.approx(expected)


def test_with_all_gains_1_it_is_the_fixed_schedule_with_newtons_line():
    schedule, toy = [[0, 2, 5], [0, 3, 4, 8]], {"slots": 6, "block": 2, "lag": 3}
    theirs, ledger = run(Toy(**toy), Budget(schedule))
    for gains in ([], [GAINS, GAINS]):
        ours, same = run(Toy(**toy), Ramp(schedule, gains))
        assert torch.equal(ours, theirs) and modes(same) == modes(ledger)


def test_every_unit_has_its_gains_and_later_units_take_the_last():
    """Field s^2. The second list has gain 0, which keeps the velocity, so units 1 and 2 end equal and differ from
    unit 0."""
    toy = Toy(slots=6, block=2, lag=3, field=lambda s: s * s)
    latents, _ = run(toy, Ramp([[0, 4], [0, 4]], [GAINS, [0.0] * 10]))
    held, _ = run(Toy(slots=6, block=2, lag=3, field=lambda s: s * s), Budget([[0, 4]], order=0))
    assert torch.equal(latents[2:], held[2:]) and not torch.equal(latents[:2], held[:2])


@pytest.fixture(scope="module", params=["full", "block_causal"])
def model(request):
    return build(steps=8, addnoise=0, attention=request.param)


def test_a_full_list_is_the_original_bit_for_bit(model):
    assert torch.equal(video(model, Ramp([[*range(8)]], [[0.3] * 8])), video(model, Original()))


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"computed": [[2, 3]]}, r"each from 0 on, got \[2, 3\]"),
        ({"computed": [[0]], "gains": [[1.0], [1.0]]}, "gains has 2 lists and computed 1"),
        ({"computed": [[0]], "gains": [[math.nan]]}, "a gain is a factor .* got nan"),
        ({"selective": "hull"}, "selective is one of none, prefix, exact"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        Ramp(**changes)


def test_a_fit_to_another_model_length_or_number_of_steps_is_refused(model):
    Ramp([[0, 7]], [[1.0] * 8], made_for={"name": "tiny", "frames": 37}).check(model)
    with pytest.raises(ValueError, match=r"made for name=tiny, frames=97; here frames=37\."):
        Ramp([[0, 7]], made_for={"name": "tiny", "frames": 97}).check(model)
    with pytest.raises(ValueError, match=r"gains has lists of \[9\] steps, and a unit of tiny has 8"):
        Ramp([[0, 7]], [[1.0] * 9]).check(model)


# --- the fit ----------------------------------------------------------------------------------------------------------

LEVELS = np.linspace(1, 0, 11)


def statistics(velocities):
    """The statistics of velocities (steps, values)."""
    return Statistics(velocities @ velocities.T / velocities.shape[1], np.linspace(1, 0, len(velocities) + 1))


def along(*functions):
    """Velocities whose values are these functions of the level, at the first ten levels."""
    return statistics(np.stack([[f(s) for f in functions] for s in LEVELS[:-1]]))


def test_the_gain_of_a_line_is_1_and_that_of_what_has_levelled_off_is_0():
    assert along(lambda s: 3 * s - 1).gain(0, 2, 4) == pytest.approx(1)
    assert along(lambda s: max(s, 0.8)).gain(0, 2, 4) == pytest.approx(0, abs=1e-9)
    assert along(lambda s: s * s).gain(0, 5, 7) == pytest.approx((0.3**2 - 0.5**2) / (0.2 / 0.5 * (0.5**2 - 1)))


def test_a_velocity_that_does_not_change_has_no_slope_to_fit():
    assert along(lambda s: 1.0).gain(0, 2, 4) == 0.0 and along(lambda s: 1.0).added(0, 2, 6) == pytest.approx(0)


def test_what_a_gap_adds_is_what_the_prediction_does_to_the_latents():
    """Calculated from the velocities themselves, for two values at once."""
    functions = (lambda s: s**3, lambda s: math.cos(4 * s))
    own = along(*functions)
    v = np.array([[f(s) for f in functions] for s in LEVELS])
    error = np.zeros(2)
    for k in (4, 5, 6):
        slope = own.gain(1, 3, k) * (LEVELS[k] - LEVELS[3]) / (LEVELS[3] - LEVELS[1])
        error += (LEVELS[k + 1] - LEVELS[k]) * (v[3] + slope * (v[3] - v[1]) - v[k])
    assert own.added(1, 3, 7) == pytest.approx((error**2).mean())
    held = sum((LEVELS[k + 1] - LEVELS[k]) * (v[0] - v[k]) for k in (1, 2))
    assert own.added(None, 0, 3) == pytest.approx((held**2).mean())


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("fixed", [(), (6,)])
def test_the_schedule_is_the_best_of_all(count, fixed):
    own = along(lambda s: s**3, lambda s: math.sin(9 * s), lambda s: math.exp(-8 * s))

    def total(path):
        found = 0.0
        for i, (last, until) in enumerate(zip(path, [*path[1:], 10], strict=True)):
            if until > last + 1:
                found += own.added(path[i - 1] if i else None, last, until) * growth(until, 10)
        return found

    every = [(0, *rest) for rest in combinations(range(1, 10), count - 1) if set(fixed) <= set(rest)]
    path, error = best(own, count, fixed)
    assert error == pytest.approx(min(map(total, every))) and error == pytest.approx(total(path))


def test_a_budget_below_what_is_computed_anyway_is_refused():
    with pytest.raises(ValueError, match=r"want 3 to 10 steps .* \(computed anyway: \[0, 4, 8\]\), got 2"):
        best(along(lambda s: s), 2, {4, 8})


def test_a_full_budget_computes_everything():
    assert best(along(lambda s: s**3), 10) == ([*range(10)], 0.0)


def test_the_recorded_products_are_those_of_the_velocities_by_kind_of_unit():
    """The toy's field is the same in all units: <v_i, v_j> = f(s_i) f(s_j)."""
    recorder, toy = Recorder(), Toy(slots=6, block=2, lag=3, field=lambda s: 1 + s * s)
    run(toy, recorder)
    field = 1 + levels_of(toy.schedule())[:-1] ** 2
    for products in recorder.products(2):
        assert products == pytest.approx(np.outer(field, field))


def test_recording_changes_nothing(model):
    recorder = Recorder()
    assert torch.equal(video(model, recorder), video(model, Original()))
    assert {len(own) for own in recorder.found.values()} == {8}


def test_steps_that_may_not_be_skipped_are_known_by_kind_of_unit():
    rows = [
        Row(
            i,
            0,
            range(4),
            9,
            (i, i, j, j),
            (0.5,) * 4,
            (0.4,) * 4,
            (True,) * 4,
            unit=2,
            forced="again" if i == 5 else "",
        )
        for i, j in ((4, 1), (5, 2), (6, 3))
    ]
    assert mandatory(rows, 0) == {5} and mandatory(rows, 1) == {2}


def test_the_lag_is_read_off_the_rows():
    assert lag_of(Toy(slots=6, block=2, lag=3).schedule()) == 3 and lag_of(Toy(**LINE).schedule()) == 0
    assert lag_of(build(steps=6).schedule()) == 2


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def menu(tmp_path_factory):
    return tiny_menu.write(tmp_path_factory.mktemp("menu"), steps=6, addnoise=0)


def fit(menu, results, *more):
    return tiny_menu.run_experiment("fit_ramp", menu, results, "target=forwards:3", *more)


def test_a_fit_is_written_with_its_evidence_and_can_be_used_as_it_is(menu, tmp_path):
    said = fit(menu, tmp_path)
    assert said.status == 0, said.out + said.err
    text = (tmp_path / "calibration" / "point" / "tiny" / "ramp_fast.yaml").read_text()
    point = yaml.safe_load(text)
    method, model = Ramp(**point["method"]), build(steps=6, addnoise=0)
    method.check(model)
    assert [len(own) for own in method.computed] == [4, 3] and [len(own) for own in method.gains] in ([6, 6], [])
    assert not point["point"]["estimated"] and "experiment=fit_ramp model=tiny" in text
    told = json.loads(said.out.strip().splitlines()[-1])
    assert bool(method.gains) == (told["errors"][0] <= told["gains all 1"][0])  # the better of both is written
    assert told["computed"] == method.computed and len(told["errors"]) == 1 and 0.3 < told["share"] < 0.8
    texts = model.conditioning("a fox", texts_of(model, "a fox"))
    assert texts and torch.isfinite(video(model, method)).all()


@pytest.mark.parametrize(
    "overrides, words",
    [
        (["method=budget"], "method=budget has no gains to fit; want method=ramp"),
        (["target=forwards:9"], "target=forwards:1 to forwards:6"),
        (["prompts=shapes"], "is reported on (the menu's set), so nothing may be calibrated on it"),
        (["experiment=search_schedule", "method=ramp"], "is fitted together with its gains: experiment=fit_ramp"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_fitted_is_refused_in_one_line(menu, tmp_path, overrides, words):
    said = fit(menu, tmp_path, *overrides)
    lines = [line for line in (said.out + said.err).splitlines() if "error:" in line]
    assert said.status == 1 and len(lines) == 1 and words in said.out + said.err
