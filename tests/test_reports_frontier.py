"""Speedup at equal PSNR: interpolation, bounds, paired intervals, the Pareto front, and which lines form a curve."""

import json

import numpy as np
import pytest

from reports.frontier import Curve, _speedups, at, fixed, front, panels, ratio, reading
from reports.frontier_figure import figure
from reports.frontier_table import left_out, table, write
from reports.report import read
from reports.style import colour
from store import Store
from tests import synthetic


def made(name: str, speedups: list[float], psnr: list[float], spread: float = 0.0, prompts: int = 8) -> Curve:
    """A curve whose prompts differ by a shift in dB that all its settings share."""
    shift = spread * np.linspace(-1, 1, prompts)[:, None]
    return Curve("tiny", name, name, np.tile(speedups, (prompts, 1)), np.array(psnr) + shift)


def test_the_speedup_at_a_level_is_interpolated_in_its_logarithm():
    assert at([(1.5, 50.0), (6.0, 30.0)], 40.0) == (pytest.approx(3.0), "")
    assert at([(1.5, np.inf), (6.0, 30.0)], 40.0) == (1.5, "")  # identical videos: the faster end is not credited


def test_of_a_curve_that_rises_again_the_fastest_crossing_counts():
    assert at([(2.0, 44.0), (3.0, 35.0), (4.0, 42.0), (5.0, 38.0)], 40.0)[0] == pytest.approx(np.sqrt(20))


def test_a_level_outside_of_the_settings_gives_a_bound():
    curve = made("a", [2.0, 4.0], [44.0, 38.0])
    assert str(reading(curve, 45.0)) == "< 2.00×" and str(reading(curve, 32.0)) == "> 4.00×"


def test_the_interval_of_one_curve_is_as_wide_as_its_prompts_and_the_ratio_of_two_is_paired():
    slow = made("slow", [2.0, 4.0, 8.0], [50.0, 40.0, 30.0], spread=4.0)
    fast = made("fast", [4.0, 8.0, 16.0], [50.0, 40.0, 30.0], spread=4.0)
    one = reading(slow, 40.0)
    assert one.low < 4.0 < one.high and one.value == pytest.approx(4.0)
    apart = ratio(fast, slow, 40.0)
    assert (apart.value, apart.low, apart.high) == pytest.approx((2.0, 2.0, 2.0))  # the prompts' shift cancels


def test_one_prompt_has_no_interval():
    assert np.isnan(reading(made("a", [2.0, 4.0], [44.0, 36.0], prompts=1), 40.0).low)


def test_the_front_holds_what_no_other_setting_beats_in_both():
    a, b = made("a", [2.0, 4.0], [50.0, 40.0]), made("b", [3.0, 5.0], [38.0, 41.0])
    assert [(curve.name, round(speedup, 6)) for curve, speedup, _ in front([a, b])] == [("b", 5.0), ("a", 2.0)]


def test_lines_that_differ_in_a_choice_are_other_curves_and_lines_that_differ_in_a_threshold_are_not():
    assert fixed({"method.threshold": 0.1}) == fixed({"method.threshold": 0.2, "method.warmup": 3}) == ()
    assert fixed({"method.order": 0}) != fixed({"method.order": 1})
    assert fixed({"method.per_branch": True}) != ()


def test_the_table_names_the_fastest_curve_first_and_the_figure_draws_every_curve():
    a, b = made("a", [2.0, 4.0, 6.0], [50.0, 40.0, 30.0]), made("b", [3.0, 6.0, 9.0], [50.0, 40.0, 30.0])
    assert list(table([a, b])["method"]) == ["b", "a"] and table([a, b])["40 dB"][0].startswith("6.00×")
    texts = {text.get_text() for text in figure([a, b], "tiny").axes[0].texts}
    assert {"● a", "● b"} <= texts
    assert figure([a], "tiny") is None


def test_methods_of_the_same_colour_have_different_markers():
    alike = [made(name, [2.0, 4.0, 6.0], [50.0, 40.0, 30.0]) for name in ("easycache", "sencache")]
    assert len({colour(curve.method) for curve in alike}) == 1, "want two methods of one colour"
    assert {"● easycache", "■ sencache"} <= {text.get_text() for text in figure(alike, "tiny").axes[0].texts}


def test_three_settings_of_a_method_are_a_curve_and_two_are_none(tmp_path):
    for n, share in enumerate((0.6, 0.4, 0.3)):
        cells = {("original", None): (2.0, 1.0, 0.0), ("teacache", "fast"): (1.0, share, 0.02 * (n + 1))}
        changed = {"method.threshold": 0.1 * (n + 1)}
        synthetic.make_store(tmp_path, cells=cells, videos=False, changed=changed)
    synthetic.make_store(tmp_path, cells={("scope", "slow"): (1.0, 0.3, 0.1), ("scope", "fast"): (1.0, 0.2, 0.2)})
    (panel,) = panels(read(tmp_path))
    (only,) = panel.curves
    assert only.name == "TeaCache" and only.psnr.shape == (3, 3)
    assert [speedup for speedup, _ in only.points] == pytest.approx([1 / 0.6, 1 / 0.4, 1 / 0.3])
    assert list(only.psnr[0]) == sorted(only.psnr[0], reverse=True)


def test_two_methods_over_their_settings_are_written_as_csv_markdown_and_latex(tmp_path):
    for n, share in enumerate((0.6, 0.4, 0.3)):
        cells = {("original", None): (2.0, 1.0, 0.0), ("teacache", "fast"): (1.0, share, 0.02 * (n + 1))}
        cells |= {("scope", "fast"): (1.0, share / 2, 0.02 * (n + 1))}
        changed = {"method.threshold": 0.1 * (n + 1)}
        synthetic.make_store(tmp_path, cells=cells, videos=False, changed=changed)
    write(read(tmp_path), tmp_path)
    texts = {suffix: (tmp_path / f"frontier_skyreels_tiny.{suffix}").read_text() for suffix in ("csv", "md", "tex")}
    assert len(texts["csv"].splitlines()) == 7 and "| TeaCache" in texts["md"]
    assert r"\begin{tabular}" in texts["tex"] and "TeaCache" in texts["tex"] and "SCOPE" in texts["tex"]


@pytest.mark.parametrize("first", [np.inf, 50.0])
def test_the_speedups_of_many_choices_of_prompts_are_those_of_each_choice(first):
    rng = np.random.default_rng(0)
    speedups, psnr = np.sort(rng.uniform(1, 9, (6, 4)), 1), rng.uniform(30, 55, (6, 4))
    psnr[:, 0], psnr[:, 2] = first, psnr[:, 1]
    curve = Curve("tiny", "uniform", "Uniform", speedups, psnr)
    chosen = rng.integers(0, 6, (100, 6))
    for level in (29.0, 36.0, 40.0, 45.0, 60.0):
        points = np.stack([np.exp(np.log(speedups)[chosen].mean(1)), psnr[chosen].mean(1)], -1)
        each = [at(line, level)[0] for line in points]
        assert _speedups(curve, chosen, level) == pytest.approx(each, rel=1e-12)


def settings_of_a_method(root, method, thresholds, **run):
    """A setting of `method` per threshold, and the Originals."""
    for n, threshold in enumerate(thresholds):
        cells = {("original", None): (2.0, 1.0, 0.0), (method, "fast"): (1.0, 0.6 - 0.1 * n, 0.02 * (n + 1))}
        changed = run.get("changed", {}) | {"method.threshold": threshold}
        synthetic.make_store(root, cells=cells, videos=False, **run | {"changed": changed})


def change_one_video(root, threshold, **quality):
    """The scores of one video of a setting, replaced in part."""
    own = next(r for r in Store(root).records() if r.run["changed"].get("method.threshold") == threshold)
    own.write_json("quality.json", json.loads((own.path / "quality.json").read_text()) | quality)


def test_a_broken_video_counts_with_its_low_psnr(tmp_path):
    settings_of_a_method(tmp_path, "teacache", (0.1, 0.2, 0.3))
    change_one_video(tmp_path, 0.2, psnr=5.0, validity={"status": "invalid", "reasons": ["noise"]})
    (panel,) = panels(read(tmp_path))
    assert panel.curves[0].psnr.min() == 5.0 and not left_out(panel)


def test_a_setting_that_lacks_a_video_is_on_no_curve_and_takes_no_prompt_from_the_others(tmp_path):
    settings_of_a_method(tmp_path, "teacache", (0.1, 0.2, 0.3, 0.4))
    change_one_video(tmp_path, 0.2, psnr=None, validity={"status": "invalid", "reasons": ["no frames"]})
    (panel,) = panels(read(tmp_path))
    assert panel.curves[0].psnr.shape == (3, 3)
    assert left_out(panel) == [
        "On no curve, since videos are missing, not scored or equal to the Original: "
        "TeaCache fast (threshold=0.2) (2 of 3)."
    ]


def test_settings_of_the_model_have_their_own_curves_and_files(tmp_path):
    for attention in ("full", "block_causal"):
        for method in ("teacache", "uniform"):
            changed = {"model.attention": attention, "model.frames": 33}
            settings_of_a_method(tmp_path, method, (0.1, 0.2, 0.3), changed=changed)
    found = {panel.kind: panel for panel in panels(read(tmp_path))}
    assert [panel.name for panel in found.values()] == [
        "skyreels_tiny, attention=block_causal",
        "skyreels_tiny, attention=full",
    ]
    write(read(tmp_path), tmp_path)
    assert {path.stem for path in tmp_path.glob("*.csv")} == {f"{kind}_skyreels_tiny" for kind in found}
    assert {curve.name for curve in found["frontier_full"].curves} == {"TeaCache", "Uniform"}
