"""VBench: totals, prompts, names, missing weights, and the course of a scoring run; nothing is installed here.

The child process is replaced by a script that keeps to the runner's protocol, so that resuming, gaps and crashes are
tested on machines without VBench. The last test runs the real package where `python -m eval.vbench setup` was run.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from eval import vbench, vbench_cells, vbench_runner, vbench_score, vbench_setup, vbench_suite
from eval.vbench_total import DIMENSIONS, FACTS, VBenchError, total, totals_of_file
from eval.video import write_lossless
from store import Store

# Published lines: LinGen (arXiv:2412.09856) tables 3-6, the 16 dimensions in our order, then quality, semantic, total.
PUBLISHED = {
    "Runway Gen-3": "97.1,96.62,98.61,99.23,60.14,63.34,66.82,87.81,53.64,96.4,80.9,65.09,54.57,24.31,24.71,26.69,"
    "84.11,75.17,82.32",
    "Kling": "98.33,97.6,99.3,99.4,46.94,61.21,65.62,87.24,68.05,93.4,89.9,73.03,50.86,19.62,24.17,26.42,"
    "83.39,75.68,81.85",
    "CogVideoX-5B": "96.23,96.52,98.66,96.92,70.97,61.98,62.9,85.23,62.11,99.4,82.81,66.35,53.2,24.91,25.38,27.59,"
    "82.75,77.04,81.61",
}
GROUPS = {  # sizes of VBench's own groups of dimensions that share prompts
    ("human_action",): 100,
    ("temporal_style",): 100,
    ("appearance_style",): 90,
    ("color",): 85,
    ("overall_consistency", "aesthetic_quality", "imaging_quality"): 93,
    ("scene", "background_consistency"): 86,
    ("spatial_relationship",): 84,
    ("multiple_objects",): 82,
    ("object_class",): 79,
    ("temporal_flickering",): 75,
    ("subject_consistency", "dynamic_degree", "motion_smoothness"): 72,
}
STAND_IN = """
import json, pathlib, sys
plan = json.loads(pathlib.Path(sys.argv[1]).read_text())
print(json.dumps({"device": "cpu"}), flush=True)
for job in plan["jobs"]:
    files = sorted(path.name for path in pathlib.Path(job["folder"]).iterdir())
    assert files == sorted(job["videos"]), (files, job["videos"])
    behaviour = (pathlib.Path(sys.argv[2]) / job["dimension"])
    behaviour = behaviour.read_text() if behaviour.exists() else "fine"
    if behaviour == "crash":
        sys.exit(9)
    with open(sys.argv[2] + "/calls", "a") as calls:
        calls.write(job["dimension"] + " " + " ".join(files) + "\\n")
    if behaviour == "error":
        print(json.dumps({"id": job["id"], "error": "RuntimeError: out of memory"}), flush=True)
        continue
    kept = files[:-1] if behaviour == "skip" else files
    videos = {f: {"value": 0.5 + 0.1 * i, "weight": 1 + i, "frames": 240, "fps": 24.0} for i, f in enumerate(kept)}
    mean = sum(v["value"] * v["weight"] for v in videos.values()) / sum(v["weight"] for v in videos.values())
    score = mean + (0.01 if behaviour == "other mean" else 0)
    print(json.dumps({"id": job["id"], "score": score, "videos": videos, "seconds": 0.1}), flush=True)
"""


@pytest.fixture(scope="module")
def entries():
    return [
        {"prompt_en": f"{names[0]} prompt {n}", "dimension": list(names)}
        for names, size in GROUPS.items()
        for n in range(size)
    ]


@pytest.fixture
def bench(tmp_path, monkeypatch, entries):
    """A store, a fake VBench with all weights, and the log of its calls."""
    script, info = tmp_path / "stand_in.py", tmp_path / "info.json"
    script.write_text(STAND_IN)
    info.write_text(json.dumps(entries))
    versions, modules = {"vbench": FACTS["version"]}, {"detectron2": True, "dreamsim": True}
    monkeypatch.setattr(vbench_setup, "probe", lambda: {"versions": versions, "modules": modules, "cuda": False})
    monkeypatch.setattr(vbench_setup, "full_info", lambda: info)
    monkeypatch.setattr(vbench_setup, "runner", lambda plan: [sys.executable, str(script), str(plan), str(tmp_path)])
    monkeypatch.setattr(vbench_setup, "lacking", lambda *_: {name: [] for name in DIMENSIONS})
    return Store(tmp_path / "results")


def record(store, key, prompt, seed=0, method="scope", status="ok", frames=None):
    with store.stage("tiny", method, None, key) as stage:
        if frames is None:
            (stage.path / "frames.mp4").write_bytes(b"not decoded by the stand-in")
        else:
            write_lossless(stage.path / "frames.mp4", frames)
        (stage.path / "trace.jsonl").write_text("")
        stage.run |= {"prompt": prompt, "seed": seed, "status": status}
    return stage.record


def calls(store):
    path = store.root.parent / "calls"
    return path.read_text().splitlines() if path.exists() else []


def behave(store, dimension, how):
    (store.root.parent / dimension).write_text(how)


def table(path, rows, columns=tuple(DIMENSIONS)):
    lines = [["model", *columns], *([name, *row] for name, row in rows.items())]
    path.write_text("\n".join(map(",".join, lines)))
    return path


# --- the total ------------------------------------------------------------


def test_total_reproduces_published_rows(tmp_path, capsys):
    rows = {name: line.split(",") for name, line in PUBLISHED.items()}
    path = table(tmp_path / "rows.csv", {name: row[:16] for name, row in rows.items()})
    assert vbench.main(["total", str(path)]) == 0
    ours = json.loads(capsys.readouterr().out.splitlines()[-1])
    for row, found in zip(rows.values(), ours, strict=True):
        assert list(found) == ["quality", "semantic", "total"]
        assert list(found.values()) == pytest.approx([float(cell) for cell in row[16:]], abs=0.01)


def test_total_of_hand_worked_scores():
    least = {name: fact["min"] for name, fact in DIMENSIONS.items()}
    most = {name: fact["max"] for name, fact in DIMENSIONS.items()}
    assert total(least) == pytest.approx({"quality": 0, "semantic": 0, "total": 0})
    assert total(most) == pytest.approx({"quality": 100, "semantic": 100, "total": 100})
    found = total(least | {"dynamic_degree": 1.0, "scene": 0.8222})  # weight 0.5 of 6.5, and 1 of 9
    assert found == pytest.approx({"quality": 50 / 6.5, "semantic": 100 / 9, "total": (4 * 50 / 6.5 + 100 / 9) / 5})


@pytest.mark.parametrize("hole", ["", "nan", None])
def test_a_row_with_a_missing_dimension_is_refused_and_named(tmp_path, capsys, hole):
    values = dict(zip(DIMENSIONS, PUBLISHED["Kling"].split(",")[:16], strict=True))
    values.pop("scene") if hole is None else values.update(scene=hole)
    path = table(tmp_path / "rows.csv", {"Kling": values.values()}, values)
    assert vbench.main(["total", str(path)]) == 1
    printed = capsys.readouterr()
    assert "line 1 (Kling)" in printed.err and "scene" in printed.err and printed.out == ""


def test_percent_and_fractions_are_not_mixed_up(tmp_path):
    with pytest.raises(VBenchError, match=r"must be in \[0, 1\]"):
        total(dict.fromkeys(DIMENSIONS, 55.0))
    with pytest.raises(VBenchError, match="temporal_flickering is 981; want percent"):
        row = ["50"] * 16
        row[list(DIMENSIONS).index("temporal_flickering")] = "981"
        totals_of_file(table(tmp_path / "rows.csv", {"x": row}))


# --- prompts and names ------------------------------------------------------------


def test_a_subset_takes_equally_of_every_dimension_and_is_always_the_same(entries):
    chosen = vbench_suite.subset(entries, 400, seed=0)
    counts = {len(vbench_suite.prompts(chosen, name)) for name in DIMENSIONS}
    assert counts == {37} and len(vbench_suite.prompts(chosen)) == 407
    assert vbench_suite.subset(entries[::-1], 400, seed=0) == chosen[::-1]
    assert vbench_suite.digest(vbench_suite.prompts(chosen)) == "85ba48c90b4e"
    assert vbench_suite.subset(entries, 400, seed=1) != chosen
    larger = vbench_suite.prompts(vbench_suite.subset(entries, 600, seed=0))
    assert set(vbench_suite.prompts(chosen)) < set(larger)
    with pytest.raises(VBenchError, match="VBench has 946 prompts"):
        vbench_suite.subset(entries, 947)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not json", "not a full_info file"),
        ('{"a": 1}', "not a full_info file"),
        ('[{"prompt_en": "x", "dimension": ["colour"]}]', "names colour"),
        ('[{"prompt_en": "a/b", "dimension": ["color"]}]', "expects the impossible file name"),
        (json.dumps([{"prompt_en": "é" * 130, "dimension": ["color"]}]), "expects the impossible file name"),
    ],
)
def test_a_suite_that_vbench_could_not_use_is_refused(tmp_path, content, message):
    (tmp_path / "suite.json").write_text(content)
    with pytest.raises(VBenchError, match=message):
        vbench_suite.load(tmp_path / "suite.json")


def test_videos_of_own_prompts_are_numbered_by_seed_up_to_five(bench):
    records = [record(bench, f"k{seed}", "a cat", seed) for seed in (6, 5, 4, 3, 2, 1)]
    records.append(record(bench, "d", "a dog"))
    videos, beyond = vbench_suite.arrange(records, own_prompts=True)
    found = {video.file: video.record.path.name for video in videos}
    assert found == {"a dog-0.mp4": "d"} | {f"a cat-{i}.mp4": f"k{i + 1}" for i in range(5)} and beyond == 1


def test_videos_of_other_prompts_are_named_by_key(bench):
    odd = record(bench, "0f3a", "a / b\n" + "é" * 300)
    assert [video.file for video in vbench_suite.arrange([odd], own_prompts=False)[0]] == ["0f3a-0.mp4"]


# --- weights and the environment ------------------------------------------------------------


@pytest.fixture
def places(tmp_path, monkeypatch):
    named = {"SCOPE_VBENCH": "env", "VBENCH_CACHE_DIR": "vb", "TORCH_HOME": "th", "HF_HOME": "hf"}
    for variable, name in named.items():
        monkeypatch.setenv(variable, str(tmp_path / name))
    return tmp_path


def test_a_weight_counts_only_when_it_is_whole(places):
    amt = places / "vb/amt_model/amt-s.pth"
    missing = vbench_setup.examine()["amt"]
    assert missing.problem == "missing" and "12 MB" in str(missing) and str(amt) in str(missing)
    assert "https://huggingface.co/lalala125/AMT" in str(missing)
    amt.parent.mkdir(parents=True)
    amt.write_bytes(b"cut")
    assert vbench_setup.examine()["amt"].problem == "damaged: 3 bytes of 12,038,359"
    os.truncate(amt, 12038359)
    assert (vbench_setup.examine()["amt"].problem, vbench_setup.examine()["amt"].verified) == ("", "size")
    assert "sha256 does not start with" in vbench_setup.examine(hashes=True)["amt"].problem


def test_a_file_of_the_hugging_face_cache_is_found_in_any_snapshot(places):
    vocabulary = places / "hf/hub/models--bert-base-uncased/snapshots/86b5e0934494/vocab.txt"
    vocabulary.parent.mkdir(parents=True)
    vocabulary.write_bytes(bytes(231508))
    assert vbench_setup.examine()["bert_vocab"].path == vocabulary


def test_what_a_dimension_lacks_is_said_by_name(places):
    weights = vbench_setup.examine()
    lack = vbench_setup.lacking(weights, {"vbench": True}, "standard")
    assert lack["temporal_flickering"] == [] and sum(not items for items in lack.values()) == 1
    assert all("; from " in item and str(places) in item for item in lack["scene"])
    assert vbench_setup.short(lack["color"]) == (
        "detectron2 (Python package), grit_b_densecap_objectdet.pth (417 MB), vocab.txt (232 kB)"
    )
    extra = vbench_setup.lacking(weights, {"vbench": True}, "long")["background_consistency"]
    assert [item.split(" (")[0] for item in extra] == ["dreamsim", "ViT-B-32.pt"]


def test_doctor_without_an_environment_says_how_to_get_one(places, capsys):
    assert vbench.main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "python -m eval.vbench setup" in lines[0]
    shown = [line.split()[0] for line in lines if "unavailable: missing VBench itself" in line]
    assert shown == list(DIMENSIONS)


def test_doctor_tells_available_from_missing(places, capsys, monkeypatch):
    found = {"python": "3.11", "versions": {"vbench": "0.1.5"}, "modules": {"dreamsim": True}, "cuda": False}
    monkeypatch.setattr(vbench_setup, "probe", lambda: found)
    assert vbench.main(["doctor"]) == 0
    said = dict(
        line.split(maxsplit=1)
        for line in capsys.readouterr().out.splitlines()
        if line.split()[:1] and line.split()[0] in DIMENSIONS
    )
    assert list(said) == list(DIMENSIONS) and said["temporal_flickering"] == "available"
    assert said["motion_smoothness"] == "unavailable: missing amt-s.pth (12 MB)"


def test_an_unfinished_or_outdated_setup_does_not_count(places, capsys, bench):
    (places / "env/venv/bin").mkdir(parents=True)
    with pytest.raises(VBenchError, match="not installed"):
        vbench_setup.interpreter()
    (places / "env/installed.json").write_text(json.dumps({"requirements": ["vbench==0.1.4"]}))
    with pytest.raises(VBenchError, match="other requirements"):
        vbench_setup.interpreter()


def test_score_without_an_environment_is_an_error_that_says_what_to_run(places, capsys):
    record(Store(places / "results"), "a", "a cat")
    assert vbench.main(["score", str(places / "results")]) == 1
    assert "python -m eval.vbench setup" in capsys.readouterr().err


# --- scoring, with a stand-in for the package ------------------------------------------------------------


def test_scores_are_written_beside_what_is_there_and_never_made_twice(bench):
    first = record(bench, "a", "temporal_flickering prompt 1", seed=1)
    first.write_json("quality.json", {"psnr": 31.5})
    record(bench, "b", "temporal_flickering prompt 1", seed=2)
    report = vbench_score.score(bench.root)["tiny/scope"]
    assert first.quality["psnr"] == 31.5 and first.quality["vbench"] == {"temporal_flickering": 0.5}
    assert report["dimensions"]["temporal_flickering"]["score"] == pytest.approx((0.5 * 1 + 0.6 * 2) / 3)
    assert json.loads((bench.root / "vbench/tiny/scope.json").read_text()) == report
    assert vbench_score.score(bench.root)["tiny/scope"]["dimensions"] == report["dimensions"]
    asked = "temporal_flickering temporal_flickering prompt 1-0.mp4 temporal_flickering prompt 1-1.mp4"
    assert calls(bench) == [asked]
    record(bench, "c", "temporal_flickering prompt 2")
    again = vbench_score.score(bench.root)["tiny/scope"]["dimensions"]["temporal_flickering"]
    assert calls(bench) == [asked, "temporal_flickering temporal_flickering prompt 2-0.mp4"]
    assert again["score"] == pytest.approx((0.5 * 1 + 0.6 * 2 + 0.5 * 1) / 4) and again["videos"] == 3
    assert list(bench.staging.glob("vbench*")) == [] and len(list(bench.records())) == 3


def test_the_long_protocol_keeps_its_own_scores(bench):
    kept = record(bench, "a", "temporal_flickering prompt 1")
    for protocol in ("standard", "long"):
        report = vbench_score.score(bench.root, protocol=protocol)["tiny/scope"]
    assert len(calls(bench)) == 2 and {"vbench", "vbench_long"} <= set(kept.quality)
    assert "lossy" in report["notes"][0]
    assert "protocol=long" in vbench_score.score(bench.root)["tiny/scope"]["notes"][0]  # 10 s, as the stand-in says


def test_other_prompts_are_scored_where_vbench_can_judge_them(bench):
    record(bench, "a", "a red circle moves right")
    found = vbench_score.score(bench.root)["tiny/scope"]
    states = {name: fact["status"] for name, fact in found["dimensions"].items()}
    unavailable = {name for name, fact in DIMENSIONS.items() if fact.get("own_prompts")}
    assert states == {name: "unavailable" if name in unavailable else "ok" for name in DIMENSIONS}
    assert found["prompts"]["kind"] == "custom" and found["total"] is None and set(found["total_lacks"]) == unavailable
    assert "VBench's own prompts, and" in found["dimensions"]["color"]["reason"]


def test_a_total_exists_when_all_sixteen_do(bench):
    for number, names in enumerate(GROUPS):
        record(bench, f"k{number}", f"{names[0]} prompt 0")
    found = vbench_score.score(bench.root)["tiny/scope"]
    assert found["total"] == pytest.approx(total(dict.fromkeys(DIMENSIONS, 0.5))) and found["total_lacks"] == []


def test_missing_weights_leave_a_dimension_unavailable_not_zero(bench, monkeypatch):
    record(bench, "a", "color prompt 1")
    lack = {name: [] for name in DIMENSIONS} | {"color": ["grit.pth (417 MB, missing; from there; to here)"]}
    monkeypatch.setattr(vbench_setup, "lacking", lambda *_: lack)
    color = vbench_score.score(bench.root, ["color"])["tiny/scope"]["dimensions"]["color"]
    assert (color["status"], color["videos"], color["of"]) == ("unavailable", 0, 1) and "score" not in color
    assert color["reason"] == "missing grit.pth (417 MB, missing; from there; to here)" and calls(bench) == []


def test_a_declared_suite_must_be_covered(bench, tmp_path, entries):
    suite = tmp_path / "suite.json"
    suite.write_text(json.dumps([entry for entry in entries if entry["prompt_en"].endswith((" 1", " 2"))]))
    record(bench, "a", "temporal_flickering prompt 1")
    record(bench, "b", "temporal_flickering prompt 7")
    report = vbench_score.score(bench.root, suite=suite)["tiny/scope"]
    found = report["dimensions"]["temporal_flickering"]
    assert found["status"] == "incomplete" and "score" not in found and found["partial"] == 0.5
    assert "'temporal_flickering prompt 2'" in found["reason"] and report["left_out"] == {"outside the suite": 1}
    record(bench, "c", "temporal_flickering prompt 2")
    found = vbench_score.score(bench.root, suite=suite)["tiny/scope"]["dimensions"]["temporal_flickering"]
    assert (found["status"], found["score"]) == ("ok", 0.5)


def test_invalid_videos_are_counted_and_left_out(bench):
    record(bench, "a", "temporal_flickering prompt 1")
    record(bench, "b", "temporal_flickering prompt 2", status="invalid")
    record(bench, "c", "temporal_flickering prompt 3").write_json("quality.json", {"validity": {"status": "invalid"}})
    report = vbench_score.score(bench.root)["tiny/scope"]
    assert report["videos"] == 1 and report["left_out"] == {"invalid": 2}


@pytest.mark.parametrize(
    ("how", "status", "reason"),
    [
        ("error", "failed", "RuntimeError: out of memory"),
        ("crash", "failed", "ended early (exit 9)"),
        ("skip", "failed", "omitted 1 of 2 videos"),
        ("other mean", "failed", "differs from VBench's"),
    ],
)
def test_a_dimension_that_fails_says_why_and_takes_no_other_with_it(bench, how, status, reason):
    for key in "ab":
        record(bench, key, f"overall_consistency prompt {key == 'b':d}")
    behave(bench, "imaging_quality", how)
    found = vbench_score.score(bench.root)["tiny/scope"]["dimensions"]
    assert found["imaging_quality"]["status"] == status and "score" not in found["imaging_quality"]
    assert reason in found["imaging_quality"]["reason"] and found["aesthetic_quality"]["status"] == "ok"
    assert found["overall_consistency"]["status"] == ("failed" if how == "crash" else "ok")
    behave(bench, "imaging_quality", "fine")
    again = vbench_score.score(bench.root)["tiny/scope"]["dimensions"]
    assert {again[name]["status"] for name in ("imaging_quality", "overall_consistency")} == {"ok"}


def test_a_video_without_the_object_stays_out_of_the_color_mean(bench):
    records = [record(bench, key, f"color prompt {number}") for number, key in enumerate("ab")]
    behave(bench, "color", "skip")
    found = vbench_score.score(bench.root)["tiny/scope"]["dimensions"]["color"]
    assert (found["status"], found["score"], found["videos"]) == ("ok", 0.5, 2)
    assert records[1].quality["vbench"] == {"color": None}
    vbench_score.score(bench.root)
    assert len(calls(bench)) == 1


def test_a_file_that_is_no_table_is_refused(tmp_path, capsys):
    (tmp_path / "video.mp4").write_bytes(bytes(range(256)))
    (tmp_path / "empty.csv").write_text("")
    for name in ("video.mp4", "empty.csv", "gone.csv"):
        assert vbench.main(["total", str(tmp_path / name)]) == 1
    said = capsys.readouterr().err
    assert "UTF-8" in said and "empty.csv has no lines" in said and "gone.csv" in said
    assert vbench.main(["prompts", str(tmp_path / "x.json"), "videos=many"]) == 1
    assert "want a whole number" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["protocol=short"], "want standard or long"),
        (["device=tpu"], "want auto or cpu or cuda"),
        (["dimensions=[colour]"], "unknown dimension colour"),
        (["dimension=color"], "is not a setting here"),
        (["suite=nowhere.json"], "not a full_info file"),
        ([], "no complete, valid video"),
    ],
)
def test_bad_settings_are_refused_with_the_choices(bench, capsys, words, message):
    assert vbench.main(["score", str(bench.root), *words]) == 1
    assert message in capsys.readouterr().err


# --- the runner ------------------------------------------------------------


def test_per_video_values_weigh_what_vbench_makes_them_weigh(monkeypatch):
    monkeypatch.setattr(vbench_runner, "shape", lambda path: ({"a": 12, "b": 100}[path.stem], 24.0))
    job = {"dimension": "subject_consistency", "protocol": "standard", "folder": "."}
    entries = [{"video_path": "x/a.mp4", "video_results": 0.9}, {"video_path": "x/b.mp4", "video_results": 0.8}]
    found = vbench_runner.by_video(job, entries)
    assert [found[file]["weight"] for file in ("a.mp4", "b.mp4")] == [11, 99]
    in_percent = vbench_runner.by_video(job | {"dimension": "imaging_quality"}, entries)
    assert in_percent["a.mp4"]["value"] == pytest.approx(0.009)
    clips = [*entries, {"video_path": "y/b.mp4", "video_results": True}]
    long = vbench_runner.by_video(job | {"protocol": "long"}, clips)["b.mp4"]
    assert long["value"] == pytest.approx(0.9) and long["weight"] == 2 and long["clips"] == [0.8, 1.0]
    assert vbench_runner.weight({"frame_results": [0.1] * 16}, "spatial_relationship", 240) == 16


def test_the_clips_of_a_long_video_give_its_drift(bench):
    one = record(bench, "c", "temporal_flickering prompt 5")
    for name, clips in (("imaging_quality", [0.8, 0.1, 0.5]), ("dynamic_degree", [1.0])):
        vbench_cells.write(one, name, {"value": 0.5, "weight": 3, "clips": clips}, "long")
    quality = json.loads((one.path / "quality.json").read_text())
    assert quality["vbench_long_drift"] == {"imaging_quality": 0.3}  # one clip has no drift


def installed() -> str:
    try:
        return "" if vbench_setup.interpreter().exists() else "the isolated environment has lost its Python"
    except VBenchError as error:
        return str(error)


@pytest.mark.skipif(bool(installed()), reason=installed() or "VBench is installed")
def test_the_real_package_measures_flicker_as_worked_by_hand(tmp_path, capsys):
    store, rng = Store(tmp_path / "results"), np.random.default_rng(0)
    own = vbench_suite.prompts(vbench_suite.load(vbench_setup.full_info()), "temporal_flickering")
    expected = {}
    for key, prompt, method in (("a1", own[0], "own"), ("b2", own[1], "own"), ("c3", "a / red_circle-3", "custom")):
        frames = rng.integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
        record(store, key, prompt, method=method, frames=frames)
        steps = np.abs(np.diff(frames.astype(float), axis=0))
        expected[key] = 1 - steps.mean() / 255
    words = ["score", str(store.root), "dimensions=[temporal_flickering]"]
    assert vbench.main(words) == 0
    found = {one.path.name: one.quality["vbench"]["temporal_flickering"] for one in store.records()}
    assert found == pytest.approx(expected, abs=1e-7)
    score = json.loads(Path(store.root / "vbench/tiny/own.json").read_text())["dimensions"]["temporal_flickering"]
    assert score["score"] == pytest.approx((expected["a1"] + expected["b2"]) / 2, abs=1e-7)
    assert "tiny/own temporal_flickering, 2 videos" in capsys.readouterr().out
