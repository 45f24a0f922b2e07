"""Our own: aligned schedules by hand, what they are refused for, and the command that writes operating points."""

import json
from itertools import pairwise, product

import pytest
import torch
import yaml

from baselines.budget import Budget
from baselines.ramp import Ramp
from engine.method import Original
from engine.row import VELOCITY, Mode, Row
from sweep.schedules.aligned import FORMS, free, grid, schedule
from sweep.schedules.task import lag_of
from tests import tiny_menu
from tests.tiny import build, texts_of, video
from tests.toy import Toy, modes, run

LINE = {"slots": 2, "block": 2, "lag": 0}

# --- the method -------------------------------------------------------------------------------------------------------


def test_it_computes_what_the_searched_schedule_with_the_same_lists_computes():
    lists, toy = [[0, 2, 5], [0, 3, 4, 8]], {"slots": 6, "block": 2, "lag": 3}
    (_, same), (_, ledger) = run(Toy(**toy), Ramp(lists)), run(Toy(**toy), Budget(lists))
    assert modes(same) == modes(ledger)


def test_between_computed_steps_the_velocity_lies_on_a_line_over_the_steps_and_not_over_the_noise_levels():
    """Steps 1 and 3 with velocities 10 and 16: 3 a step, so 16 + 2 * 3 = 22 at step 5, whatever the noise levels."""
    ramp, sigma = Ramp([[0, 1, 3]]), (1.0, 0.98, 0.9, 0.7, 0.4, 0.1)

    def part(step):
        return Row(step, 0, range(1), 6, (step,), (sigma[step],), (0.0,), (True,), unit=1)

    for step, value in ((1, 10.0), (3, 16.0)):
        ramp.keep(VELOCITY, part(step), torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1, 1), value))
    assert ramp.fill(VELOCITY, part(5), Mode.PREDICT, torch.zeros(1, 1, 1, 1)).item() == pytest.approx(22.0)


def test_before_a_second_computed_step_the_velocity_is_held():
    ramp = Ramp([[0, 3]])
    first = Row(0, 0, range(1), 6, (0,), (1.0,), (0.9,), (True,), unit=1)
    ramp.keep(VELOCITY, first, torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1, 1), -2.0))
    later = Row(2, 0, range(1), 6, (2,), (0.8,), (0.7,), (True,), unit=1)
    assert ramp.fill(VELOCITY, later, Mode.PREDICT, torch.zeros(1, 1, 1, 1)).item() == -2.0


@pytest.fixture(scope="module", params=["full", "block_causal"])
def model(request):
    return build(steps=8, addnoise=0, attention=request.param)


def test_a_full_list_is_the_original_bit_for_bit(model):
    assert torch.equal(video(model, Ramp([[*range(8)]])), video(model, Original()))


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"computed": [[2, 3]]}, r"each from 0 on, got \[2, 3\]"),
        ({"selective": "hull"}, "selective is one of none, prefix, exact"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        Ramp(**changes)


def test_a_schedule_for_another_model_length_or_number_of_steps_is_refused(model):
    Ramp([[0, 7]], made_for={"name": "tiny", "frames": 37}).check(model)
    with pytest.raises(ValueError, match=r"made for name=tiny, frames=97; here frames=37\."):
        Ramp([[0, 7]], made_for={"name": "tiny", "frames": 97}).check(model)
    with pytest.raises(ValueError, match="computed names step 8, and a unit of tiny has steps 0 to 7"):
        Ramp([[0, 8]]).check(model)


# --- the schedule -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("steps", "lag"), [(50, 5), (64, 16), (30, 7), (8, 3), (50, 0)])
def test_every_budget_is_kept_and_the_ends_are_computed(steps, lag):
    for count, form in product(range(3, steps + 1), FORMS):
        first, others = schedule(steps, lag, count, form)
        assert len(others) == count and {0, steps - 2} <= set(others) and first[0] == 0
        assert others == sorted(set(others)) and first == sorted(set(first)) and first[-1] < steps
        assert len(first) >= count or not lag


@pytest.mark.parametrize(("steps", "count"), [(50, 11), (50, 15), (64, 21)])
def test_the_gaps_of_a_free_first_unit_grow_and_shrink_again_before_its_last_step(steps, count):
    chosen = free(steps, count)
    gaps = [after - before for before, after in pairwise(chosen)]
    long = max(1, int(0.9 * steps / count))
    assert chosen[-1] == steps - 1 and max(gaps) <= long + 1 and gaps[-1] == max(1, long // 2)
    assert gaps[0] == max(1, int(steps / count / 2)) == min(gaps[: steps // 5 // gaps[0]])


def test_a_free_first_unit_computes_every_step_where_the_others_compute_every_second_one():
    assert free(50, 25) == [*range(50)] and free(50, 50) == [*range(50)]


@pytest.mark.parametrize(
    ("steps", "lag", "count"), [(50, 5, 11), (50, 5, 21), (64, 16, 13), (64, 16, 17), (64, 16, 25)]
)
def test_a_unit_finds_its_left_neighbour_computed_in_the_same_row(steps, lag, count):
    """Whatever step a unit computes, its neighbour computes the step `lag` later, except the last but one.

    The first unit does so too where it is aligned.
    """
    first, others = (set(own) for own in schedule(steps, lag, count, "aligned"))
    for step in others - {steps - 2}:
        ahead = step + lag
        assert ahead >= steps or (ahead in others and ahead in first)


def test_a_grid_of_every_row_is_every_step_and_one_of_one_row_repeats_with_the_lag():
    assert grid(12, 4, 4) == [*range(12)] and grid(12, 4, 1) == [0, 4, 8]


def test_a_budget_that_no_schedule_has_is_refused():
    with pytest.raises(ValueError, match="want 3 to 50 steps of every AR unit, got 2"):
        schedule(50, 5, 2)
    with pytest.raises(ValueError, match="form of the first unit is one of free, aligned, got 'dense'"):
        schedule(50, 5, 11, "dense")


def test_the_lag_is_read_off_the_rows():
    assert lag_of(Toy(slots=6, block=2, lag=3).schedule()) == 3 and lag_of(Toy(**LINE).schedule()) == 0
    assert lag_of(build(steps=6).schedule()) == 2


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def menu(tmp_path_factory):
    return tiny_menu.write(tmp_path_factory.mktemp("menu"), steps=6, addnoise=0)


def fit(menu, results, *more):
    return tiny_menu.run_experiment("fit_ramp", menu, results, "target=forwards:3", *more)


def test_a_point_is_written_with_its_evidence_and_can_be_used_as_it_is(menu, tmp_path):
    said = fit(menu, tmp_path)
    assert said.status == 0, said.out + said.err
    text = (tmp_path / "calibration" / "point" / "tiny" / "ramp_fast.yaml").read_text()
    point = yaml.safe_load(text)
    method, model = Ramp(**point["method"]), build(steps=6, addnoise=0)
    method.check(model)
    assert len(method.computed[1]) == 3 and method.computed[0][-1] == 5
    assert not point["point"]["estimated"] and "experiment=fit_ramp model=tiny" in text
    told = json.loads(said.out.strip().splitlines()[-1])
    assert told["computed"] == method.computed and len(told["errors"]) == 1 and 0.3 < told["share"] < 1
    assert told["errors"] == told["forms"][told["form"]]["errors"] == min(one["errors"] for one in told["forms"].values())
    assert all(f"is {form}" in text for form in FORMS)
    texts = model.conditioning("a fox", texts_of(model, "a fox"))
    assert texts and torch.isfinite(video(model, method)).all()


@pytest.mark.parametrize(
    "overrides, words",
    [
        (["method=uniform"], "method=uniform has no schedule to write; want method=ramp"),
        (["target=forwards:9"], "target=forwards:1 to forwards:6"),
        (["prompts=shapes"], "is reported on (the menu's set), so nothing may be calibrated on it"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_fitted_is_refused_in_one_line(menu, tmp_path, overrides, words):
    said = fit(menu, tmp_path, *overrides)
    lines = [line for line in (said.out + said.err).splitlines() if "error:" in line]
    assert said.status == 1 and len(lines) == 1 and words in said.out + said.err
