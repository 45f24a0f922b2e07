"""`python -m reports wandb PROJECT`: offline runs are read back; what W&B refuses is said before anything is made."""

import json

import pytest

from conf.schema import ConfigError
from reports import dashboard, read, wandb_run
from reports.__main__ import main
from sweep import api
from tests.deadly import write_menu
from tests.synthetic import CELLS, PROMPTS, make_store
from tests.test_loggers import wandb_records

FEW = {name: CELLS[name] for name in (("original", None), ("scope", "fast"))}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    root = tmp_path_factory.mktemp("lab") / "results"
    make_store(root, cells=FEW, prompts=PROMPTS[:2])
    return root


@pytest.fixture(autouse=True)
def no_key(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # no netrc
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path))  # where copies of the videos wait for an upload


def folded(items):
    """The values of W&B's items as nested mappings."""
    found = {}
    for item in items:
        *outer, last = item.nested_key or [item.key]
        inside = found
        for name in outer:
            inside = inside.setdefault(name, {})
        inside[last] = json.loads(item.value_json)
    return found


def runs(folder):
    """The offline runs in a folder by name: (run, config, rows, tables, summary, paths of files in artifacts)."""
    found = {}
    for file in folder.rglob("*.wandb"):
        records = list(wandb_records(file))
        run = next(record.run for record in records if record.HasField("run"))
        config = folded([*run.config.update, *(i for r in records if r.HasField("config") for i in r.config.update)])
        logged = folded(i for r in records if r.HasField("history") for i in r.history.item)
        summary = folded(i for r in records if r.HasField("summary") for i in r.summary.update)
        kept = [entry.path for r in records if r.HasField("artifact") for entry in r.artifact.manifest.contents]
        tables = {
            name: json.loads((file.parent / "files" / value["path"]).read_text())
            for name, value in logged.items()
            if isinstance(value, dict) and value["_type"] == "table-file"
        }
        found[run.display_name] = (run, config, logged, tables, summary, kept)
    return found


@pytest.fixture(scope="module")
def sent(results):
    with pytest.MonkeyPatch.context() as patch:
        for name in ("WANDB_API_KEY", "WANDB_MODE"):
            patch.delenv(name, raising=False)
        patch.setenv("WANDB_DATA_DIR", str(results.parent))
        assert main(["wandb", "demo", str(results), "--mode", "offline"]) == 0
    return runs(results / ".logs" / "wandb")


def test_runs_are_grouped_by_model_and_prompt(sent):
    assert len(sent) == 3
    assert {run.project for run, *_ in sent.values()} == {"demo"}
    assert {run.run_group for run, *_ in sent.values()} == {"skyreels_tiny"}
    assert sorted(run.job_type for run, *_ in sent.values()) == ["overview", "prompt", "prompt"]
    prompts = {config["prompt"] for run, config, *_ in sent.values() if run.job_type == "prompt"}
    assert prompts == set(PROMPTS[:2])


def test_the_overview_holds_the_main_table_charts_and_the_timeline(sent, results):
    _, config, logged, tables, summary, _ = sent["skyreels_tiny overview"]
    table = tables["main/overview"]
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    lines = read(results).lines
    assert [row["line"] for row in rows] == [line.name for line in lines]
    assert rows[1]["speedup"] == pytest.approx(lines[1].value("speedup"))
    assert rows[0]["psnr"] is None  # infinity: the Original against itself
    assert summary["speedup/SCOPE_fast"] == pytest.approx(lines[1].value("speedup"))
    assert logged["main/timeline"]["_type"] == "image-file"
    drawn = {name: value["panel_config"] for name, value in config["_wandb"]["visualize"].items()}
    assert drawn["charts/speed_quality"]["panelDefId"] == "wandb/scatter/v0"
    assert drawn["charts/speed_quality"]["fieldSettings"] == {"x": "speedup", "y": "lpips"}
    assert drawn["charts/speedup"]["panelDefId"] == "wandb/bar/v0"
    assert len(tables["charts/speedup_table"]["data"]) == 2


def test_a_prompt_holds_the_videos_of_all_methods_with_their_timelines(sent, results):
    name = next(name for name in sent if PROMPTS[0] in name)
    _, _, logged, tables, _, kept = sent[name]
    columns, data = tables["main/prompt"]["columns"], tables["main/prompt"]["data"]
    rows = [dict(zip(columns, row, strict=True)) for row in data]
    assert [row["line"] for row in rows] == ["Original", "SCOPE fast"]
    assert [row["status"] for row in rows] == ["ok", "ok"] and rows[0]["psnr"] is None
    assert sum(path.endswith(".mp4") for path in kept) == sum(path.endswith(".png") for path in kept) == 2
    grid = dashboard.picture(read(results).study.records[0].trace())
    assert (logged["timelines/Original"]["height"], logged["timelines/Original"]["width"]) == grid.shape[:2]
    assert logged["videos/SCOPE_fast"]["_type"] == "video-file"
    assert logged["timelines/Original"]["_type"] == "image-file"


def test_a_name_that_wandb_refuses_ends_the_command_before_anything_is_read(tmp_path, capsys):
    for words, told in (
        (["a/b", "nowhere"], "Invalid project name 'a/b'"),
        ([" ", "nowhere"], "project ' ' is empty"),
        (["x" * 129, "nowhere"], "exceeded 128 characters"),
        (["fine", "nowhere", "--prompts", "-1"], "--prompts -1: want 0"),
        (["fine", str(tmp_path / "nowhere")], "no results folder"),
    ):
        assert main(["wandb", *words]) == 1
        said = capsys.readouterr().err
        assert told in said and said.count("\n") == 1, said


def test_a_sweep_with_a_name_that_wandb_refuses_is_refused_before_it_begins(tmp_path):
    menu = write_menu(tmp_path)
    base = ("model=tiny", "method=uniform", "device=cpu", "logger=wandb")
    for setting, told in (
        ("logger.project=a/b", "logger=wandb: Invalid project name 'a/b'"),
        (f"logger.group={'g' * 129}", "has 129 letters; W&B takes at most 128"),
    ):
        with pytest.raises(ConfigError, match=told):
            api.plan(*base, setting, results=tmp_path / "results", menu=menu)
    assert api.plan(*base, results=tmp_path / "results", menu=menu)["forwards"]


def test_tags_and_modes_are_checked_by_the_package_itself(monkeypatch):
    assert wandb_run.refused("p", "offline", tags=["fine"]) == ""
    assert "65 characters" in wandb_run.refused("p", "offline", tags=["t" * 65])
    assert "empty" in wandb_run.refused("p", "offline", tags=[""])
    monkeypatch.setenv("WANDB_MODE", "sometimes")
    assert "mode" in wandb_run.refused("p", "auto")


@pytest.mark.parametrize(
    "name", ["", " ", ".", "..", "a/b", "a\\b", "a#b", "a%b", "a:b", "a\nb", "a\x00b", "\x7f", "x" * 129]
)
def test_project_names_that_no_address_can_hold_are_refused(name):
    assert "project" in wandb_run.refused(name, "offline")


def test_control_characters_and_lengths_of_other_names_are_checked_and_any_script_is_taken():
    assert wandb_run.refused("пример", "offline", "群 / 1", ["a fox: 50 % 🦊", "x" * 128], ["t" * 64]) == ""
    for kind, given in (("group", {"group": "a\nb"}), ("run", {"names": ["a\tb"]}), ("tag", {"tags": ["a\x1bb"]})):
        assert wandb_run.refused("p", "offline", **given).startswith(f"{kind} 'a\\")
    assert "has 129 letters" in wandb_run.refused("p", "offline", names=["x" * 129])


def test_numbers_that_no_table_takes_are_left_empty():
    for value in (float("nan"), float("inf"), None, "text"):
        assert dashboard._number(value) is None
    assert dashboard._number(2) == 2.0 and dashboard.picture([]) is None
