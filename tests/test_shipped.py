"""The answers of sweep/plans.jsonl are those of a replay with the present code, and no others are used."""

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from benchmarks import plans
from conf.classes import class_of
from conf.menu import in_full
from engine import fingerprint, source
from sweep import api, shipped
from sweep.replay import counted, own, time_files

ROOT = Path(__file__).resolve().parents[1]
ANEW = "the file does not fit the code; write it again: python -m benchmarks.plans"
SOME = [
    ["model=skyreels_tiny", "method=scope", "speed=fast"],
    ["model=far_tiny", "method=uniform", "speed=none"],
]


def lines():
    return [json.loads(line) for line in shipped.PLANS.read_text().splitlines()]


@pytest.fixture
def cell(monkeypatch, tmp_path):
    """A cell of the menu, in a process with an empty cache."""
    monkeypatch.setenv("SCOPE_CACHE", str(tmp_path / "cache"))
    return api.cell_of("method=scope", "speed=fast", "device=cpu")


@pytest.fixture
def edit(monkeypatch):
    """edit(file, old, new): from then on, the sources are read with this change."""
    texts = {}

    def change(file, old, new):
        path = ROOT / file
        text = path.read_text()
        assert old in text, f"{file} holds no {old!r}"
        texts[path] = text.replace(old, new, 1)
        forget()

    monkeypatch.setattr(source, "read", lambda path: texts.get(path) or path.read_text())
    yield change
    monkeypatch.undo()
    forget()


def forget():
    for cached in (fingerprint.code_of_any, source.load, source.locate):
        cached.cache_clear()


@pytest.fixture
def replays(monkeypatch):
    """The number of replays so far, as a list."""
    made = []

    def count(model, method, embedding=()):
        made.append(method)
        return "null"

    count.__module__, count.__qualname__ = counted.__module__, counted.__qualname__  # the code that it stands for
    monkeypatch.setattr("sweep.replay.counted", count)
    return made


def asks(cell):
    return own(cell.model, cell.method, (1.0, 1.0, 1), [], 1.0)


def test_a_plan_of_the_menu_is_told_without_a_replay(cell, replays):
    told = asks(cell)
    assert not replays and told.exact and told.dense < 1e12 and told.forwards > 0


def test_a_change_of_wording_leaves_the_plans(cell, replays, edit):
    edit("scope/method.py", '"""', '"""Reworded. ')
    edit("sweep/replay.py", '"""', '"""Reworded. ')
    assert asks(cell).exact and not replays


@pytest.mark.parametrize(
    "file,old,new",
    [
        ("scope/method.py", "return ", "return 0 or "),
        ("scope/predictors.py", "return ", "return 0 or "),
        ("models/skyreels/price.py", "total + cost", "total + 2 * cost"),
        ("models/skyreels/plan.py", "return [1 + 4", "return [2 + 4"),
        ("engine/loop.py", "plan = decide(", "row, plan = row, decide("),
        ("sweep/calibration/rehearsal.py", "return latents", "return 1 * latents"),
        ("sweep/replay.py", "Blank(model, signals)", "Blank(model, None)"),
    ],
)
def test_a_change_of_the_code_asks_for_a_replay(cell, replays, edit, file, old, new):
    edit(file, old, new)
    assert not asks(cell).exact and len(replays) == 1


def test_another_setting_or_another_checkpoint_asks_for_a_replay(cell, replays, tmp_path):
    cell.method.tau_cache *= 1.01
    assert not asks(cell).exact and len(replays) == 1
    cell.method.tau_cache /= 1.01
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"other")
    what = f"plan of scope.method.{cell.method!r} on {cell.model.settings!r}"
    assert shipped.shipped(what, cell.model, cell.method, counted, time_files(cell.model))
    assert shipped.shipped(what, cell.model, cell.method, counted, [other]) is None


def test_a_model_of_a_plugin_has_no_plan_of_ours(cell):
    model = cell.model
    what = f"plan of scope.method.{cell.method!r} on {model.settings!r}"
    mine = type("Mine", (type(model),), {"__module__": "beside_it"})(model.settings, model.device)
    assert shipped.shipped(what, model, cell.method, counted, time_files(model))
    assert shipped.shipped(what, mine, cell.method, counted, time_files(mine)) is None


@pytest.mark.parametrize("text", ["", "{", '{"is": 1}', "[]"])
def test_a_file_that_is_missing_or_broken_answers_nothing(cell, replays, monkeypatch, tmp_path, text):
    path = tmp_path / "plans.jsonl"
    monkeypatch.setattr(shipped, "PLANS", path)
    if text:
        path.write_text(text)
    assert not asks(cell).exact and len(replays) == 1


def test_every_line_belongs_to_the_present_code():
    names = {line["model"] for line in lines()}
    models = {name: api.cell_of(f"model={name}", "device=cpu").model for name in names}
    for line in lines():
        method = class_of(OmegaConf.create(in_full("method", line["method"].partition("-")[0])), "method")
        assert line["code"] == plans.code(line["of"], models[line["model"]], method), f"{line['method']}: {ANEW}"


def test_lines_are_what_a_replay_finds(monkeypatch, tmp_path):
    """A few are found anew; the slow test finds all."""
    known = {line["asked"]: line for line in lines()}
    monkeypatch.setattr(shipped, "PLANS", tmp_path / "none")
    monkeypatch.setenv("SCOPE_CACHE", str(tmp_path))
    again = plans.found(SOME)
    assert {line["of"] for line in again} == {"plan", "state"} and len(again) == 4
    assert again == [known.get(line["asked"]) for line in again], ANEW


@pytest.mark.slow
def test_the_whole_file_is_what_replays_find(monkeypatch, tmp_path):
    known = lines()
    monkeypatch.setattr(shipped, "PLANS", tmp_path / "none")
    monkeypatch.setenv("SCOPE_CACHE", str(tmp_path))
    assert plans.found() == known, ANEW
