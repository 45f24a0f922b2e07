"""docs/results.md and README's table are what the committed records say."""

import pytest

from benchmarks import results
from reports import frontier, read


@pytest.fixture(scope="module")
def report():
    return read(results.BUNDLE)


def test_the_page_of_results_is_what_the_records_say(report):
    assert results.PAGE.read_text(encoding="utf-8") == results.page(report)


def test_the_table_of_the_readme_is_what_the_records_say(report):
    text = results.README.read_text(encoding="utf-8")
    assert results.BEGIN in text and results.inserted(text, report) == text


def test_the_records_are_of_real_videos_of_both_small_models(report):
    assert {"skyreels_tiny", "magi1_tiny"} <= set(report.study.models)
    assert set(report.study.videos["weights"]) == {"pretrained"} and not report.study.damaged
    found = {panel.name: panel.curves for panel in frontier.panels(report)}
    assert set(found) == {"skyreels_tiny, attention=block_causal", "skyreels_tiny, attention=full", "magi1_tiny"}
    for name, curves in found.items():
        wanted = {"ramp", "uniform", "taylorseer"} | ({"scope"} if name != "skyreels_tiny, attention=full" else set())
        assert wanted <= {curve.method for curve in curves}
        assert {len(curve.psnr) for curve in curves} == {results.WANTED}
