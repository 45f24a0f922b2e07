"""The page of few steps: what a pass is, what a gain is, and that the page is what its tables say."""

import csv

import numpy as np
import pytest

from benchmarks import few_steps, few_steps_page
from benchmarks.few_steps_page import Setting, gain, settings


def one(method, steps, gflop, psnr, prompts=("a", "b", "c")):
    right = np.ones((len(prompts), 3), int)
    passes = ((1, 2),) * len(prompts)
    return Setting("m", method, "", steps, prompts, passes, np.array(gflop, float), np.array(psnr, float), right)


FIXED = [
    one("original", 2, [1, 1, 1], [20, 22, 24]),
    one("original", 4, [4, 4, 4], [30, 32, 34]),
    one("original", 50, [40, 40, 40], [np.inf] * 3),
]


def test_a_gain_is_the_difference_from_fixed_steps_of_the_same_flops_by_hand():
    """At 2 GFLOP, half of the way from 1 to 4 on a log scale, fixed steps have 25, 27 and 29 dB."""
    found = gain(one("dsa", 8, [2, 2, 2], [26, 28, 30]), FIXED)
    assert (found.value, found.low, found.high) == pytest.approx((1, 1, 1)) and found.words.startswith("1.00 dB better")
    apart = gain(one("dsa", 8, [2, 2, 2], [26, 26, 29]), FIXED)
    assert apart.value == pytest.approx(0) and apart.words.startswith("not significantly different")
    assert gain(one("dsa", 8, [1, 2, 4], [19, 26, 33]), FIXED).words.startswith("1.00 dB worse")


def test_there_is_no_gain_outside_of_the_fixed_steps_or_on_other_prompts():
    assert gain(one("dsa", 8, [2, 2, 5], [26, 28, 30]), FIXED) is None
    assert gain(one("dsa", 8, [2, 2, 2], [26, 28, 30], ("a", "b", "d")), FIXED) is None


def test_passes_are_forwards_of_each_chunk_without_clean_passes_and_skipped_steps():
    ran = {"active": [0, 1], "unit": 0, "sites": []}
    skipped, clean = ran | {"sites": ["velocity"]}, ran | {"active": [0, 0]}
    partly = {"active": [1, 3], "unit": 1, "sites": ["blocks 1:6"]}
    assert few_steps.passes([ran, skipped, ran, clean, partly, partly, partly]) == [2, 3]


def test_psnr_is_over_all_frames():
    black = np.zeros((2, 4, 4, 3), np.uint8)
    other = black.copy()
    other[0] = 1
    assert few_steps.psnr(black, black) == np.inf
    assert few_steps.psnr(other, black) == pytest.approx(10 * np.log10(255**2 / 0.5))


def test_the_table_is_read_by_model_method_and_setting(tmp_path):
    path = tmp_path / "t.csv"
    line = dict.fromkeys(few_steps.FIELDS, 1) | {"model": "m", "method": "dsa", "setting": "(stop=0.1)", "steps": 8}
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, few_steps.FIELDS)
        writer.writeheader()
        writer.writerows([line | {"prompt": p, "passes": "2 3", "gflop": 1.5, "psnr": 30} for p in ("b", "a")])
    (found,) = settings(path)
    assert found.prompts == ("a", "b") and found.mean_passes == 2.5 and found.spread == "2 to 3"
    assert found.name == "DSA (stop=0.1), 8 steps"


def test_the_committed_page_is_what_its_tables_say():
    assert few_steps_page.PAGE.read_text(encoding="utf-8") == few_steps_page.page()


def test_the_committed_table_compares_every_setting_with_fixed_steps_of_the_same_weights():
    found = settings()
    assert {"original", "scope", "xcache", "uniform", "dsa_proxy", "dsa"} <= {one.method for one in found}
    for setting in found:
        reference = [f for f in found if f.model == setting.model and f.method == "original" and f.steps == 50]
        assert len(reference) == 1 and reference[0].prompts == setting.prompts and np.isinf(reference[0].psnr).all()
