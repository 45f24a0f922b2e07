"""What the comparisons at equal cost rest on."""

import numpy as np
import pytest

from baselines.teacache import TeaCache
from baselines.uniform import Uniform
from benchmarks.equal_forwards import Contest, interval_of, prediction_gain, rivals
from benchmarks.fit_teacache import Watch, fit
from benchmarks.rehearsal_table import read, update
from conf.schema import CONF
from engine.ledger import forwards
from engine.method import Original
from models.shapes import prompts
from scope.method import Scope
from sweep.calibration.rehearsal import rehearse
from tests.tiny import build, ledger_of, texts_of, video


@pytest.fixture(scope="module")
def model():
    return build(steps=12, addnoise=0)


@pytest.fixture(scope="module")
def text(model):
    return model.conditioning("a fox", texts_of(model, "a fox"))


@pytest.mark.parametrize(
    "method", [Uniform(2.5), TeaCache(0.5, fit="none", warmup=1), Scope(0.3, 0.9, selective="none")]
)
def test_a_rehearsal_decides_as_the_run_does(model, text, method):
    decided = [(e.iteration, e.mode) for e in rehearse(model, method, text)]
    assert decided == [(e.iteration, e.mode) for e in ledger_of(model, method)]
    assert len({mode for _, mode in decided}) > 1


@pytest.fixture(scope="module")
def contest(model, text):
    return Contest(model, [text])


@pytest.mark.slow
def test_contenders_meet_at_the_forwards_of_the_control(model, text, contest):
    scope, tea = Scope(0.2, 0.5), TeaCache(0.1, fit="none", warmup=1, pool="slot")
    found = rivals(contest, scope, tea, 3.0)
    wanted = found["uniform order 0"][1]
    assert wanted < forwards(rehearse(model, Original(), text), 2)
    for name, (_, count) in found.items():
        assert abs(count - wanted) <= 2, name


def test_of_variants_equally_dear_the_nearest_to_the_original_is_taken(contest):
    """Two uniform controls with equal numbers of forwards, and one that computes everything and is not ranked."""
    wanted = contest.forwards(Uniform(3.0))
    near, far, dear = Uniform(3.0), Scope(9.0, 9.0, max_skip=20, selective="none"), Original()
    assert contest.best([(far, wanted), (near, wanted), (dear, 2 * wanted)], wanted)[0] is near


def test_forwards_that_depend_on_the_content_are_counted_in_videos(model, contest):
    method = Scope(0.05, 0.2, signal="latent", selective="none")
    assert contest.forwards(method) == forwards(ledger_of(model, method, seed=1_000_000), 2)


def test_the_search_finds_the_nearest_number_when_the_wanted_one_does_not_exist(model, text, contest):
    method, count = contest.at_forwards(lambda k: Uniform(1 + k), 0, 1.0)
    assert count == forwards(rehearse(model, method, text), 2) > 0


def test_what_prediction_adds_is_order_one_over_order_zero():
    scores = {(4.0, "uniform order 1"): [40.0, 42.0, 41.0], (4.0, "uniform order 0"): [38.0, 39.0, 39.0]}
    gain = prediction_gain(4.0, scores)
    assert gain["gain"] == pytest.approx(7 / 3) and 2.0 <= gain["low"] <= gain["gain"] <= gain["high"] <= 3.0


def test_the_fit_recovers_a_polynomial_and_says_where_it_holds():
    r = np.linspace(0.01, 0.3, 400)
    found = fit(list(zip(r, 2 * r**2 + 0.5 * r + 0.01, strict=True)))
    assert np.allclose(np.polyval(found["coefficients"], r), 2 * r**2 + 0.5 * r + 0.01, atol=1e-6)
    assert found["rises"] and found["r_squared"] > 0.9999
    assert 0.01 <= found["range"][0] < found["range"][1] <= 0.3


def test_watching_changes_nothing_and_sees_every_step_but_the_first(model):
    watch = Watch()
    assert video(model, watch).equal(video(model, Original()))
    slots, steps = model.settings.latents, model.settings.steps
    assert len(watch.pairs) == slots * (steps - 1)
    assert all(r >= 0 and y > 0 for r, y in watch.pairs)


def test_the_interval_of_a_paired_difference_holds_its_mean():
    gains = np.random.default_rng(0).normal(1.0, 0.5, 32)
    low, high = interval_of(gains)
    assert 0.5 < low < gains.mean() < high < 1.5


def test_the_prompt_file_is_the_held_out_split():
    lines = (CONF / "prompts" / "shapes.txt").read_text().splitlines()
    assert lines[1:] == prompts("held_out", 96)


def test_a_rehearsed_row_takes_the_place_of_its_old_line_and_leaves_the_others(tmp_path):
    row = {"refused": "", "denoising": 7.031e9, "state": 0, "decoding": 1e10, "waits": 0.5, "kernels": {"flash": 4}}
    first = {"model": "a", "method": "scope", **row, "faults": {}, "named": {"wait at x.py:f": 2}}
    second = {"model": "b", "method": "scope", "refused": "scope needs 9 steps, or less"}
    path = tmp_path / "table.csv"
    update(path, [first, second])
    update(path, [{**first, "method": "uniform"}, {**first, "denoising": 8e9}])
    lines = read(path)
    assert [(of["model"], of["method"], of["peak_gb"]) for of in lines] == [
        ("a", "scope", "8.00"),
        ("a", "uniform", "7.03"),
        ("b", "scope", ""),
    ]
    assert lines[0]["note"] == "2 times wait at x.py:f" and lines[0]["kernels"] == "flash 4"
    assert lines[2]["note"] == "refused: scope needs 9 steps, or less"
