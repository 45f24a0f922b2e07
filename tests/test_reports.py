"""Tables and figures agree with the records, give a reason for blank values, and are reproducible."""

import hashlib
import json
import math
import re

import pandas as pd
import pytest
from PIL import Image

from reports import build, curves, figures, formats, published, read, write
from reports.line import Line, status
from reports.marks import Kind, Mark
from reports.metric import BY_NAME, METRICS
from reports.notes import notes, protocol
from reports.records import CONTROLS
from reports.report import Report
from reports.terminal_table import print_main, print_notes
from store import Store, StoreError
from tests.synthetic import CELLS, PROMPTS, make_store

ORIGINAL, SCOPE = {("original", None): CELLS["original", None]}, {("scope", "fast"): CELLS["scope", "fast"]}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    make_store(root, videos=False)
    return root


@pytest.fixture(scope="module")
def report(results):
    return build(read(results))


@pytest.fixture(scope="module")
def main(report):
    return pd.read_csv(report / "tables" / "main.csv", keep_default_na=False, na_values=[""]).set_index("name")


def small(tmp_path, cells=CELLS, prompts=PROMPTS, **run):
    make_store(tmp_path, cells=cells, prompts=prompts, videos=False, **run)
    return read(tmp_path)


def named(report: Report) -> dict[str, Line]:
    return {line.name: line for line in report.lines}


def edit(record, **changes):
    """Change run.json as another version of the program would write it."""
    (record.path / "run.json").write_text(json.dumps(record.run | changes))


# The main table


def test_columns_are_the_schemas_in_its_order(main, report):
    header = (report / "tables" / "main.csv").read_text().splitlines()[0].split(",")
    metrics = ["time_s", "speedup", "flops_pf", "flops_speedup", "vbench", "lpips", "ssim", "psnr", "peak_memory_gb"]
    assert header[:14] == ["model", "method", "speed", "videos", *metrics, "status"]
    for name in metrics:
        assert {f"{name}_low", f"{name}_high", f"paper_{name}"} <= set(header)


def test_rows_come_original_first_and_scope_last(main):
    assert list(main.index) == [
        "Original",
        "Original, repeated",
        "Uniform",
        "TeaCache slow",
        "TeaCache fast",
        "SCOPE slow",
        "SCOPE fast",
    ]


def test_numbers_are_those_of_the_records_by_hand(main):
    scope, seconds = main.loc["SCOPE fast"], [(2.0 * s + 0.2) / (0.6 * s + 0.2) for s in (1.0, 1.03, 1.06)]
    assert scope["speedup"] == pytest.approx(math.prod(seconds) ** (1 / 3), rel=1e-5)
    assert scope["speedup_denoise"] == pytest.approx(2.0 / 0.6, rel=1e-5)
    assert scope["time_s"] == pytest.approx(0.6 * 1.03 + 0.2)
    assert scope["flops_pf"] == pytest.approx(3e12 * 0.28 / 1e15) and scope["flops_speedup"] == pytest.approx(1 / 0.28)
    assert scope["flops_pf_masked"] == pytest.approx(3e12 * 0.28 * 0.7 / 1e15)
    assert scope["peak_memory_gb"] == pytest.approx(1 + 0.1 / 0.28, rel=1e-5)
    assert (scope["videos"], scope["status"]) == (3, "3 videos, invalid 0, failed 0")
    assert scope["psnr_low"] < scope["psnr"] < scope["psnr_high"]


def test_the_original_is_its_own_reference(main):
    original = main.loc["Original"]
    assert (original["speedup"], original["flops_speedup"], original["lpips"], original["ssim"]) == (1, 1, 0, 1)
    assert math.isnan(original["psnr"])
    assert "PSNR (dB): infinite: the Original compared with itself" in original["missing"]


def test_every_blank_has_its_reason(main):
    titles = {metric.name: metric.title for metric in METRICS}
    for _, line in main.iterrows():
        for name, title in titles.items():
            assert not math.isnan(line[name]) or f"{title}: " in line["missing"]


def test_published_numbers_stand_beside_ours_and_say_whether_they_compare(main):
    assert main.loc["SCOPE fast", "paper_speedup"] == 4.73 and main.loc["SCOPE fast", "paper_psnr"] == 21.96
    assert main.loc["SCOPE fast", "paper_peak_memory_gb"] == 24.80
    assert main.loc["SCOPE fast", "paper_comparable"] == "no: tiny preset"
    assert main.loc["Uniform", "paper_comparable"] == "not published"
    row = {"model": "magi1", "method": "flowcache", "speed": "slow", "variant": ""}
    assert published.cells(row)["flops_pf"] == 41.62
    assert published.comparable(row, estimated=False, random=False) == "speedups only: another GPU"
    assert "does not state" in published.comparable(row, estimated=True, random=False)
    assert published.cells(row | {"variant": "tau=1"}) == {}


def test_published_files_hold_every_cell_of_the_paper():
    assert [len(published.table(name)) for name in ("table1", "table2", "table12")] == [20, 9, 6]
    for line in published.table("table1").to_dict("records"):
        original = published.table("table1").query("model == @line['model'] and method == 'Original'").iloc[0]
        assert float(original["time_s"]) / float(line["time_s"]) == pytest.approx(float(line["speedup"]), abs=0.006)


def test_a_line_as_close_as_the_original_run_twice_is_marked(tmp_path):
    cells = dict(CELLS) | {("scope", "slow"): (0.8, 0.36, 0.004), ("original_repeat", None): (2.0, 1.0, 0.0042)}
    lines = named(small(tmp_path, cells))
    assert [name for name, line in lines.items() if line.marked(Kind.REPEAT)] == ["SCOPE slow"]


def test_estimated_points_and_random_weights_are_marked_and_have_no_quality(tmp_path):
    report = small(tmp_path, weights="random")
    lines = named(report)
    assert not any(line.known(name) for line in report.lines for name in ("psnr", "ssim", "lpips", "vbench"))
    assert all(line.known("speedup") for line in report.lines)
    assert lines["SCOPE fast"].signed == "SCOPE fast†‡" and lines["Uniform"].signed == "Uniform‡"
    text = " ".join(notes(report))
    assert curves.drift(report.study, "skyreels_tiny") is None
    assert "random weights: speed, memory and FLOPs only" in text and "† estimated by us" in text


def test_invalid_and_failed_videos_are_counted_and_kept_out_of_the_means(tmp_path):
    make_store(tmp_path, videos=False)
    records = [r for r in Store(tmp_path).records() if r.run["method"] == "scope" and r.run["speed"] == "fast"]
    edit(records[0], status="invalid", reason="velocity became NaN at step 3", seconds={"total": 1e9})
    edit(records[1], status="failed", reason="out of memory", seconds={"total": 1e9})
    line = named(read(tmp_path))["SCOPE fast"]
    assert line.counts() == {"videos": 1, "invalid": 1, "failed": 1, "diverged": 0}
    assert status(line) == "1 videos, invalid 1, failed 1"
    assert line.value("time_s") < 1 and line.blanks["intervals"] == "one prompt only"
    assert math.isnan(line.estimates["time_s"].low)


def test_videos_that_left_their_originals_are_counted_and_stay_in_the_means(tmp_path):
    make_store(tmp_path, videos=False)
    before = named(read(tmp_path))["SCOPE fast"]
    record = next(r for r in Store(tmp_path).records() if r.run["method"] == "scope" and r.run["speed"] == "fast")
    record.write_json(
        "quality.json",
        record.quality
        | {
            "validity": {
                "status": "diverged",
                "reasons": [],
                "warnings": [],
                "diverged": ["tint: colours differ by 30 levels"],
            }
        },
    )
    report = read(tmp_path)
    line = named(report)["SCOPE fast"]
    assert line.counts() == before.counts() | {"diverged": 1} and status(line).endswith("diverged 1")
    assert line.value("psnr") == before.value("psnr") and sum(line.counts()["diverged"] for line in report.lines) == 1
    assert any("1 videos diverged" in text for text in protocol(report.study))
    assert "diverged" in formats.markdown(report)


def test_identical_videos_have_no_finite_psnr_and_say_so(tmp_path):
    cells = ORIGINAL | {("original_repeat", None): (2.0, 1.0, 0.0), ("scope", "fast"): (0.6, 0.28, 0.0)}
    report = small(tmp_path, cells)
    line = named(report)["SCOPE fast"]
    assert math.isinf(line.value("psnr")) and line.marked(Kind.REPEAT)
    assert "∞" in formats.markdown(report)
    record = next(r for r in Store(tmp_path).records() if r.run["method"] == "scope")
    record.write_json("quality.json", record.quality | {"identical": False, "psnr": 30.0})
    line = named(read(tmp_path))["SCOPE fast"]
    assert line.value("psnr") == 30.0 and line.blanks["psnr"].startswith("2 of 3 videos are identical")


def test_settings_that_share_a_cell_become_rows_of_their_own(tmp_path):
    store = make_store(tmp_path, cells=ORIGINAL | SCOPE, videos=False)
    first = next(r for r in store.records() if r.run["method"] == "scope")
    with store.stage("skyreels_tiny", "scope", "fast", "other") as stage:
        for name in ("frames.mp4", "trace.jsonl"):
            (stage.path / name).write_bytes((first.path / name).read_bytes())
        config = (first.path / "config.yaml").read_text()
        (stage.path / "config.yaml").write_text(config.replace("0.3", "0.5"))
        stage.run |= first.run
    lines = named(read(tmp_path))
    videos = {name: len(line.valid) for name, line in lines.items()}
    assert videos == {"Original": 3, "SCOPE fast (tau_cache=0.3)": 3, "SCOPE fast (tau_cache=0.5)": 1}
    assert lines["SCOPE fast (tau_cache=0.5)"].comparable == "not published"


def test_gpus_of_two_kinds_in_one_row_are_marked(tmp_path):
    make_store(tmp_path, videos=False)
    record = next(r for r in Store(tmp_path).records() if r.run["method"] == "uniform")
    edit(record, environment={"gpu": "H200"})
    others = [r for r in Store(tmp_path).records() if r.run["method"] == "uniform"][1:]
    edit(others[0], environment={"gpu": "A800"})
    assert Mark(Kind.DEVICES, ("2", "A800, H200")) in named(read(tmp_path))["Uniform"].marks


def test_a_row_timed_on_another_gpu_than_its_originals_is_marked_and_the_others_are_not(tmp_path):
    make_store(tmp_path, videos=False)
    for record in Store(tmp_path).records():
        edit(record, environment={"gpu": "H200" if record.run["method"] == "uniform" else "A800"})
    marked = {name: line.marked(Kind.DEVICES) for name, line in named(read(tmp_path)).items()}
    assert [str(mark) for mark in marked["Uniform"]] == ["speeds of 2 devices: A800, H200"]
    assert [name for name, marks in marked.items() if marks] == ["Uniform"]


def test_a_row_of_another_attention_than_its_original_is_counted_as_it_ran_and_marked(tmp_path):
    make_store(tmp_path, videos=False)
    for record in Store(tmp_path).records():
        edit(record, attention="block_causal" if record.run["method"] == "teacache" else "full")
    report = read(tmp_path)
    marked = [line for line in report.lines if Mark(Kind.ATTENTION, ("block_causal", "full")) in line.marks]
    assert {line.method for line in marked} == {"teacache"}
    assert all(line.value("flops_pf") == line.value("flops_pf_masked") for line in marked)
    said = "block_causal attention against an Original of full attention; its speedups include this difference."
    assert any(said in note for note in notes(report))


def test_gpus_mixed_over_a_column_without_originals_are_marked(tmp_path):
    make_store(tmp_path, cells=SCOPE | {("uniform", None): (0.5, 0.5, 0.1)}, videos=False)
    for record in Store(tmp_path).records():
        edit(record, environment={"gpu": "H200" if record.run["method"] == "uniform" else "A800"})
    assert all(line.marked(Kind.DEVICES) == [Mark(Kind.DEVICES, ("2", "A800, H200"))] for line in read(tmp_path).lines)


def test_vbench_totals_come_from_the_file_of_the_cell(tmp_path):
    make_store(tmp_path, cells=ORIGINAL | SCOPE, videos=False)
    folder = tmp_path / "vbench" / "skyreels_tiny"
    folder.mkdir(parents=True)
    (folder / "scope-fast.json").write_text(json.dumps({"total": {"total": 81.47}, "total_lacks": []}))
    (folder / "original.json").write_text(json.dumps({"total": None, "total_lacks": ["color"] * 3}))
    lines = named(read(tmp_path))
    assert lines["SCOPE fast"].value("vbench") == 81.47 and "vbench" not in lines["SCOPE fast"].blanks
    assert math.isnan(lines["Original"].value("vbench"))
    assert lines["Original"].blanks["vbench"] == "13 of 16 dimensions have a score"


# What is missing is said


@pytest.mark.parametrize(
    "cells, prompts, says",
    [
        (SCOPE, PROMPTS, "No Original in this folder"),
        pytest.param(ORIGINAL | SCOPE, PROMPTS[:1], "intervals: one prompt only", marks=pytest.mark.slow),
        pytest.param(ORIGINAL, PROMPTS, "3 videos", marks=pytest.mark.slow),
    ],
)
def test_a_poor_folder_is_reported_with_what_it_lacks(tmp_path, capsys, cells, prompts, says):
    make_store(tmp_path, cells=cells, prompts=prompts, videos=False)
    made = read(tmp_path)
    report = build(made)
    print_notes(made)
    print_main(made)
    texts = [(report / "tables" / "main.md").read_text(), (report / "index.html").read_text(), capsys.readouterr().out]
    assert all(says in text for text in texts)


def test_an_empty_folder_and_one_of_invalid_videos_make_a_report(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert "no complete record" in (build(read(tmp_path / "empty")) / "index.html").read_text()
    make_store(tmp_path / "bad", cells=SCOPE, videos=False, status="invalid", reason="every frame is black")
    made = read(tmp_path / "bad")
    page = (build(made) / "index.html").read_text()
    print_notes(made)
    print_main(made)
    assert "every frame is black" in page and "every frame is black" in capsys.readouterr().out


@pytest.mark.slow
def test_records_of_other_schemas_are_read_or_named(tmp_path):
    store = make_store(tmp_path, cells=ORIGINAL | SCOPE, videos=False)
    older, newer = [r for r in store.records() if r.run["method"] == "scope"][:2]
    (older.path / "run.json").write_text(json.dumps({"model": "skyreels_tiny", "method": "scope", "speed": "fast"}))
    (older.path / "quality.json").unlink()
    edit(newer, schema=99)
    report = read(tmp_path)
    assert len(named(report)["SCOPE fast"].valid) == 2
    assert any("newer" in note for note in notes(report))
    assert (build(report) / "index.html").exists()


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(StoreError, match="no results folder"):
        read(tmp_path / "resluts")


# Files


def test_building_twice_gives_the_same_bytes(results, report):
    def digests():
        files = sorted(path for path in report.rglob("*") if path.is_file())
        return {str(path.relative_to(report)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    first = digests()
    assert {"index.html", "tables/main.csv", "tables/main.md", "tables/main.tex"} <= set(first)
    build(read(results))
    assert digests() == first


def test_latex_is_a_closed_booktabs_table_with_escaped_text(results):
    text = formats.latex(read(results))
    body = text.split("\\midrule\n")[1].split("\\bottomrule")[0].strip().splitlines()
    columns = text.split("\\toprule\n")[1].split(" \\\\")[0].count("&")
    assert len(body) == 7 and all(line.replace("\\&", "").count("&") == columns for line in body)
    assert text.count("{") == text.count("}") and text.count("\\begin{") == text.count("\\end{") == 2
    assert not re.search(r"(?<!\\)[%#_]", text) and text.count("\\textbf") >= 7 and "$\\uparrow$" in text
    assert text.isascii()


def test_the_best_of_the_accelerated_rows_is_bold(results):
    lines = formats.markdown(read(results)).splitlines()
    cells = [cell.strip() for cell in next(line for line in lines if "SCOPE fast" in line).split("|")]
    assert cells[5].startswith("**2.76×") and not any(cell.startswith("**") for cell in cells[8:10])
    assert not any("**" in line for line in lines if "| Original" in line)


def test_figures_are_drawn_with_labels_and_hold_every_row(results, report):
    names = {path.name for path in (report / "figures").iterdir()}
    kinds = ("speed_quality", "radar", "memory", "timeline", "drift")
    files = [f"{kind}_skyreels_tiny" for kind in kinds]  # Figures 6, 9 and 12 would repeat three of them
    assert names == {f"{file}.{suffix}" for file in files for suffix in ("svg", "png")}
    made = read(results)
    figure = figures.speed_quality(made.numbers, "skyreels_tiny")
    for axes in figure.axes:
        assert axes.get_xlabel() and axes.get_ylabel()
        assert {"Uniform", "TeaCache slow", "SCOPE fast†"} <= {text.get_text() for text in axes.texts}
    assert len(figures.radar(made.study, made.numbers, "skyreels_tiny").axes[0].lines) == 6
    for path in (report / "figures").glob("*.png"):
        assert min(Image.open(path).size) > 250


def test_a_figure_that_the_records_no_longer_give_is_removed(tmp_path):
    for suffix in ("svg", "png"):
        (tmp_path / f"timeline_tiny.{suffix}").write_text("older")
    assert not write._save(None, tmp_path, "timeline_tiny") and not list(tmp_path.iterdir())


def test_decisions_become_a_staircase_and_the_dearest_branch_counts():
    entry = {"iteration": 0, "slots": [0, 4], "active": [1, 3], "mode": "predict"}
    grid = curves.decisions([entry, entry | {"mode": "cache"}, entry | {"iteration": 1, "mode": "recompute"}])
    assert grid.tolist() == [[-1, -1], [1, 2], [1, 2]]
    assert curves.decisions([]).shape == (0, 0)


def test_only_rows_beaten_in_both_with_intervals_apart_are_dominated(results):
    frame = read(results).numbers.set_index("name", drop=False)
    rows = frame[~frame["method"].isin(CONTROLS)]
    beaten = {name for name, line in rows.iterrows() if figures._dominated(line, rows, BY_NAME["psnr"])}
    assert beaten == {"Uniform", "TeaCache slow", "TeaCache fast"}
    wide = rows.assign(psnr_low=0.0, psnr_high=99.0)
    assert not any(figures._dominated(line, wide, BY_NAME["psnr"]) for _, line in wide.iterrows())


def test_a_table_says_which_points_are_the_papers_and_which_are_tuned(tmp_path):
    make_store(tmp_path, cells=ORIGINAL, videos=False)
    paper = {("scope", "paper"): CELLS["scope", "fast"]}
    make_store(tmp_path, cells=paper, videos=False, point={"paper": True, "turned": []})
    make_store(tmp_path, cells=SCOPE, videos=False, point={"paper": False, "turned": ["max_skip", "predictor"]})
    report = read(tmp_path)
    lines = named(report)
    assert lines["SCOPE paper"].marked(Kind.PAPER)
    assert lines["SCOPE paper"].signs == "†§"  # its thresholds are estimated
    assert lines["SCOPE fast"].signs == "†¶" and lines["Original"].signs == ""
    said = " ".join(notes(report))
    assert "§ the paper's settings" in said
    tuned = "SCOPE fast on skyreels_tiny (max_skip, predictor)"
    assert f"¶ tuned on calibration prompts of the same model: {tuned}" in said
    assert lines["SCOPE paper"].published["speedup"] == 4.73  # SCOPE-fast is the paper's core configuration
    assert "\\S{}" in formats.escape("SCOPE paper§")
