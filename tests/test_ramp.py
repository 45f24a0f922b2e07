"""Our own: aligned schedules by hand, what they are refused for, and the command that writes operating points."""

import json
import re

import pytest
import torch
import yaml

from baselines.budget import Budget
from baselines.ramp import Ramp
from conf.schema import CONF
from engine.method import Original
from engine.row import VELOCITY, Mode, Row
from sweep.schedules.aligned import grid, schedule, whole_rows
from sweep.schedules.task import lag_of
from tests import tiny_menu
from tests.tiny import build, texts_of, video
from tests.toy import Toy, modes, run

LINE = {"slots": 2, "block": 2, "lag": 0}

# --- the method -------------------------------------------------------------------------------------------------------


def test_it_computes_the_steps_of_its_lists_as_the_searched_schedule_does():
    lists, toy = [[0, 2, 5], [0, 3, 4, 8]], {"slots": 6, "block": 2, "lag": 3}
    (_, same), (_, ledger) = run(Toy(**toy), Ramp(lists)), run(Toy(**toy), Budget(lists))
    assert modes(same) == modes(ledger)


def part(step):
    """One slot at a step of six, whose noise levels fall faster and faster."""
    sigma = (1.0, 0.98, 0.9, 0.7, 0.4, 0.1, 0.0)
    return Row(step, 0, range(1), 6, (step,), (sigma[step],), (sigma[step + 1],), (True,), unit=1)


def filled(computed, at):
    """The velocity at the step `at` where {step: velocity} were computed before."""
    ramp, x = Ramp([[0, *computed]], retrace=False), torch.zeros(1, 1, 1, 1)
    for step, value in computed.items():
        ramp.keep(VELOCITY, part(step), x, torch.full_like(x, value))
    return ramp.fill(VELOCITY, part(at), Mode.PREDICT, x).item()


def test_between_computed_steps_the_velocity_lies_on_a_line_over_the_steps_and_not_over_the_noise_levels():
    assert filled({1: 10.0, 3: 16.0}, at=5) == pytest.approx(22.0)  # 3 a step; over the noise levels it is 28.9
    assert filled({1: 10.0, 3: -16.0}, at=4) == pytest.approx(-29.0)
    assert filled({1: 5.0, 2: 5.0}, at=5) == 5.0
    assert filled({1: 100.0, 2: 10.0, 3: 16.0}, at=4) == pytest.approx(22.0)  # the last two alone


def test_before_a_second_computed_step_the_velocity_is_held():
    assert filled({1: -2.0}, at=4) == -2.0


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
    for count in range(3, steps + 1):
        first, others = schedule(steps, lag, count)
        assert len(others) == count and {0, steps - 2} <= set(others) and set(others) <= set(first)
        assert others == sorted(others) and first[-1] < steps


@pytest.mark.parametrize(
    ("steps", "lag", "count"), [(50, 5, 11), (50, 5, 21), (64, 16, 13), (64, 16, 17), (64, 16, 25)]
)
def test_a_unit_finds_its_left_neighbour_computed_in_the_same_row(steps, lag, count):
    """Whatever step a unit computes, its neighbour computes the step `lag` later, except the last but one."""
    first, others = (set(own) for own in schedule(steps, lag, count))
    for step in others - {steps - 2}:
        ahead = step + lag
        assert ahead >= steps or (ahead in others and ahead in first)


def test_a_grid_of_every_row_is_every_step_and_one_of_one_row_repeats_with_the_lag():
    assert grid(12, 4, 4) == [*range(12)] and grid(12, 4, 1) == [0, 4, 8]


@pytest.mark.parametrize(("steps", "lag", "units"), [(50, 5, 5), (64, 16, 8), (8, 3, 2), (50, 0, 4)])
def test_whole_rows_begin_with_every_unit_and_all_units_compute_the_same_rows(steps, lag, units):
    begin, end = ({start + lag * unit for unit in range(units)} for start in (0, steps - 2))
    for count in range(len(begin | end), steps):
        lists = whole_rows(steps, lag, units, count)
        assert all(steps - 2 in own or {steps - 3, steps - 1} <= {*own} for own in lists)
        rows = {lag * unit + step for unit, own in enumerate(lists) for step in own}
        assert len(rows) == count and len(lists) == units and all(own[0] == 0 for own in lists)
        for unit, own in enumerate(lists):
            assert own == sorted(row - lag * unit for row in rows if 0 <= row - lag * unit < steps)


@pytest.mark.parametrize("count", [9, 71])
def test_fewer_rows_than_units_need_and_more_than_there_are_are_refused(count):
    with pytest.raises(ValueError, match=f"want 10 to 70 rows, got {count}"):
        whole_rows(50, 5, 5, count)


def test_a_budget_that_no_schedule_has_is_refused():
    with pytest.raises(ValueError, match="want 3 to 50 steps of every AR unit, got 2"):
        schedule(50, 5, 2)


POINTS = sorted((CONF / "point").glob("*_tiny/ramp_*.yaml"))


@pytest.mark.parametrize("path", POINTS, ids=lambda path: f"{path.parent.name} {path.stem}")
def test_the_shipped_points_are_those_of_the_rule(path):
    text = path.read_text(encoding="utf-8")
    own, count = yaml.safe_load(text)["method"], int(re.search(r"target=forwards:(\d+)", text)[1])
    made, steps = own["made_for"], own["made_for"]["steps"]
    lag = made["ar_step"] if "ar_step" in made else steps // made["window"]
    full = made.get("attention") == "full"
    assert own["computed"] == (whole_rows(steps, lag, 5, count) if full else [*schedule(steps, lag, count)])


def test_the_lag_is_read_off_the_rows():
    assert lag_of(Toy(slots=6, block=2, lag=3).schedule()) == 3 and lag_of(Toy(**LINE).schedule()) == 0
    assert lag_of(build(steps=6).schedule()) == 2


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def menu(tmp_path_factory):
    return tiny_menu.write(tmp_path_factory.mktemp("menu"), steps=6, addnoise=0, attention="block_causal")


def fit(menu, results, *more):
    return tiny_menu.run_experiment("fit_ramp", menu, results, "target=forwards:3", *more)


def test_a_point_is_written_with_its_evidence_and_can_be_used_as_it_is(menu, tmp_path):
    said = fit(menu, tmp_path)
    assert said.status == 0, said.out + said.err
    text = (tmp_path / "calibration" / "point" / "tiny" / "ramp_fast.yaml").read_text()
    point = yaml.safe_load(text)
    method, model = Ramp(**point["method"]), build(steps=6, addnoise=0, attention="block_causal")
    method.check(model)
    assert len(method.computed[1]) == 3 and set(method.computed[1]) <= set(method.computed[0])
    assert not point["point"]["estimated"] and "experiment=fit_ramp model=tiny" in text
    told = json.loads(said.out.strip().splitlines()[-1])
    assert told["computed"] == method.computed and len(told["errors"]) == 1 and 0.3 < told["share"] < 1
    texts = model.conditioning("a fox", texts_of(model, "a fox"))
    assert texts and torch.isfinite(video(model, method)).all()


def test_under_full_attention_the_target_is_a_number_of_whole_rows(menu, tmp_path):
    said = fit(menu, tmp_path, "model.attention=full", "method.selective=stored", "target=forwards:8")
    assert said.status == 0, said.out + said.err
    told = json.loads(said.out.strip().splitlines()[-1])
    rows = {(2 * unit + step) for unit, own in enumerate(told["computed"]) for step in own}
    assert told["count"] == len(rows) == 8 and all(own[0] == 0 for own in told["computed"])


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
