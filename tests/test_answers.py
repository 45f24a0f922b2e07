"""What a command says: flags, one sentence of verdict, errors once with the nearest name, and nothing drawn twice."""

import json
import sys

import pytest

import run
from conf.errors import meant
from conf.schema import explain
from reports import read
from reports.__main__ import main as report_main
from reports.terminal_table import advice, verdicts
from store import reported
from sweep import doctor
from sweep.flags import taken
from tests.synthetic import CELLS, PROMPTS, make_store
from tests.test_run import call

FEW = {cell: CELLS[cell] for cell in (("original", None), ("scope", "fast"), ("teacache", "fast"))}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    root = tmp_path_factory.mktemp("answers") / "results"
    make_store(root, cells=FEW, prompts=PROMPTS[:3], videos=False)
    return root


@pytest.fixture(scope="module")
def drawn(results):
    """The synthetic store with its report."""
    assert report_main([str(results), "--quiet"]) == 0
    return results


@pytest.mark.parametrize(
    "wrong,right",
    [
        ("seed", "seeds"),
        ("methods", "method"),
        ("models", "model"),
        ("steps", "model.steps"),
        ("tau_predict", "method.tau_predict"),
        ("result", "results"),
    ],
)
def test_the_nearest_name_is_the_one_that_is_meant(wrong, right):
    assert explain(f"Could not override '{wrong}'.") == f"{wrong} is not a setting; did you mean {right}?"
    assert meant("qqqq", ["seeds"]) == ""


def test_a_setting_that_another_method_has_is_said_to_be_of_that_method():
    """As in a sweep over the Original and a method, with a setting of the method."""
    said = explain("Could not override 'method.max_horizon'.")
    assert said == "method.max_horizon is a setting of method=predit only; use it in a command without other methods"
    said = explain("Could not override 'model.shift'.")
    assert "model=skyreels_mid, model=skyreels_tiny only" in said


def test_our_flags_are_taken_and_the_rest_is_left():
    flags, rest = taken(["--quiet", "-m", "--json", "method=scope"])
    assert (flags.quiet, flags.json, flags.verbose, rest) == (True, True, False, ["-m", "method=scope"])


def test_the_version_is_ours(capsys):
    assert run.command(["--version"]) == 0
    assert capsys.readouterr().out.startswith("scope-harness ")
    with pytest.raises(SystemExit) as end:
        report_main(["--version"])
    assert end.value.code == 0 and capsys.readouterr().out.startswith("scope-harness ")
    assert doctor.main(["--help"]) == 0 and "usage: python -m sweep.doctor" in capsys.readouterr().out


def test_an_error_of_every_cell_is_printed_once(tmp_path):
    said = call("-m", "method=scope", "speed=slow,fast", "prompts.file=none.txt", f"results={tmp_path}")
    assert said.status == 1 and (said.out + said.err).count("prompts.file=none.txt does not exist") == 1
    said = call("method=scope", "prompts.file=none.txt", f"results={tmp_path}", "--quiet")
    assert said.out == "" and said.err.startswith("error: prompts.file=none.txt")


def test_a_folder_of_plugins_is_on_the_python_path(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "beside_it.yaml").write_text("_target_: lies_beside_the_menu.Mine\n")
    code = "from dataclasses import dataclass\nfrom engine.method import Method\n\n\n@dataclass\nclass Mine(Method):\n"
    (tmp_path / "lies_beside_the_menu.py").write_text(f"{code}    start: int = 1\n")
    said = call("--config-dir", tmp_path, "method=beside_it", "dry_run=true", "device=cpu")
    assert said.status == 0, said.out + said.err
    plan = json.loads(said.out.splitlines()[-1])
    assert "estimated cost" in said.out and plan["method"] == "beside_it"


def test_small_models_are_priced_by_this_machine_and_points_by_their_share(tmp_path):
    tiny = json.loads(call("method=scope", "dry_run=true", "device=cpu", f"results={tmp_path}").out.splitlines()[-1])
    assert all("GFLOP/s of this CPU" in basis for basis in tiny["seconds_from"].values())
    full = call("model=skyreels", "method=scope", "speed=fast", "dry_run=true", "device=cpu", f"results={tmp_path}")
    plan = json.loads(full.out.splitlines()[-1])
    assert "% of the FLOPs" in plan["seconds_from"]["scope-fast"] and "%" not in plan["seconds_from"]["original"]


def test_the_verdict_says_how_fast_how_close_and_whether_it_is_significant(results):
    report = read(results)
    (said,) = verdicts(report)
    assert said.startswith("SCOPE fast is ") and "× faster" in said and " dB; with 3 prompts" in said
    assert "significant" in said and said.endswith(".") and "\n" not in said
    assert "prompts.limit=16" in advice(report)


@pytest.mark.slow
def test_a_report_is_drawn_once_for_the_same_records(drawn, capsys, monkeypatch):
    page = drawn / "report" / "index.html"
    before = page.stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr("reports.write.build", lambda report: pytest.fail("the report was drawn again"))
        assert report_main([str(drawn)]) == 0
    said = capsys.readouterr().out
    assert page.stat().st_mtime_ns == before and "SCOPE fast is" in said and f"page: {page}" in said
    assert report_main([str(drawn), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {line["method"] for line in found["lines"]} == {"original", "scope", "teacache"} and found["verdicts"]


@pytest.mark.slow
def test_a_report_is_drawn_again_when_a_record_or_a_figure_has_changed(drawn):
    assert reported.unchanged(drawn)
    table = drawn / "report" / "tables" / "main.csv"
    kept = table.read_bytes()
    table.write_bytes(kept + b"\n")
    assert reported.unchanged(drawn) is None
    assert report_main([str(drawn), "--quiet"]) == 0 and table.read_bytes() == kept
    record = next(drawn.glob("*/scope-fast/*/run.json"))
    record.write_text(record.read_text() + " ")
    assert reported.unchanged(drawn) is None


def test_a_folder_that_is_none_is_one_line(tmp_path, capsys):
    assert report_main([str(tmp_path / "none")]) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("error: ") and said.err.count("\n") == 1
