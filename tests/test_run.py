"""The command line, from a prompt to a table, on random tiny weights: records, resuming, faults, refusals."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra

import run
from store import Store
from tests.tiny import TINY, save_checkpoint

ROOT = Path(run.__file__).parent
HARD = (
    "say \"hi\" / \\ 'there' ../../x 🦊 <script>alert(1)</script> [b]%s{}$HOME ${x} #1 a=b c:d, 日本語 שלום "
    + "long " * 600
)
NASTY = 'r#1 a=b:c 日本 שלום 🦊 $HOME [b] "q" it\'s'  # the name of a results folder
POISON = '''
from dataclasses import dataclass
from engine.method import Method
from engine.row import VELOCITY, Decision, Mode

@dataclass
class Poison(Method):
    """Hands back NaN from row `start` on, for every prompt."""

    start: int = 3

    def reset(self):
        self.row = 0

    def decide(self, part, probe, branch=""):
        self.row += 1
        return Decision(Mode.CACHE if self.row > self.start else Mode.RECOMPUTE)

    def sites(self, depth, row):
        return (VELOCITY,)

    def fill(self, site, part, mode, x):
        return x * float("nan")

@dataclass
class Crash(Poison):
    def fill(self, site, part, mode, x):
        raise ArithmeticError("no [red]stand-in[/red] today")
'''


@dataclass
class Said:
    status: int
    out: str
    err: str


def call(*arguments):
    """`python run.py ARGUMENTS` in this process, without a worker process."""
    out, err = io.StringIO(), io.StringIO()
    before = list(sys.argv)
    GlobalHydra.instance().clear()
    try:
        with redirect_stdout(out), redirect_stderr(err):
            status = run.command([*map(str, arguments), "isolate=false"])
    except SystemExit as end:  # after --help
        status = int(end.code or 0)
    finally:
        sys.argv[:] = before
        GlobalHydra.instance().clear()
    return Said(status, out.getvalue(), err.getvalue())


def start(*arguments, cwd):
    """The same in a separate process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        env=environment,
    )
    return Said(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def menu(tmp_path_factory):
    """A menu of our own beside the project's: a tiny model, its operating points, a method that breaks."""
    folder = tmp_path_factory.mktemp("menu")
    settings = asdict(TINY) | {"frames": 53, "height": 64, "width": 64, "text_length": 16}
    files = {
        "model/tiny": {"_target_": "models.skyreels.backbone.SkyReelsV2", **settings},
        "method/poison": {"_target_": "poisoned.Poison", "start": 3},
        "method/crash": {"_target_": "poisoned.Crash", "start": 3},
        "point/tiny/scope_fast": {
            "method": {"tau_cache": 0.0, "tau_predict": 9.0, "max_skip": 2},
            "point": {"estimated": True, "why": "ours"},
        },
        "point/tiny/teacache_fast": {"method": {"threshold": 9.0, "fit": "none", "warmup": 1}, "point": {"why": "us"}},
    }
    for name, content in files.items():
        path = folder / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(("# @package _global_\n" if name.startswith("point") else "") + yaml.safe_dump(content))
    (folder / "prompts.txt").write_text(f"a fox\n{HARD}\n", encoding="utf-8")
    (folder / "poisoned.py").write_text(POISON)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


def tiny(menu, results, *more):
    return ["--config-dir", menu, "model=tiny", f"prompts.file={menu / 'prompts.txt'}", f"results={results}", *more]


@pytest.fixture(scope="module")
def swept(menu, tmp_path_factory):
    """(output, results folder) of a sweep in which one method fails."""
    results = tmp_path_factory.mktemp("somewhere") / NASTY
    here = Path.cwd()
    os.chdir(results.parent)
    try:
        said = call("-m", *tiny(menu, results, "method=original,poison,scope,teacache", "device=cpu"))
    finally:
        os.chdir(here)
    return said, results


def table(results):
    """The lines of the main table by method."""
    with (results / "report" / "tables" / "main.csv").open(encoding="utf-8", newline="") as file:
        return {row["method"]: row for row in csv.DictReader(file)}


def records(results, method=None):
    return [r for r in Store(results, create=False).records() if method in (None, r.run["method"])]


# --- the whole way ----------------------------------------------------------------------------------------------------


def test_a_sweep_makes_every_video_and_says_what_failed(swept):
    said, results = swept
    found = {(r.run["method"], r.run["prompt_id"]): r.status for r in records(results)}
    expected = {(m, p): "ok" for m in ("original", "scope", "teacache") for p in ("0000", "0001")}
    assert found == expected | {("poison", "0000"): "invalid", ("poison", "0001"): "invalid"}
    assert said.status == 1
    errors = [line for line in said.out.splitlines() if line.startswith("error:")]
    assert len(errors) == 2 and all("tiny poison" in line and "not finite" in line for line in errors)
    assert "Traceback" not in said.out + said.err


def test_a_record_holds_what_the_schema_promises(swept):
    _, results = swept
    for record in records(results):
        ran = record.run
        assert {
            "model",
            "method",
            "speed",
            "prompt",
            "prompt_id",
            "seed",
            "status",
            "reason",
            "seconds",
            "peak_memory",
            "flops",
            "forwards",
            "iterations",
            "decisions",
            "environment",
            "produced_by",
            "weights",
            "key",
        } <= set(ran)
        assert set(ran["seconds"]) == {"denoise", "decode", "text", "total", "warmup"}
        assert set(ran["peak_memory"]) == {"allocated", "reserved"}
        assert set(ran["flops"]) == {"dense", "masked", "executed_fraction"}
        assert set(ran["decisions"]) == {"cache", "predict", "recompute"}
        assert record.path.name == ran["key"] and ran["weights"] == "random"
        assert record.config["model"]["name"] == "tiny" and record.config["results"] == str(results)
        assert len(record.trace()) == sum(ran["decisions"].values())


def test_the_decisions_of_each_method_are_in_its_trace(swept):
    _, results = swept
    for method, stood_in, site in (("scope", "predict", ["velocity"]), ("teacache", "cache", ["blocks 0:2"])):
        for record in records(results, method):
            assert record.run["decisions"][stood_in] > 0 and record.run["flops"]["executed_fraction"] < 0.9
            lines = [line for line in record.trace() if line["mode"] == stood_in]
            assert len(lines) == record.run["decisions"][stood_in]
            assert all(line["sites"] == site and line["iteration"] > 0 for line in lines)
    for record in records(results, "original"):
        assert record.run["decisions"] == {"cache": 0, "predict": 0, "recompute": record.run["iterations"]}
        assert record.run["flops"]["executed_fraction"] == 1 and record.run["forwards"] == 2 * (14 + 8)


def test_operating_points_of_a_plugged_in_menu_are_used_and_marked(swept):
    _, results = swept
    assert {p.name for p in (results / "tiny").iterdir()} == {"original", "poison", "scope-fast", "teacache-fast"}
    assert {r.run["estimated"] for r in records(results, "scope")} == {True}
    assert {r.run["estimated"] for r in records(results, "teacache")} == {False}


def test_every_video_is_paired_with_the_original_of_its_prompt(swept):
    _, results = swept
    originals = {r.run["prompt"]: r.run["key"] for r in records(results, "original")}
    for record in records(results):
        expected = None if record.run["method"] == "original" else originals[record.run["prompt"]]
        assert record.run["reference_key"] == expected
        if expected and record.status == "ok":
            assert record.quality["reference"] in (expected, str(record.path.parents[1] / "original" / expected))
            assert {"psnr", "ssim", "lpips", "validity"} <= set(record.quality)


def test_prompts_with_markup_quotes_slashes_and_3000_characters_are_kept_whole_and_stay_out_of_names(swept):
    said, results = swept
    prompts = {record.run["prompt"] for record in records(results)}
    assert prompts == {"a fox", HARD.strip()} and max(map(len, prompts)) >= 3000
    for path in results.rglob("*"):
        assert len(path.name) < 100 and not set(path.name) & set("<>\"'\\ 🦊$%{}"), path
    page = (results / "report" / "index.html").read_text(encoding="utf-8")
    assert "<script>alert(1)" not in page and "alert(1)" in page
    assert (results / "report" / "tables" / "main.csv").read_text().count("\n") == 5
    assert 'say "hi"' in said.out


def test_a_broken_video_leaves_a_record_without_frames_that_says_why(swept):
    _, results = swept
    for record in records(results, "poison"):
        assert record.run["reason"] == "latents of segment 0 are not finite after iteration 13"
        assert not (record.path / "frames.mp4").exists() and len(record.trace()) == 14
    assert table(results)["poison"]["status"].startswith("0 videos, invalid 2")


def test_random_weights_fill_the_columns_of_cost_and_leave_those_of_quality_empty(swept):
    """Models with random weights generate noise, which would be invalid; only their cost matters."""
    _, results = swept
    rows = table(results)
    assert set(rows) == {"original", "teacache", "scope", "poison"}
    for method in ("original", "teacache", "scope"):
        row = rows[method]
        assert row["videos"] == "2" and "invalid 0" in row["status"] and "random weights" in ",".join(row.values())
        assert all(float(row[name]) > 0 for name in ("time_s", "flops_pf", "peak_memory_gb"))
        assert [row[name] for name in ("lpips", "ssim", "psnr", "vbench")] == [""] * 4
    assert float(rows["scope"]["flops_speedup"]) > float(rows["original"]["flops_speedup"]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["2026-10-07T12:30", NASTY])
def test_scoring_again_by_a_relative_path_with_a_colon_gives_the_same_scores(swept, tmp_path, name):
    """The Original and a method, run by the real command on the prompt with all special characters."""
    _, results = swept
    pair = [r for r in records(results) if r.run["prompt"] != "a fox" and r.run["method"] in ("original", "scope")]
    for record in pair:
        shutil.copytree(record.path, tmp_path / name / record.path.relative_to(results))
    before = {record.path.name: record.quality for record in pair}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "eval", name, "--redo", "--lpips-net", "none"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and "scored 2" in done.stdout, done
    again = {record.path.name: record.quality for record in Store(tmp_path / name, create=False).records()}
    assert len(again) == 2
    for key, quality in again.items():
        for measure in ("psnr", "ssim", "identical", "validity", "measures", "per_frame"):
            assert quality[measure] == before[key][measure], measure
    assert {quality["psnr"] is None for quality in again.values()} == {True, False}


def test_running_again_does_nothing(swept, menu):
    _, results = swept
    before = {path: path.stat().st_mtime_ns for path in (results / "tiny").rglob("*") if path.is_file()}
    said = call("-m", *tiny(menu, results, "method=original,poison,scope,teacache", "device=cpu", "report=false"))
    assert said.status == 0 and said.out.count("nothing to do, every video is in the store") == 4
    assert {path: path.stat().st_mtime_ns for path in (results / "tiny").rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_other_settings_are_other_videos_beside_the_first(swept, menu):
    _, results = swept
    count = len(records(results))
    said = call(*tiny(menu, results, "method=scope", "method.max_skip=1", "prompts.limit=1", "score=false"))
    assert said.status == 0
    again = records(results, "scope")
    assert len(records(results)) == count + 1 and len({r.run["key"] for r in again}) == 3
    assert len({r.run["reference_key"] for r in again}) == 2


def test_a_method_that_raises_fails_its_video_and_nothing_else(menu, tmp_path):
    arguments = tiny(menu, tmp_path, "method=crash", "prompts.limit=1", "device=cpu", "score=false", "report=false")
    said = call(*arguments)
    assert said.status == 1 and "ArithmeticError: no [red]stand-in[/red] today" in said.out
    assert {r.run["method"]: r.status for r in records(tmp_path)} == {"original": "ok", "crash": "failed"}
    assert "nothing to do" in call(*arguments).out  # a failure is not tried again
    assert "nothing to do" not in call(*arguments, "retry_failed=true").out  # unless asked


# --- dry runs ---------------------------------------------------------------------------------------------------------


def test_a_dry_run_is_one_json_object_on_the_last_line_and_touches_nothing(swept, tmp_path):
    """Run from another folder, with records in the store."""
    _, results = swept
    page = results / "report" / "index.html"
    before = page.stat().st_mtime_ns
    said = start("model=skyreels", "dry_run=true", "method=original", f"results={results}", cwd=tmp_path)
    assert said.status == 0, said.err
    plan = json.loads(said.out.splitlines()[-1])
    assert plan["iterations"] == 200 and plan["forwards"] == 400 and plan["segments"] == [70, 65, 65]
    assert plan["flops_pf"]["dense"] == pytest.approx(244.78, abs=0.05)
    assert plan["flops_pf"]["masked"] == pytest.approx(168.07, abs=0.05)
    assert plan["parameters"] == 1435525696 and plan["videos"] == 3
    assert (plan["model"], plan["method"]) == ("skyreels", "original")
    assert page.stat().st_mtime_ns == before and not list(tmp_path.iterdir())


def test_a_dry_run_of_selective_computation_alone():
    said = call(
        "model=skyreels",
        "dry_run=true",
        "method=scope",
        "method.selective=prefix",
        "method.tau_cache=0",
        "method.tau_predict=0",
    )
    plan = json.loads(said.out.splitlines()[-1])
    assert said.status == 0 and plan["flops_pf"]["dense"] == pytest.approx(207.89, abs=0.005)


def test_the_published_sweep_needs_no_further_override(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = call("-m", "model=skyreels", "method=scope,teacache", "dry_run=true")
    assert "estimated cost" in said.out
    said = call("-m", "model=skyreels", "method=scope,teacache", "dry_run=true", "--json")
    plans = [json.loads(line) for line in said.out.splitlines() if line.startswith("{")]
    assert said.status == 0 and [(p["method"], p["speed"]) for p in plans] == [("scope", "fast"), ("teacache", "fast")]
    assert not list(tmp_path.iterdir())


def test_fewer_steps_are_planned_with_a_shorter_lag():
    said = call("model=skyreels", "method=reduced_steps", "dry_run=true")
    assert json.loads(said.out.splitlines()[-1])["segments"] == [14, 13, 13]


# --- what is refused --------------------------------------------------------------------------------------------------


def test_a_wrong_word_ends_a_process_with_one_line_and_status_1(tmp_path):
    said = start("method=scop", cwd=tmp_path)
    assert said.status == 1 and said.err.strip() == "error: method=scop is not on the menu; did you mean scope?"
    assert said.out == "" and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments,words",
    [
        (["method=scop"], "did you mean scope?"),
        (["method=scope", "method.tau_cach=0.1"], "method.tau_cach is not a setting; did you mean method.tau_cache?"),
        (["method=scope", "method.tau_predict=1", "method.tau_cache=abc"], "method.tau_cache: Value 'abc'"),
        (["method=scope", "method.tau_cache=0.5", "method.tau_predict=0.1"], "want 0 <= tau_cache <= tau_predict"),
        (["method=teacache", "method.threshold=nan"], "threshold must be at least 0"),
        (["model=skyreels", "model.frames=250", "method=original"], "the nearest that does is 257"),
        (["model=skyreels", "model.width=100", "method=original"], "must be a multiple of 16, got 100; nearest: 96"),
        (["method=original", "prompts.file=none.txt"], "prompts.file=none.txt does not exist"),
        (["method=original", "device=cuda"], "sees no GPU; use device=cpu"),
        (["method=scope", "method.selective=exact"], "set model.attention=block_causal"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_gets_one_line_before_anything_is_built(arguments, words, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(run.Store, "__init__", lambda *a, **k: pytest.fail("the store was opened"))
    said = call(*arguments, f"results={tmp_path / 'results'}")
    lines = [line for line in (said.out + said.err).splitlines() if line.strip()]
    assert said.status == 1 and len(lines) == 1 and words in lines[0] and lines[0].startswith("error: ")
    assert not list(tmp_path.iterdir())


def test_in_a_sweep_bad_cells_do_not_stop_the_good_ones(menu, tmp_path):
    said = call(
        "-m",
        *tiny(menu, tmp_path, "method=scope", "method.max_skip=-1,1", "prompts.limit=1", "device=cpu"),
        "score=false",
        "report=false",
    )
    assert said.status == 1 and said.out.count("error:") == 1 and "max_skip must lie in" in said.out
    assert {r.run["method"] for r in records(tmp_path)} == {"original", "scope"}


def test_missing_weights_name_the_folder_and_the_command(tmp_path):
    said = call("model=skyreels", "model.checkpoint=nobody/nothing", "method=original", f"results={tmp_path}")
    errors = [line for line in said.out.splitlines() if line.startswith("error:")]
    assert said.status == 1 and len(errors) == 1
    assert "nobody/nothing" in errors[0] and "hf download nobody/nothing" in errors[0]
    assert "Traceback" not in said.out


def test_truncated_weights_name_the_file_and_the_command(menu, tmp_path):
    folder = save_checkpoint(tmp_path / "checkpoint")
    broken = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    broken.write_bytes(broken.read_bytes()[:-1])
    said = call(
        *tiny(menu, tmp_path / "results", "method=original", "model.weights=pretrained", f"model.checkpoint={folder}")
    )
    assert said.status == 1 and str(broken) in said.out and "cut short" in said.out and "hf download" in said.out


def test_results_that_cannot_be_written_are_refused_before_a_model_is_loaded(menu, tmp_path, monkeypatch):
    (tmp_path / "results").write_text("a file")
    monkeypatch.setattr("models.skyreels.backbone.SkyReelsV2.load", lambda self: pytest.fail("a model was loaded"))
    said = call(*tiny(menu, tmp_path / "results", "method=original"))
    assert said.status == 1 and "cannot write" in said.out and "choose another results=FOLDER" in said.out
    assert (tmp_path / "results").read_text() == "a file"


# --- the shortest commands --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments,quick",
    [
        ([], True),
        (["results=/x"], True),
        (["seeds=[1]", "prompts.limit=1"], True),
        (["method=scope"], False),
        (["-m", "model=skyreels"], False),
        (["experiment=quickstart"], False),
        (["dry_run=true"], False),
        (["--help"], False),
        (["--cfg", "job"], False),
        (["+method=scope"], False),
    ],
)
def test_without_a_word_about_what_to_compare_the_quickstart_is_meant(arguments, quick):
    assert (run.QUICKSTART in run.command_line(arguments)) is (quick or run.QUICKSTART in arguments)


def test_help_teaches_the_menu():
    said = call("--help")
    assert said.status == 0
    for word in ("method: ", "scope", "teacache", "skyreels_tiny", "python run.py", "dry_run=true", "results: results"):
        assert word in said.out, word
