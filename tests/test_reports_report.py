"""A report is made once of a store, and every writer prints the same lines, marks, blanks and verdicts."""

import csv
import json

import pytest

from reports import build, formats, page, read
from reports.line import status
from reports.marks import Kind, Mark
from reports.notes import blanks
from reports.paper import print_summary
from reports.terminal_table import print_main, print_notes
from reports.verdict import Outcome, Verdict
from reports.verdicts import ANOTHER_GPU, TINY, Cell, _of_line, summary
from store import Store
from tests.synthetic import CELLS, PROMPTS, make_store

HEAD = (
    "model,method,speed,videos,time_s,speedup,flops_pf,flops_speedup,vbench,lpips,ssim,psnr,peak_memory_gb,status,"
    "time_s_low,time_s_high,speedup_low,speedup_high,flops_pf_low,flops_pf_high,flops_speedup_low,flops_speedup_high,"
    "vbench_low,vbench_high,lpips_low,lpips_high,ssim_low,ssim_high,psnr_low,psnr_high,peak_memory_gb_low,"
    "peak_memory_gb_high,paper_time_s,paper_speedup,paper_flops_pf,paper_flops_speedup,paper_vbench,paper_lpips,"
    "paper_ssim,paper_psnr,paper_peak_memory_gb,paper_comparable,speedup_denoise,flops_pf_masked,peak_reserved_gb,"
    "decode_s,first_chunk_s,interval_s,interval_p95_s,fps_vae,fps_denoise,missed,drift_sharpness,drift_colour,"
    "drift_saturation,drift_motion,drift_subject_consistency,drift_background_consistency,drift_motion_smoothness,"
    "drift_dynamic_degree,drift_aesthetic_quality,drift_imaging_quality,invalid,failed,diverged,name,variant,marks,"
    "missing,best,machine"
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    make_store(folder, videos=False)
    return folder


@pytest.fixture(scope="module")
def report(root):
    return read(root)


def lines_of(text):
    return list(csv.DictReader(text.splitlines()))


def test_the_csv_keeps_its_columns_and_its_words(report):
    text = formats.table(report).to_csv(index=False, float_format="%.6g")
    assert text.splitlines()[0] == HEAD
    line = next(line for line in lines_of(text) if line["name"] == "SCOPE fast")
    wanted = {
        "videos": "3",
        "time_s": "0.818",
        "speedup": "2.76263",
        "flops_pf": "0.00084",
        "flops_speedup": "3.57143",
        "lpips": "0.00549088",
        "status": "3 videos, invalid 0, failed 0",
        "paper_speedup": "4.73",
        "paper_comparable": "no: tiny preset",
        "marks": "estimated point",
        "best": "time_s; speedup; flops_pf; flops_speedup",
    }
    assert {name: line[name] for name in wanted} == wanted
    assert line["missing"].startswith("VBench: not computed; first chunk (s): recorded before chunks were stamped")


def test_the_csv_of_paired_differences_keeps_its_columns_and_its_words(report):
    text = formats.differences(report.pairs).to_csv(index=False, float_format="%.6g")
    head = "model,metric,row,against,pairs,prompts,difference,difference_low,difference_high,verdict,videos_needed"
    assert text.splitlines()[0] == head
    first = next(line for line in lines_of(text) if line["metric"] == "speedup")
    assert (first["row"], first["against"], first["pairs"], first["verdict"]) == (
        "SCOPE fast",
        "SCOPE slow",
        "3",
        "better",
    )


def test_a_store_is_read_once_for_all_that_is_printed(root, monkeypatch, capsys):
    read_in = []
    records = Store.records
    monkeypatch.setattr(Store, "records", lambda store: read_in.append(store.root) or records(store))
    monkeypatch.setattr("reports.style.save", lambda *figure: [])
    report = read(root)
    build(report)
    print_notes(report)
    print_main(report)
    print_summary(report)
    assert len(read_in) == 1 and "35 published lines" in capsys.readouterr().out


def test_a_reason_with_a_semicolon_in_it_stays_one_reason(tmp_path):
    make_store(tmp_path, cells={cell: CELLS[cell] for cell in (("original", None), ("scope", "fast"))}, videos=False)
    for record in Store(tmp_path).records():
        if record.run["method"] == "scope":
            told = record.run | {"status": "failed", "reason": "out of memory; the rest was not tried"}
            (record.path / "run.json").write_text(json.dumps(told))
    report = read(tmp_path)
    why = "no valid video (out of memory; the rest was not tried)"
    assert set(report.lines[1].blanks.values()) == {why}
    assert f"PSNR (dB): {why} (SCOPE fast on skyreels_tiny)." in blanks(report)
    assert why in formats.markdown(report)


@pytest.mark.parametrize("name", ["estimated point; random", "the paper's numbers", "speeds of light"])
def test_a_setting_or_device_named_like_a_mark_is_no_mark(tmp_path, name):
    make_store(tmp_path, prompts=PROMPTS[:2], videos=False, point={"turned": [name]}, estimated=False)
    lines = read(tmp_path).lines
    assert all(line.marked(Kind.TUNED) == [Mark(Kind.TUNED, (name,))] and line.signs == "¶" for line in lines)
    assert not any(line.marked(Kind.ESTIMATED, Kind.RANDOM, Kind.PAPER, Kind.DEVICES) for line in lines)


def test_a_row_has_the_strongest_verdict_of_its_cells_and_says_which_columns_decide():
    differs = Verdict(Outcome.DIFFERS, "+1 (+1.0%)")
    cells = {
        "time_s": Cell(1.0, 2.0, ANOTHER_GPU),
        "speedup": Cell(1.0, 1.0, Verdict(Outcome.BY_DEFINITION)),
        "lpips": Cell(1.0, 2.0, differs),
        "ssim": Cell(1.0, 1.0, Verdict(Outcome.MATCHES)),
    }
    assert _of_line(cells) == Verdict(Outcome.DIFFERS, "LPIPS")
    del cells["lpips"]
    assert _of_line(cells) == Verdict(Outcome.MATCHES, "SSIM")
    cells["ssim"] = Cell(1.0, 1.0, TINY)
    assert _of_line(cells) == TINY  # tells more than another GPU, which concerns the seconds alone
    del cells["ssim"]
    assert _of_line(cells) == ANOTHER_GPU


def test_verdicts_are_counted_by_their_kind(report):
    assert summary(report.verdicts) == "35 published lines: 11 not comparable, 24 not run."
    assert {row.verdict.outcome for row in report.verdicts} == {Outcome.NOT_COMPARABLE, Outcome.NOT_RUN}
    assert str(Verdict(Outcome.DIFFERS, "+0.1")) == "differs: +0.1" and str(Verdict(Outcome.NOT_RUN)) == "not run"


def test_the_page_shows_every_line_with_its_counts_and_reasons(report):
    text = page.render(report, [])
    for line in report.lines:
        assert line.signed in text and f'title="{status(line)}"' in text
    assert "VBench: not computed (all lines)." in text
