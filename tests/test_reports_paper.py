"""Every published line gets one verdict, and no number of another model passes for a reproduction."""

import json
import math

import pytest

from reports import read, verdict
from reports.paper import beside, render, table
from reports.verdicts import summary
from tests.synthetic import CELLS, PROMPTS, SIX, make_store, produced_by


def judged(root, **store):
    make_store(root, videos=False, **store)
    return printed(root)


def printed(root):
    """The csv of the paper's lines, as a frame."""
    return table(read(root).verdicts).set_index(["table", "model", "row"])


def test_the_paper_has_thirty_five_rows_each_once(tmp_path):
    lines = judged(tmp_path)
    assert len(lines) == len(set(lines.index)) == 35
    assert set(lines["verdict"]) == {"not comparable", "not run"}
    page = render(read(tmp_path))
    assert page.count('class="badge') == 35 and "35 published lines: 11 not comparable, 24 not run." in page


def test_the_papers_one_row_of_delta_dit_stands_beside_ours(tmp_path):
    cells = {name: CELLS[name] for name in (("original", None),)} | {("delta_dit", "fast"): (1.7, 0.82, 0.01)}
    row = judged(tmp_path, cells=cells).loc["table1", "skyreels", "Delta-DiT"]
    assert row["reproduced"] == "skyreels_tiny: Δ-DiT fast" and row["paper_flops_pf"] == 201.6


def test_a_row_that_was_not_run_says_what_runs_it_and_a_table_where_it_was_printed(tmp_path):
    lines = judged(tmp_path)
    assert lines.loc["table12", "magi", "Original-20step"]["why"] == "python run.py experiment=table12"
    page = render(read(tmp_path))
    assert page.count("Printed: arXiv 2604.02979") == 4 and "FLOPs of the denoiser, 2 per multiply-add" in page


def test_a_tiny_preset_is_never_a_reproduction(tmp_path):
    lines = judged(tmp_path, cells=CELLS | {("scope", "paper"): CELLS["scope", "fast"]})
    scope = lines.loc["table1", "skyreels", "SCOPE-fast"]
    assert scope["reproduced"] == "skyreels_tiny: SCOPE paper" and scope["paper_speedup"] == 4.73
    assert scope["speedup"] == pytest.approx(2.76, abs=0.01)
    assert (scope["verdict"], scope["why"]) == ("not comparable", "tiny preset")
    assert lines.loc["table1", "magi", "SCOPE-fast"]["verdict"] == "not run"


def test_a_tuned_point_does_not_stand_for_the_papers_own_in_table_1(tmp_path):
    assert judged(tmp_path).loc["table1", "skyreels", "SCOPE-fast"]["verdict"] == "not run"


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """A store of a tiny preset with plans of both full-size models."""
    folder = tmp_path_factory.mktemp("planned")
    for model, pf in (("skyreels", 244.78), ("magi1", 60.0)):
        (folder / "plan" / model).mkdir(parents=True)
        counts = {"flops_pf": {"dense": pf}, "forwards": 400, "iterations": 200, "chunk_steps": 640}
        (folder / "plan" / model / "original.json").write_text(json.dumps(counts))
    make_store(folder, videos=False)
    return read(folder)


def test_the_full_size_originals_flops_are_judged_from_a_plan_without_a_run(planned):
    lines = table(planned.verdicts).set_index(["table", "model", "row", "reproduced"])
    good, bad = (
        lines.loc["table1", model, "Original", f"{name}: counted by a dry run"]
        for model, name in (("skyreels", "skyreels"), ("magi", "magi1"))
    )
    assert (good["verdict"], good["why"], good["flops_pf"]) == ("FLOPs match", "counted by a dry run", 244.78)
    assert bad["verdict"] == "differs" and bad["verdict_flops_pf"] == "differs: -21.09 (-26.0%)"
    assert good["verdict_time_s"] == "not run: python run.py experiment=table1" and math.isnan(good["time_s"])


def test_no_row_of_the_papers_tables_has_numbers_of_two_models(planned):
    rows = [row for row in planned.verdicts if row.claim.name == "Original"]
    assert [(row.claim.model, row.reproduced) for row in rows] == [
        ("skyreels", "skyreels_tiny: Original"),
        ("skyreels", "skyreels: counted by a dry run"),
        ("magi", "magi1: counted by a dry run"),
    ]
    tiny, plan, _ = rows
    assert tiny.cells["flops_pf"].ours == pytest.approx(0.003) and tiny.cells["time_s"].ours > 0
    assert str(tiny.cells["flops_pf"].verdict) == "not comparable: tiny preset"
    assert [name for name, cell in plan.cells.items() if not math.isnan(cell.ours)] == ["flops_pf"]
    printed = [line for line in beside(rows).to_dict("records") if line["model"] == "skyreels"]
    assert [line["line"] for line in printed] == ["Original", "Original, dry run"]
    assert [line["PFLOP ↓"] for line in printed] == ["0.003 (245.01)", "244.78 (245.01)"]


def test_a_published_row_counts_once_where_a_plan_stands_beside_a_line(planned):
    said = "35 published lines: 1 differs, 1 FLOPs match, 10 not comparable, 23 not run."
    assert summary(planned.verdicts) == said
    assert said in render(planned)


def test_full_size_rows_are_compared_where_the_paper_states_the_setting(tmp_path):
    lines = judged(tmp_path, model="skyreels", flops=245.5e15, prompts=SIX[:5], produced_by=produced_by("skyreels"))
    original = lines.loc["table1", "skyreels", "Original"]
    assert original["verdict_flops_pf"] == "matches" and original["verdict_time_s"] == "not comparable: another GPU"
    assert original["verdict_vbench"] == "not run: not computed"
    tea = lines.loc["table1", "skyreels", "TeaCache-slow"]
    assert tea["verdict_lpips"] == "not comparable: the paper does not state the setting"


def test_a_sweep_row_is_found_by_its_thresholds(tmp_path):
    store = make_store(
        tmp_path,
        model="skyreels",
        prompts=SIX,
        cells={("original", None): CELLS["original", None]},
        videos=False,
        produced_by=produced_by("skyreels"),
    )
    scope = {"tau_cache": 0.25, "tau_predict": 0.55, "max_skip": 5, "decay": 0.75, "selective": "prefix"}
    for n, original in enumerate(list(store.records())):
        with store.stage("skyreels", "scope", None, f"sweep{n}") as stage:
            for name in ("frames.mp4", "trace.jsonl"):
                (stage.path / name).write_bytes((original.path / name).read_bytes())
            stage.run |= original.run | {
                "seconds": {"total": original.run["seconds"]["total"] / 5.5},
                "produced_by": produced_by("skyreels", scope),
            }
        stage.record.write_json("quality.json", {"psnr": 10.0, "ssim": 0.66, "lpips": 0.25})
    lines = printed(tmp_path)
    row = lines.loc["table2", "skyreels", "5: 0.25, 0.55"]
    assert (row["verdict_speedup"], row["verdict_ssim"], row["verdict_lpips"]) == ("matches",) * 3
    assert (
        row["verdict"] == "differs" and row["why"] == "PSNR (dB)" and row["verdict_psnr"].startswith("differs: -9.48")
    )
    assert lines.loc["table2", "skyreels", "1: 0.12, 0.30"]["verdict"] == "not run"
    assert lines.loc["table2", "skyreels", "2: ?, ?"]["why"] == "the paper does not state the thresholds"


@pytest.mark.parametrize("ours, said", [(0.19, "matches"), (0.2099, "matches"), (0.2101, "differs: +0.0201 (+10.6%)")])
def test_a_tolerance_is_an_edge(ours, said):
    assert str(verdict.compare("lpips", ours, 0.19)) == said


def test_random_weights_have_speed_and_no_quality(tmp_path):
    lines = judged(tmp_path, model="skyreels", weights="random", prompts=PROMPTS[:1])
    original = lines.loc["table1", "skyreels", "Original"]
    assert original["verdict_ssim"] == "not comparable: random weights"
    assert original["verdict_speedup"] == "by definition" and original["verdict"] != "matches"
    assert math.isnan(original["ssim"])
