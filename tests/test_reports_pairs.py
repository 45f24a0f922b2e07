"""A speedup is over the Original that a record names, and over no other."""

import json
import math

import pytest

from reports import players, read
from reports.paired import Finding
from reports.records import load
from store import Store
from tests.synthetic import CELLS, PROMPTS, make_store


def test_a_speedup_is_over_the_original_that_the_record_names_or_blank(tmp_path):
    """The Originals that the videos name have failed. Originals of another setting do not replace them."""
    cells = {cell: CELLS[cell] for cell in (("original", None), ("scope", "fast"))}
    make_store(tmp_path, cells=cells, videos=False)
    make_store(tmp_path, cells=cells, videos=False, changed={"model.frames": 17}, frames=17)
    for record in Store(tmp_path).records():
        if record.run["method"] == "original" and record.run["frames"] == 17:
            told = record.run | {"status": "failed", "reason": "out of memory"}
            (record.path / "run.json").write_text(json.dumps(told))
    lines = {line.name: line for line in read(tmp_path).lines}
    line = lines["SCOPE fast (frames=17)"]
    assert len(line.valid) == 3 and math.isnan(line.value("speedup")) and math.isnan(line.value("flops_speedup"))
    assert line.blanks["speedup"] == "the records name no Original, or it is missing, failed or invalid"
    assert lines["SCOPE fast"].value("flops_speedup") == pytest.approx(1 / 0.28)


def test_players_are_beside_the_original_that_they_name(tmp_path):
    """One prompt and seed at two lengths: two sets of players, each with its own Original first."""
    cells = {cell: CELLS[cell] for cell in (("original", None), ("scope", "fast"))}
    make_store(tmp_path, cells=cells, prompts=PROMPTS[:1], videos=False)
    make_store(tmp_path, cells=cells, prompts=PROMPTS[:1], videos=False, changed={"model.frames": 17}, frames=17)
    shown, left_out = players.prompts(load(tmp_path))
    names = [[player["name"] for player in prompt["players"]] for prompt in shown]
    longer = ["Original (frames=17)", "SCOPE fast (frames=17)"]
    assert left_out == 0 and sorted(names) == [["Original", "SCOPE fast"], longer]


def test_records_that_name_no_original_are_compared_with_no_other_row(tmp_path):
    cells = {cell: CELLS[cell] for cell in (("scope", "fast"), ("teacache", "fast"))}
    make_store(tmp_path, cells=cells, videos=False)
    for record in Store(tmp_path).records():
        (record.path / "run.json").write_text(json.dumps({k: v for k, v in record.run.items() if k != "reference_key"}))
        (record.path / "quality.json").unlink(missing_ok=True)
    report = read(tmp_path)
    assert (report.study.videos["reference"] == "").all()
    assert {pair.finding for pair in report.pairs} == {Finding.NO_VIDEOS}
