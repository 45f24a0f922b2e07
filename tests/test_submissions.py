"""Every file in submissions/ is a bundle that holds what a table needs; the check refuses a bundle that does not."""

from pathlib import Path

import pytest

from reports import read
from reports.sources import joined, opened
from store import Store
from store.__main__ import main
from store.bundle import SUFFIX, export
from store.submission import problems
from tests.synthetic import CELLS, make_store
from tests.test_bundle import rewritten

FOLDER = Path(__file__).parent.parent / "submissions"
SENT = sorted(path for path in FOLDER.iterdir() if path.name != "README.md")
FEW = {name: CELLS[name] for name in (("original", None), ("scope", "fast"))}
MACHINE = {"gpu": "A100", "packages": {"torch": "2.12"}}


@pytest.mark.parametrize("path", SENT, ids=lambda path: path.name)
def test_a_submission_can_be_read_whole(path):
    assert path.name.endswith(SUFFIX) and not problems(path)


def test_submissions_do_not_contradict_each_other_and_give_a_table():
    assert SENT
    records, damaged = joined([opened(path) for path in SENT])
    assert records and not damaged
    assert all(line.machine for line in read(*SENT, into=FOLDER).lines)


@pytest.fixture
def bundle(tmp_path):
    def make(**run):
        root = tmp_path / f"lab{len(list(tmp_path.iterdir()))}"
        make_store(root, videos=False, cells=FEW, prompts=["a fox"], **{"environment": MACHINE, "key_version": 2} | run)
        path = root.with_name(f"{root.name}{SUFFIX}")
        export(Store(root), path)
        return path

    return make


def test_what_a_table_needs_is_asked_for(bundle):
    whole = problems(bundle())
    assert whole == [why for why in whole if why.startswith("run.json does not say what produced the video")]
    for run, told in (
        ({"environment": {"packages": {"torch": "2.12"}}}, "does not name the machine"),
        ({"environment": {"gpu": "A100"}}, "does not name the version of torch"),
        ({"key_version": 1}, "made by an older version"),
    ):
        (why,) = [why for why in problems(bundle(**run)) if told in why]
        assert why.count("skyreels_tiny/") == 2


def test_a_bundle_without_scores_or_originals_or_records_is_refused(bundle, tmp_path):
    path = bundle()
    root = path.with_name(path.name.removesuffix(SUFFIX))
    for record in Store(root).records():
        if record.run["method"] == "scope":
            (record.path / "quality.json").unlink()
    export(Store(root), path)
    (why,) = [why for why in problems(path) if "no scores; run python -m eval" in why]
    assert "skyreels_tiny/scope-fast/" in why and "original" not in why

    def alone(found):
        found[:] = [row for row in found if row["content"].get("cell") != "original"]
        found[0]["content"]["records"] = 1

    assert any(
        "the Original that it is compared with" in why for why in problems(rewritten(path, tmp_path, alone, True))
    )
    Store(tmp_path / "empty")
    export(Store(tmp_path / "empty"), tmp_path / f"empty{SUFFIX}")
    assert problems(tmp_path / f"empty{SUFFIX}") == ["it holds no record"]


def test_the_command_says_what_is_wrong_in_one_line_each(bundle, tmp_path, capsys):
    (tmp_path / f"text{SUFFIX}").write_text("no gzip")
    changed = rewritten(bundle(), tmp_path, lambda found: found[2]["content"]["run"].update(fps=1))
    paths = [str(SENT[0]), str(tmp_path / f"text{SUFFIX}"), str(changed), str(tmp_path)]
    assert main(["check", *paths]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"{SENT[0]}: can be submitted"
    for path, told in zip(paths[1:], ("no complete bundle", "checksum differs", "it is a folder"), strict=True):
        assert any(line.startswith(f"{path}: ") and told in line for line in said)
    assert main(["check", str(SENT[0])]) == 0


def test_a_bundle_that_is_too_large_is_refused(bundle, monkeypatch):
    monkeypatch.setattr("store.submission.MEGABYTES", 1e-3)
    assert any("MB, want at most 0.001" in why for why in problems(bundle()))
