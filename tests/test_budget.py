"""Fixed schedules: what they compute and extrapolate, what they are refused for, and the search by hand."""

import json
import math

import pytest
import torch
import yaml

from baselines.budget import Budget
from conf.schema import read_target
from engine.ledger import flops, plan
from engine.method import Original
from engine.row import VELOCITY, Mode, Row
from sweep.schedules.search import ScheduleSearch, even, spread
from tests import tiny_menu
from tests.tiny import build, ledger_of, video
from tests.toy import Toy, modes, run

LINE = {"slots": 2, "block": 2, "lag": 0}

# --- the method -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "computed, word",
    [
        ([], "rrrrrrrrrr"),
        ([[0]], "rppppppppp"),
        ([[0, 1, 8]], "rrpppppprp"),
        ([[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]], "rrrrrrrrrr"),
    ],
)
def test_the_steps_of_the_list_are_computed_and_no_others(computed, word):
    assert modes(run(Toy(**LINE), Budget(computed))[1]) == word


def test_every_unit_has_its_list_and_later_units_take_the_last():
    """Three units with a lag of 3 rows: each is computed at the steps of its own list, independent of its
    neighbours."""
    _, ledger = run(Toy(slots=6, block=2, lag=3), Budget([[0, 5], [0, 2, 9]]))
    steps = {u: [e.step for e in ledger if e.unit == u and e.mode == "recompute"] for u in range(3)}
    assert steps == {0: [0, 5], 1: [0, 2, 9], 2: [0, 2, 9]}


def test_the_units_of_a_later_segment_are_counted_from_its_first_new_one():
    toy = Toy(slots=6, block=2, lag=3, window=4, overlap=2)
    _, ledger = run(toy, Budget([[0, 5], [0, 2, 9]]))
    assert [e.step for e in ledger if e.segment == 1 and e.mode == "recompute"] in ([0, 5], [0, 2, 9])


@pytest.mark.parametrize("order", [0, 1, 2])
def test_order_n_is_exact_on_polynomials_of_degree_n_and_not_above(order):
    def row(sigma):
        return Row(0, 0, range(1), 10, (3,), (sigma,), (sigma - 0.1,), (True,), unit=1)

    for degree in range(4):
        method = Budget(order=order)
        for sigma in (1.0, 0.9, 0.7):
            method.keep(VELOCITY, row(sigma), torch.zeros(1, 1), torch.full((1, 1), sigma**degree))
        error = abs(method.fill(VELOCITY, row(0.4), Mode.PREDICT, torch.zeros(1, 1)).item() - 0.4**degree)
        assert (error < 1e-6) is (degree <= order)


@pytest.fixture(scope="module", params=["full", "block_causal"])
def model(request):
    return build(steps=8, addnoise=0, attention=request.param)


def test_a_full_list_is_the_original_bit_for_bit(model):
    assert torch.equal(video(model, Budget([[*range(8)]])), video(model, Original()))


def test_exact_selection_of_a_full_list_is_the_original_to_rounding_and_cheaper():
    model = build(steps=8, addnoise=0, attention="block_causal")
    method = Budget([[*range(8)]], selective="exact")
    assert torch.allclose(video(model, method), video(model, Original()), atol=1e-4)
    assert flops(ledger_of(model, method), model.price)[0] < 0.9 * flops(plan(model.schedule()), model.price)[0]


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"computed": [[1, 2]]}, r"each from 0 on, got \[1, 2\]"),
        ({"computed": [[0, 3, 3]]}, r"got \[0, 3, 3\]"),
        ({"computed": [[0, 1], []]}, r"got \[\]"),
        ({"order": 3}, "order is 0, 1 or 2, got 3"),
        ({"selective": "hull"}, "selective is one of none, prefix, exact, stored, got 'hull'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        Budget(**changes)


def test_a_schedule_for_another_model_length_or_number_of_steps_is_refused_with_what_it_was_made_for(model):
    made_for = {"name": "tiny", "frames": 37, "steps": 8}
    Budget([[0, 7]], made_for=made_for).check(model)
    for key, value in (("name", "skyreels"), ("frames", 97), ("steps", 50), ("window", 4)):
        with pytest.raises(ValueError, match=rf"made for .*{key}={value}.*; here {key}=.*search_schedule"):
            Budget([[0, 7]], made_for=made_for | {key: value}).check(model)
    with pytest.raises(ValueError, match="computed names step 8, and a unit of tiny has steps 0 to 7"):
        Budget([[0, 8]]).check(model)


# --- the search -------------------------------------------------------------------------------------------------------


def test_it_finds_the_steps_that_matter_and_keeps_their_number():
    """The error is the sum of the costs of the omitted steps. Steps 1, 8 and 9 of ten cost most, in every unit."""
    worth = [0, 9, 1, 1, 1, 1, 1, 1, 8, 7]
    search = ScheduleSearch(
        lambda schedule: 1 + sum(worth[k] for own in schedule for k in range(10) if k not in own),
        10,
        4,
        2,
        3,
        tries=150,
    )
    schedule, error = search.run()
    assert schedule == ((0, 1, 8, 9),) * 2 and error == 1 + 2 * 6
    assert all(len(own) == 4 and own[0] == 0 for tried in search.tried for own in tried) and len(search.tried) <= 150


def test_a_search_that_is_stopped_goes_on_where_it_was():
    error = lambda schedule: sum(abs(k - 7 * i) for own in schedule for i, k in enumerate(own))  # noqa: E731
    whole = ScheduleSearch(error, 20, 4, 1, 0, tries=60)
    best = whole.run()
    known, asked = dict(list(whole.tried.items())[:25]), []
    again = ScheduleSearch(lambda s: asked.append(s) or error(s), 20, 4, 1, 0, tries=60, tried=dict(known))
    assert again.run() == best and list(again.tried) == list(whole.tried)
    assert len(asked) == len(whole.tried) - 25 and not set(asked) & set(known)


def test_a_small_space_is_searched_as_a_whole_and_then_left():
    search = ScheduleSearch(lambda s: s[0][1], 4, 2, 1, 0, tries=300)
    assert search.run() == (((0, 1),), 1) and len(search.tried) == 3


def test_it_begins_from_the_better_of_an_even_and_an_aligned_schedule():
    """50 steps, lag 5: multiples of 5 up to step 20, where the left neighbour is computed in the same row."""
    asked = []
    search = ScheduleSearch(lambda s: asked.append(s) or float(5 not in s[0]), 50, 9, 2, 5, tries=2)
    assert search.run() == (((0, 5, 10, 15, 20, 27, 34, 41, 48),) * 2, 0.0)
    assert asked[0] == (even(50, 9),) * 2 and len(asked) == 2


def test_what_gives_no_video_is_never_kept():
    search = ScheduleSearch(lambda s: math.inf if 5 in s[0] else 1.0, 10, 3, 1, 0, tries=30)
    assert 5 not in search.run()[0][0]


@pytest.mark.parametrize("count", [0, 11])
def test_a_budget_that_is_none_is_refused(count):
    with pytest.raises(ValueError, match="want a budget of 1 to 10 forwards of every AR unit"):
        ScheduleSearch(lambda s: 0.0, 10, count, 1, 0, 9)


def test_the_first_schedule_is_even_and_computes_the_last_but_one_step():
    assert even(50, 11) == (0, 5, 10, 14, 19, 24, 29, 34, 38, 43, 48)
    for count in range(1, 9):
        own = even(8, count)
        assert len(set(own)) == count and own[0] == 0 and list(own) == sorted(own) and own[-1] < 8


def test_fixed_steps_are_in_every_schedule_that_is_tried():
    """The error counts computed steps below 8, so the three fixed ones are all that is left of these."""
    search = ScheduleSearch(lambda s: float(sum(k < 8 for k in s[0])), 14, 6, 1, 0, tries=60, fixed=(0, 2, 4))
    best, error = search.run()
    assert best[0][:3] == (0, 2, 4) and error == 3
    assert all({0, 2, 4} <= {*tried[0]} and len(tried[0]) == 6 for tried in search.tried)


def test_rows_begin_with_the_fixed_ones_the_last_but_one_and_the_middle_of_the_widest_gap():
    assert spread(14, 3, (0, 2, 4)) == (0, 2, 4) and spread(14, 4, (0, 2, 4)) == (0, 2, 4, 12)
    assert spread(14, 6, (0, 2, 4)) == (0, 2, 4, 6, 8, 12) and spread(14, 14, (0, 2, 4)) == tuple(range(14))
    assert spread(50, 11, (0,)) == even(50, 11)
    for count in (2, 15):
        with pytest.raises(ValueError, match=f"want 3 to 14 computed rows, got {count}"):
            spread(14, count, (0, 2, 4))


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def menu(tmp_path_factory):
    return tiny_menu.write(tmp_path_factory.mktemp("menu"), steps=6, addnoise=0, attention="block_causal")


def search(menu, results, *more):
    return tiny_menu.run_experiment("search_schedule", menu, results, "target=forwards:3", *more)


def test_a_schedule_is_written_with_its_evidence_used_as_it_is_and_not_searched_twice(menu, tmp_path):
    said = search(menu, tmp_path, "tries=4")
    assert said.status == 0, said.out + said.err
    path = tmp_path / "calibration" / "point" / "tiny" / "budget_fast.yaml"
    text = path.read_text()
    point = yaml.safe_load(text)
    assert "1 prompts that are not reported on" in text and "target=forwards:3 tries=4 prompts.limit=1" in text
    assert point["method"]["made_for"] == {
        "name": "tiny",
        "frames": 37,
        "steps": 6,
        "attention": "block_causal",
        "ar_step": 2,
        "block": 2,
    }
    assert {len(own) for own in point["method"]["computed"]} == {3} and not point["point"]["estimated"]
    kept = json.loads((tmp_path / "calibration" / "tiny" / "budget_fast_schedules.json").read_text())
    best = min(kept["tried"], key=lambda tried: sum(tried[1]))
    assert len(kept["tried"]) == 4 and point["method"]["computed"][0] == best[0][0]
    model = build(steps=6, addnoise=0, attention="block_causal")
    method = Budget(**point["method"])
    method.check(model)
    assert 0.3 < flops(ledger_of(model, method), model.price)[0] / flops(plan(model.schedule()), model.price)[0] < 0.8
    again = search(menu, tmp_path, "tries=4")
    assert "goes on: 4 schedules are known" in again.out and path.read_text() == text
    more = json.loads(search(menu, tmp_path, "tries=6").out.strip().splitlines()[-1])
    assert more["tried"] == 6


def test_under_full_attention_whole_rows_are_chosen_and_every_row_computes_all_units_or_none(menu, tmp_path):
    """Five units begin in rows 0, 2, 4, 6 and 8 of 14."""
    whole = [menu, tmp_path, "model.attention=full", "tries=3"]
    for target in (4, 15):
        assert f"target=forwards:{target}: a schedule is made for whole rows, target=forwards:5 to forwards:14" in (
            search(*whole, f"target=forwards:{target}").out
        )
    said = search(*whole, "target=forwards:8")
    assert said.status == 0, said.out + said.err
    text = (tmp_path / "calibration" / "point" / "tiny" / "budget_fast.yaml").read_text()
    assert "8 of 14 rows, computed as a whole." in text
    model, method = build(steps=6, addnoise=0), Budget(**yaml.safe_load(text)["method"])
    method.check(model)
    decided = {}
    for entry in ledger_of(model, method):
        decided.setdefault(entry.iteration, set()).add(entry.mode == "recompute")
    assert all(len(modes) == 1 for modes in decided.values()) and sum(True in modes for modes in decided.values()) == 8


@pytest.mark.parametrize(
    "overrides, words",
    [
        (["target=forwards:7"], "target=forwards:7: a schedule is made for whole steps"),
        (["target=forwards:2.5"], "target=forwards:1 to forwards:6"),
        (["target=flops:0.3"], "target=flops:0.3: a schedule is made for whole steps"),
        (["method=uniform"], "method=uniform has no schedule to search; want method=budget"),
        (["speed=none"], "speed=none names no point to write"),
        (["prompts=shapes"], "is reported on (the menu's set), so nothing may be calibrated on it"),
        (["prompts.list=[]", "prompts.file=''"], "no prompts: give prompts.file=FILE"),
        (["tries=0"], "tries=0: want at least 1 schedule to try"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_searched_is_refused_in_one_line(menu, tmp_path, overrides, words):
    said = search(menu, tmp_path, *overrides)
    lines = [line for line in (said.out + said.err).splitlines() if "error:" in line]
    assert said.status == 1 and len(lines) == 1 and words in said.out + said.err
    assert not list(tmp_path.rglob("budget_fast.yaml"))


def test_a_calibration_on_what_is_reported_on_is_refused_as_well(menu, tmp_path):
    said = search(menu, tmp_path, "experiment=calibrate", "method=uniform", "prompts=shapes", "target=flops:0.5")
    assert said.status == 1 and "is reported on" in said.out + said.err
    said = search(menu, tmp_path, "experiment=calibrate", "method=uniform")
    assert said.status == 1 and "target=forwards:3 is no cost of a setting" in said.out + said.err


def test_the_target_of_a_schedule_is_read():
    assert read_target("forwards:12") == ("forwards", 12.0)
