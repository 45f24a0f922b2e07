"""The Python functions give what the commands give: a video with frames, metrics, a table of videos, a cost."""

import json

import numpy as np
import pytest

from conf.schema import ConfigError
from store import Store, StoreError
from store.bundle import export
from sweep import api
from tests.deadly import write_menu
from tests.test_run import call

UNIFORM = ("model=tiny", "method=uniform", "device=cpu")


@pytest.fixture(scope="module")
def menu(tmp_path_factory):
    return write_menu(tmp_path_factory.mktemp("menu"))


@pytest.fixture(scope="module")
def made(menu, tmp_path_factory):
    results = tmp_path_factory.mktemp("results")
    return results, api.generate("a fox", *UNIFORM, results=results, menu=menu)


def test_a_generated_video_has_frames_and_its_original(made):
    results, record = made
    assert record.status == "ok" and record.run["prompt"] == "a fox" and record.run["method"] == "uniform"
    shown = api.frames(record)
    assert shown.shape == (37, 32, 48, 3) and shown.dtype == np.uint8
    assert {one.run["method"] for one in Store(results).records()} == {"original", "uniform"}


def test_the_same_video_is_not_generated_twice(made, menu):
    results, record = made
    assert api.generate("a fox", *UNIFORM, results=results, menu=menu).run["began"] == record.run["began"]


def test_two_records_are_compared(made):
    results, record = made
    original = next(one for one in Store(results).records() if one.run["method"] == "original")
    found = api.compare(original, record, net="none")
    assert not found.identical and found.psnr > 0 and len(found.per_frame["ssim"]) == 37
    assert api.compare(original, original.path / "frames.mp4", net="none").identical


def test_a_table_has_a_line_per_video_with_decisions_and_curves(made, tmp_path):
    results, record = made
    table = api.load(results).set_index("method")
    assert list(table.index) == ["original", "uniform"] and table["key"]["uniform"] == record.path.name
    assert table["decisions"]["uniform"] == record.run["decisions"]
    assert table["modes"]["uniform"].count("r") == record.run["decisions"]["recompute"]
    assert table["lpips_frames"]["uniform"] == [] and table["flops_speedup"]["uniform"] > 1
    export(Store(results), tmp_path / "lab.jsonl.gz")
    bundled = api.load(tmp_path / "lab.jsonl.gz").set_index("method")
    assert list(bundled["modes"]) == list(table["modes"])


def test_a_plan_is_that_of_the_dry_run(made, menu):
    results, _ = made
    prompts = f"prompts.file={menu / 'prompts.txt'}"
    said = call("--config-dir", menu, *UNIFORM, prompts, f"results={results}", "dry_run=true")
    assert api.plan(*UNIFORM, prompts, results=results, menu=menu) == json.loads(said.out.splitlines()[-1])


def test_bad_input_is_refused(made, menu, tmp_path):
    with pytest.raises(ConfigError):
        api.plan(*UNIFORM, "method.interval=-1", menu=menu)
    with pytest.raises(StoreError, match="no results folder"):
        api.load(tmp_path / "nowhere")
