"""One report of several bundles and results folders: machines, keys that several hold, what is not comparable."""

import shutil

import pandas as pd
import pytest

from reports import formats, page, read
from reports.__main__ import main
from reports.marks import Kind
from reports.notes import notes
from store import Store, StoreError
from store.bundle import export
from tests.synthetic import CELLS, SIX, make_store

FEW = {name: CELLS[name] for name in (("original", None), ("teacache", "fast"), ("scope", "fast"))}
A100 = {"gpu": "A100", "packages": {"torch": "2.11"}}
H100 = {"gpu": "H100", "packages": {"torch": "2.12"}}


def bundle(root, name, environment, prompts=SIX, faster=1.0):
    """A bundle of the records of `prompts`, with times `faster` times shorter than in FEW."""
    cells = {cell: (seconds / faster, share, error) for cell, (seconds, share, error) in FEW.items()}
    make_store(root / name, videos=False, cells=cells, prompts=SIX, environment=environment)
    for record in Store(root / name).records():
        if record.run["prompt"] not in prompts:
            shutil.rmtree(record.path)
    path = root / f"{name}.jsonl.gz"
    export(Store(root / name), path)
    return path


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("labs")


@pytest.fixture(scope="module")
def both(root):
    return bundle(root, "one", A100), bundle(root, "two", H100, faster=2.0)


@pytest.fixture(scope="module")
def report(both):
    return read(*both)


def named(report):
    return {line.name: line for line in report.lines}


def test_a_bundle_gives_the_tables_of_its_results_folder(both, root):
    mine, theirs = read(both[0]), read(root / "one")
    assert formats.table(mine).equals(formats.table(theirs))
    assert (
        formats.markdown(mine) == formats.markdown(theirs) and "machine" not in formats.markdown(mine).split("\n\n")[1]
    )


def test_the_same_videos_of_two_machines_are_two_lines_with_a_column_for_the_machine(report):
    lines = named(report)
    assert {name: line.machine for name, line in lines.items()} == {
        "Original": "A100",
        "Original (machine=H100)": "H100",
        "TeaCache fast": "A100",
        "TeaCache fast (machine=H100)": "H100",
        "SCOPE fast": "A100",
        "SCOPE fast (machine=H100)": "H100",
    }
    assert all(line.counts()["videos"] == len(SIX) for line in lines.values())
    assert "| machine |" in formats.markdown(report).replace("   ", " ").replace("  ", " ")
    assert list(formats.table(report)["machine"]) == [line.machine for line in report.lines]


def test_speedups_are_over_the_original_of_the_same_machine(report):
    lines = named(report)
    one, two = lines["SCOPE fast"], lines["SCOPE fast (machine=H100)"]
    assert one.value("speedup") == pytest.approx(2.2 / 0.8, rel=0.02)
    assert two.value("speedup") == pytest.approx(1.2 / 0.5, rel=0.02)
    assert not one.marked(Kind.DEVICES) and not two.marked(Kind.DEVICES, Kind.BESIDE, Kind.APART)


def test_what_is_not_comparable_is_marked_line_by_line_and_never_bold(report):
    for line in report.lines:
        told = {mark.details[0]: mark.details[1:] for mark in line.marked(Kind.ACROSS)}
        own, other = ("A100", "H100") if "H100" not in line.name else ("H100", "A100")
        assert told["machine"] == (own, other) and set(told["torch"]) == {"2.11", "2.12"}
        assert not line.best & {"time_s", "speedup", "peak_memory_gb"}
    text = " ".join(notes(report))
    assert "Several machines on skyreels_tiny" in text
    assert "TeaCache fast, SCOPE fast on skyreels_tiny: made with machine A100, other lines with H100" in text
    assert not [
        pair for pair in report.pairs if pair.metric.name == "time_s" and pair.first.machine != pair.other.machine
    ]


def test_one_machine_in_two_bundles_is_compared_as_usual(root):
    halves = [bundle(root, f"half{n}", A100, prompts=SIX[3 * n : 3 * n + 3]) for n in (0, 1)]
    report = read(*halves)
    assert [line.counts()["videos"] for line in report.lines] == [6, 6, 6]
    assert not [mark for line in report.lines for mark in line.marked(Kind.ACROSS, Kind.DEVICES)]
    assert "speedup" in named(report)["SCOPE fast"].best


def test_a_line_that_mixes_machines_is_marked(root):
    halves = [
        bundle(root, f"mix{n}", machine, prompts=SIX[3 * n : 3 * n + 3]) for n, machine in enumerate((A100, H100))
    ]
    line = named(read(*halves))["SCOPE fast"]
    assert line.machine == "A100; H100" and line.marked(Kind.DEVICES)
    assert "torch (2.11, 2.12)" in str(line.marked(Kind.APART)[0])


def test_different_records_under_one_key_are_named_in_one_line_and_the_first_is_kept(both, root):
    other = bundle(root, "other", A100, faster=3.0)
    report = read(both[0], other)
    assert formats.table(report).drop(columns="machine").equals(formats.table(read(both[0])).drop(columns="machine"))
    (place, why), *more = report.study.damaged.items()
    assert not more and place.startswith("other.jsonl.gz: skyreels_tiny/") and place.endswith(" and 17 more")
    assert why == "one.jsonl.gz holds a different record with this key of the same machine"
    assert sum(note.startswith("Left out: other.jsonl.gz") for note in notes(report)) == 1


def test_the_same_record_in_two_sources_counts_once_and_its_scores_are_kept(both, root):
    report = read(both[0], root / "one")
    assert len(report.study.videos) == 3 * len(SIX) and not report.study.damaged
    for record in Store(root / "one").records():
        assert record.quality
    bare = bundle(root, "bare", A100, prompts=SIX[:1])
    for record in Store(root / "bare").records():
        (record.path / "quality.json").unlink()
    assert all(read(root / "bare", bare).study.videos["scored"])


def test_bundles_and_a_folder_give_one_report_in_the_folder(both, root, tmp_path):
    make_store(tmp_path / "mine", videos=False, cells=FEW, prompts=SIX[:2], environment={"gpu": "L4"})
    report = read(*both, tmp_path / "mine")
    assert report.study.root == tmp_path / "mine" and read(*both).study.root == root / "one_report"
    formats.write(report, tmp_path / "tables")
    assert set(pd.read_csv(tmp_path / "tables" / "main.csv")["machine"]) == {"A100", "H100", "L4"}
    assert "Original (machine=L4)" in (tmp_path / "tables" / "main.md").read_text()
    shown = page.render(report, [])
    assert "SCOPE fast (machine=H100)" in shown and "../skyreels_tiny/scope-fast/" in shown and ".jsonl.gz" not in shown


def test_a_missing_source_is_refused_in_one_line(both, root, capsys):
    with pytest.raises(StoreError, match="no bundle"):
        read(both[0], root / "nothing.jsonl.gz")
    assert main([str(both[0]), str(root / "nowhere")]) == 1
    said = capsys.readouterr().err
    assert "no results folder" in said and said.count("\n") == 1
