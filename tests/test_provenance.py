"""A line of a table is marked if its records, or its records and their Originals, were made in different ways."""

import json

import pytest

from reports import read
from reports.notes import notes
from reports.records import load
from store import KEY_VERSION
from tests.synthetic import CELLS, make_store

TWO = {cell: CELLS[cell] for cell in (("original", None), ("scope", "fast"))}
ENVIRONMENT = {"packages": {"torch": "2.12.0", "diffusers": "0.36.0"}, "threads": 1, "commit": "abc", "dirty": False}
MADE = {"model": {"class": "Toy", "code": "m" * 12}, "method": {"class": "Own", "code": "o" * 12}, "weights": "w" * 12}


@pytest.fixture
def made(tmp_path):
    """made({method: change}, only) -> the main table's lines and notes, with changes to records of a method."""

    def change(changes, only=(0, 1, 2), **run):
        given = {"environment": ENVIRONMENT, "produced_by": MADE, "key_version": KEY_VERSION} | run
        make_store(tmp_path, cells=TWO, videos=False, **given)
        for record in load(tmp_path).records:
            if record.run["method"] in changes and record.run["prompt_id"] in only:
                content = json.loads((record.path / "run.json").read_text())
                for path, value in changes[record.run["method"]].items():
                    *inner, last = path.split(".")
                    place = content
                    for name in inner:
                        place = place[name]
                    place[last] = value
                (record.path / "run.json").write_text(json.dumps(content))
        report = read(tmp_path)
        marks = {line.method: "; ".join(map(str, line.marks)) for line in report.lines}
        return marks, "\n".join(notes(report))

    return change


def test_records_that_were_made_alike_have_no_such_mark(made):
    marks, notes = made({})
    assert not any(words in text for text in marks.values() for words in ("differ in", "made with"))
    assert "can change a number" not in notes and "older keys" not in notes


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("environment.packages.torch", "2.1.0", "torch (2.1.0, 2.12.0)"),
        ("environment.packages.diffusers", "0.35.0", "diffusers (0.35.0, 0.36.0)"),
        ("environment.threads", 64, "threads (1, 64)"),
        ("environment.commit", "def", "commit (abc, def)"),
        ("environment.dirty", True, "commit (abc, abc with changes)"),
        ("produced_by.method.code", "x" * 12, "method code (oooooooooooo, xxxxxxxxxxxx)"),
        ("produced_by.model.code", "x" * 12, "model code (mmmmmmmmmmmm, xxxxxxxxxxxx)"),
        ("produced_by.weights", "x" * 12, "weights (wwwwwwwwwwww, xxxxxxxxxxxx)"),
        ("key_version", 1, "kind of key (older, present)"),
    ],
)
def test_a_line_of_records_that_differ_says_in_what(made, path, value, said):
    marks, notes = made({"scope": {path: value}}, only=[1])
    assert f"records differ in {said}" in marks["scope"] and "differ" not in marks["original"]
    assert f"SCOPE fast on skyreels_tiny: records differ in {said}, which can change a number." in notes


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("environment.packages.torch", "2.4.1", "made with torch 2.12.0, its Originals with 2.4.1"),
        ("environment.threads", 64, "made with threads 1, its Originals with 64"),
        ("produced_by.model.code", "x" * 12, "made with model code mmmmmmmmmmmm, its Originals with xxxxxxxxxxxx"),
        ("produced_by.weights", "x" * 12, "made with weights wwwwwwwwwwww, its Originals with xxxxxxxxxxxx"),
    ],
)
def test_originals_that_were_made_in_another_way_are_marked_as_those_of_another_gpu_are(made, path, value, said):
    marks, notes = made({"original": {path: value}})
    assert said in marks["scope"] and said not in marks["original"] and said in notes


def test_an_original_and_its_methods_need_not_have_one_method_code(made):
    marks, _ = made({"original": {"produced_by.method.code": "x" * 12}})
    assert "method code" not in marks["scope"]


def test_what_a_record_does_not_say_is_no_difference(made):
    marks, notes = made({}, environment={}, produced_by={}, key_version=1)
    assert not any(words in text for text in marks.values() for words in ("differ in", "made with"))
    assert "6 of 6 records have older keys" in notes


def test_records_of_an_older_key_beside_new_ones_of_the_same_video_are_a_line_of_their_own(tmp_path):
    old = MADE | {"method": {"class": "baselines.Own", "code": "z" * 12}, "model": {"class": "Toy"}}
    make_store(tmp_path, cells=TWO, videos=False, produced_by=old)
    for record in load(tmp_path).records:
        record.path.rename(record.path.with_name(record.path.name[:-2] + "zz"))
    make_store(tmp_path, cells=TWO, videos=False, produced_by=MADE, key_version=KEY_VERSION)
    study = load(tmp_path)
    assert set(study.videos["variant"]) == {"", "older key"}
    assert set(study.videos[study.videos["variant"] == ""]["key"].str[-2:]).isdisjoint({"zz"})
