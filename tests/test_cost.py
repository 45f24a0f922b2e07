"""Estimated cost of a sweep: each video counts once, hours come from measurements, the budget is kept; shards."""

import json

import pytest

import run
from conf.schema import ConfigError, Run
from store import Store
from sweep.cell import Cell, Order
from sweep.cost import Line, Past, disk_needed, gpu_hours, survey
from tests.deadly import write_menu
from tests.test_run import call


@pytest.fixture(scope="module")
def menu(tmp_path_factory):
    return write_menu(tmp_path_factory.mktemp("menu"))


@pytest.fixture
def cells(menu, tmp_path, monkeypatch):
    """cells(words): the composed cells of a command line. None of them is run."""
    monkeypatch.setattr(run, "sweep", lambda cells, *rest: [])

    def compose(*words):
        prompts = f"prompts.file={menu / 'prompts.txt'}"
        said = call("-m", "--config-dir", menu, "model=tiny", prompts, f"results={tmp_path}", "device=cpu", *words)
        assert said.status == 0, said
        return list(run.composed)

    return compose


def put(cell, job, seconds=10.0, size=500):
    """Write the record of a job as a run writes it."""
    store = Store(cell.run.results)
    with store.stage(job.model.name, job.name, job.speed, job.key) as stage:
        (stage.path / "frames.mp4").write_bytes(bytes(size))
        (stage.path / "trace.jsonl").write_text("")
        stage.run |= {"status": "ok", "seconds": {"total": seconds}, "flops": {"dense": 2e15}}


def test_originals_are_counted_once_for_all_methods(cells):
    found = {line.method: (line.videos, line.todo) for line in survey(cells("method=original,original_repeat,uniform"))}
    assert {name: n for name, n in found.items() if name == "original"} == {"original": (2, 2)}
    assert len(found) == 3 and all(counts == (2, 2) for counts in found.values())


def test_hours_come_from_the_row_then_from_the_model_then_from_the_stated_rate(cells):
    some = cells("method=uniform", "method.interval=2", "pflops=0.5")
    assumed = {line.method: line for line in survey(some)}
    for line in assumed.values():
        assert line.seconds == pytest.approx(line.pflop / 0.5) and line.basis.startswith("assumed 0.5 PFLOP/s")
    jobs = some[0].jobs()
    put(some[0], jobs[0], seconds=10.0)
    original, other = sorted(survey(some), key=lambda line: line.method != "original")
    assert (original.videos, original.todo, original.seconds) == (2, 1, 10.0) and original.basis == "measured on 1"
    assert other.seconds == pytest.approx(other.pflop * 5) and other.basis.startswith(
        "5 s per PFLOP measured on the model, "
    )
    assert gpu_hours([original, other]) == pytest.approx((10 + 2 * other.seconds) / 3600)
    assert disk_needed([original, other]) == 3 * 500


def test_a_failed_video_counts_as_done_unless_it_is_to_be_tried_again(cells):
    for words, todo in (((), 1), (("retry_failed=true",), 2)):
        cell = cells("method=original", *words)[0]
        with Store(cell.run.results).stage("tiny", "original", None, cell.jobs()[0].key) as stage:
            stage.run |= {"status": "failed"}
        assert survey([cell])[0].todo == todo


def test_past_leaves_out_what_failed():
    assert Past.of([]) == Past({}, {}, {})
    assert gpu_hours([Line("m", "a", todo=3, seconds=1200), Line("m", "b", todo=0, seconds=10**9)]) == 1.0


def test_a_sweep_over_its_budget_is_not_started(menu, tmp_path):
    words = ["--config-dir", menu, "model=tiny", f"prompts.file={menu / 'prompts.txt'}", f"results={tmp_path / 'r'}"]
    said = call("-m", *words, "method=original", "pflops=1e-9", "budget_gpu_hours=0.001")
    assert said.status == 1 and "more than budget_gpu_hours=0.001, and was not started" in said.out
    assert not (tmp_path / "r").exists()


def test_a_dry_run_tells_what_is_done_and_what_the_rest_takes(menu, tmp_path):
    words = ["--config-dir", menu, "model=tiny", f"prompts.file={menu / 'prompts.txt'}", f"results={tmp_path}"]
    said = call("-m", *words, "method=original,uniform", "dry_run=true", "device=cpu")
    assert not [line for line in said.out.splitlines() if line.startswith("{")]  # for people, unless --json asks
    row = next(line for line in said.out.splitlines() if line.strip().startswith("all "))
    assert row.split()[1:4] == ["4", "0", "4"]
    said = call("-m", *words, "method=original,uniform", "dry_run=true", "device=cpu", "--json")
    assert all(line.startswith("{") for line in said.out.splitlines())
    plans = [json.loads(line) for line in said.out.splitlines() if line.startswith("{")]
    assert said.status == 0, said
    assert [(plan["videos"], plan["done"], plan["todo"]) for plan in plans] == [(2, 0, 2), (2, 0, 4)]
    assert all(plan["gpu_hours"] > 0 and plan["disk_gb"] > 0 for plan in plans)


# --- shards -----------------------------------------------------------------------------------------------------------


def test_shards_share_the_prompts_out_and_keep_their_numbers(cells):
    whole = {job.key: job.number for job in cells("method=original")[0].jobs()}
    parts = [{job.key: job.number for job in cells("method=original", f"shard={n}/3")[0].jobs()} for n in (1, 2, 3)]
    assert [len(part) for part in parts] == [1, 1, 0]
    assert parts[0] | parts[1] | parts[2] == whole


@pytest.mark.parametrize("shard", ["5/4", "0/4", "1", "1/0", "-1/2", "a/b", "1/4/2"])
def test_a_shard_that_is_none_is_refused(shard):
    with pytest.raises(ConfigError, match=rf"shard={shard} is not valid; want i/n"):
        Run(shard=shard)


def test_a_rate_of_nothing_and_a_budget_below_it_are_refused():
    for wrong in ({"pflops": 0.0}, {"pflops": float("nan")}, {"budget_gpu_hours": -1.0}):
        with pytest.raises(ConfigError, match="want a rate above 0"):
            Run(**wrong)


def test_an_order_is_the_cell_again(cells):
    cell = cells("method=uniform")[0]
    again = Cell.of(Order(**vars(cell.order)))
    assert [job.key for job in again.jobs()] == [job.key for job in cell.jobs()] and again.label == cell.label
