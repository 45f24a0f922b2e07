"""Cells of one model take turns, prompt by prompt: the order, what stays as it was, and what a fault costs."""

import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

import sweep.make_videos as making
from reports.records import load
from store import Store
from sweep.cell import VIDEOS, Cell, Order
from sweep.run_cell import perform
from sweep.supervisor import Supervisor
from sweep.time_again import TimedAgain
from sweep.turns import grouped, named, turns
from tests.deadly import write_menu
from tests.test_run import call, records
from tests.test_supervisor import composed

METHODS = ("uniform", "original", "pab")
MEASURED = {
    "seconds",
    "chunks",
    "peak_memory",
    "peak_memory_denoise",
    "memory_before",
    "load",
    "began",
    "command",
    "seal",
    "files",
}


@pytest.fixture(scope="module")
def menu(tmp_path_factory):
    return write_menu(tmp_path_factory.mktemp("menu"))


def words(menu, results, method, *more):
    """One command: a sweep over `method`, on two prompts, with settings that skip something on the small model."""
    common = ["model=tiny", "model.frames=37", f"prompts.file={menu / 'prompts.txt'}", f"results={results}"]
    quiet = ["device=cpu", "score=false", "report=false", f"method={method}"]
    return ["-m", "--config-dir", menu, *common, *quiet, *more]


@pytest.fixture(scope="module")
def in_turn(menu, tmp_path_factory):
    """The records of three methods that one command made."""
    results = tmp_path_factory.mktemp("turns")
    said = call(*words(menu, results, ",".join(METHODS)))
    assert said.status == 0, said
    return records(results)


def order(found):
    """(prompt, method) in the order in which the videos began."""
    return [(r.run["prompt"], r.run["method"]) for r in sorted(found, key=lambda record: record.run["began"])]


def test_methods_are_timed_in_turn_prompt_by_prompt_and_an_original_is_made_once(in_turn):
    expected = ["original", "uniform", "pab"]  # the Original first: the first cell needs it
    assert order(in_turn) == [(prompt, method) for prompt in ("a fox", "a dog") for method in expected]


def test_videos_made_in_turn_are_those_of_cells_done_one_after_the_other(in_turn, menu, tmp_path, monkeypatch):
    monkeypatch.setattr("run.grouped", lambda cells: [[cell] for cell in cells])
    assert call(*words(menu, tmp_path, ",".join(METHODS))).status == 0
    apart = [(prompt, method) for method in METHODS[:1] + METHODS[2:] for prompt in ("a fox", "a dog")]
    assert [one for one in order(records(tmp_path)) if one[1] != "original"] == apart
    alone = {record.path.name: record for record in records(tmp_path)}
    assert {record.path.name for record in in_turn} == set(alone) and len(alone) == 6
    for record in in_turn:
        other = alone[record.path.name]
        for name in ("frames.mp4", "video.mp4", "trace.jsonl"):
            assert (record.path / name).read_bytes() == (other.path / name).read_bytes(), (record.path, name)
        ours, theirs = ({k: v for k, v in r.run.items() if k not in MEASURED} for r in (record, other))
        assert ours == theirs
        assert record.config | {"results": ""} == other.config | {"results": ""}


@pytest.mark.slow
def test_an_interrupted_sweep_goes_on_where_it_was(menu, tmp_path, monkeypatch):
    real, begun = making.video, []

    def video(job, *arguments):
        begun.append(job)
        if len(begun) == 4:
            raise KeyboardInterrupt
        return real(job, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(making, "video", video)
        with pytest.raises(KeyboardInterrupt):
            call(*words(menu, tmp_path, ",".join(METHODS)))
    first = order(records(tmp_path))
    assert first == [("a fox", "original"), ("a fox", "uniform"), ("a fox", "pab")]
    assert not list((tmp_path / ".claims").iterdir())
    again = call(*words(menu, tmp_path, ",".join(METHODS)))
    assert again.status == 0 and "nothing to do" not in again.out
    assert order(records(tmp_path)) == [*first, ("a dog", "original"), ("a dog", "uniform"), ("a dog", "pab")]


@pytest.mark.slow
def test_a_model_that_cannot_be_warmed_up_costs_its_own_cell(menu, tmp_path, monkeypatch):
    real = making.warm_up

    def warm_up(model, text):
        if model.settings.steps != 6:
            raise torch.OutOfMemoryError("7 GiB")
        return real(model, text)

    monkeypatch.setattr(making, "warm_up", warm_up)
    said = call(*words(menu, tmp_path, "reduced_steps,uniform", "prompts.limit=1"))
    errors = [line for line in said.out.splitlines() if line.startswith("error:")]
    assert said.status == 1 and errors == ["error: tiny reduced_steps: OutOfMemoryError: 7 GiB"], said
    assert {r.run["method"]: r.status for r in records(tmp_path)} == {"original": "ok", "uniform": "ok"}


def test_a_process_that_dies_outside_any_video_costs_one_cell_of_a_group(menu, tmp_path, monkeypatch):
    """The second cell of a group ends its process before any video. Earlier failures stay recorded."""
    orders = [Order(config=name, name=name, speed=None, place=n) for n, name in enumerate("abc")]
    told, tried = [], []

    def tries(self, orders, lost, notify):
        tried.append(("".join(order.name for order in orders), dict(lost)))
        if not lost:
            return ("video", "k", "tiny a", "a fox", 3), -9
        return (None, 3) if orders[0].name == "b" or len(orders) > 1 else (None, 0)

    monkeypatch.setattr(Supervisor, "_try", tries)
    Supervisor().do([(f"tiny {order.name}", order) for order in orders], lambda *event: told.append(event))
    assert [names for names, _ in tried] == ["abc", "abc", "a", "b", "c"]
    assert all("SIGKILL" in lost["k"] for _, lost in tried[1:])
    assert [event[1] for event in told if event[0] == "failed"] == [
        "tiny a k: its process was killed by SIGKILL (out of memory?)",
        "tiny b: its process ended with status 3 outside any video; its other videos are missing",
    ]


# --- which cells, and in which order, without a model -----------------------------------------------------------------


def cell(name, base, numbers=(0, 1), seeds=(0,), results="r", task=VIDEOS):
    """The attributes of a cell that decide the order."""
    model = SimpleNamespace(name="tiny")
    jobs = []
    for seed in seeds:
        for number in numbers:
            original = SimpleNamespace(
                name="original", speed=None, label="original", number=number, seed=seed, reference=None, model=base
            )
            original.key = f"o{number}{seed}"
            own = SimpleNamespace(**{**vars(original), "name": name, "label": name, "reference": original})
            own.key, own.seed = f"{name}{number}{seed}", seed + 100 * (name == "other_seed")
            jobs += [original, own]
    run = SimpleNamespace(results=results, isolate=True, task=task)
    return SimpleNamespace(base=base, model=model, run=run, jobs=lambda: jobs, label=f"tiny {name}")


def test_what_differs_in_model_results_or_task_does_not_take_turns():
    base, other = object(), object()
    a, b, c, d = cell("a", base), cell("b", other), cell("c", base), cell("d", base, results="elsewhere")
    measured = [cell("e", base, task="calibrate"), cell("f", base, task="calibrate")]
    assert grouped([a, b, c, d, *measured]) == [[a, c], [b], [d], [measured[0]], [measured[1]]]
    assert named([a, c, a]) == "tiny a, c"


def test_turns_go_by_seed_then_prompt_then_cell_and_nothing_twice():
    """Cells may have different prompts and seeds; seeds keep the given order, also if a method changes them."""
    base = object()
    first, second = cell("other_seed", base, (0, 2), seeds=(7, 3)), cell("b", base, (0, 1), seeds=(7,))
    assert [turn.job.key for turn in turns([first, second])] == [
        *("o07", "other_seed07", "b07"),
        *("o17", "b17"),
        *("o27", "other_seed27"),
        *("o03", "other_seed03", "o23", "other_seed23"),
    ]
    assert next(turns([first, second])).cell is first, "an Original belongs to the first cell that needs it"


def test_an_original_is_timed_again_beside_a_late_video_and_the_speedup_divides_by_it(in_turn, menu, monkeypatch):
    results = in_turn[0].path.parents[2]
    monkeypatch.setattr("sweep.time_again.LATE", -1.0)  # every earlier Original counts as late
    said = call(*words(menu, results, "uniform", "method.interval=3"))
    assert said.status == 0 and said.out.count("is timed again beside") == 2
    late = [r for r in records(results) if r.run["changed"].get("method.interval") == 3]
    assert len(late) == 2 and all(set(r.run["original_again"]) == {"seconds", "began", "load"} for r in late)
    assert len([r for r in records(results) if r.run["method"] == "original"]) == 2  # no further record
    videos = load(results).videos.set_index("key")
    for record in late:
        seconds = record.run["original_again"]["seconds"]
        own = record.run["seconds"]
        assert seconds["total"] == pytest.approx(seconds["denoise"] + seconds["decode"])
        assert videos["speedup"][record.path.name] == pytest.approx(seconds["total"] / own["total"])
        assert videos["speedup_denoise"][record.path.name] == pytest.approx(seconds["denoise"] / own["denoise"])
    early = [r for r in records(results) if r.run["method"] in ("pab", "original")]
    assert not any("original_again" in r.run for r in early)


def test_an_original_that_cannot_be_timed_again_costs_only_that_time(in_turn, menu, monkeypatch):
    def broken(*_):
        raise torch.OutOfMemoryError("no room")

    results = in_turn[0].path.parents[2]
    monkeypatch.setattr("sweep.time_again.LATE", -1.0)
    monkeypatch.setattr(making, "again", broken)
    said = call(*words(menu, results, "uniform", "method.interval=6"))
    assert said.status == 0 and said.out.count("could not be timed again: OutOfMemoryError: no room") == 2
    late = [r for r in records(results) if r.run["changed"].get("method.interval") == 6]
    assert [r.status for r in late] == ["ok", "ok"] and not any("original_again" in r.run for r in late)


def test_the_time_that_originals_are_timed_again_is_bounded_and_a_recent_one_is_not(monkeypatch):
    now = {"began": datetime.now(UTC).isoformat(), "load": psutil.getloadavg()}
    old = {"began": "2020-01-01T00:00:00.000+00:00", "load": psutil.getloadavg()}
    cost = SimpleNamespace(seconds=2.0)

    def run():
        return SimpleNamespace(reason="", denoise=cost, decode=cost)

    def record(key, given):
        seconds = {"denoise": 2.0, "decode": 2.0}
        return SimpleNamespace(status="ok", path=Path(key), run={**given, "seconds": seconds})

    timed = TimedAgain(9.0)
    assert timed.beside(record("a", now), run) == {} and timed.beside(None, run) == {}
    assert timed.beside(record("a", {}), run) == {}  # from before these times were recorded
    first = timed.beside(record("a", old), run)
    assert first["original_again"]["seconds"]["total"] == 4.0
    assert timed.beside(record("a", old), run) == first and timed.spent == 4.0  # a method later: the same times
    assert timed.beside(record("b", old), run) and timed.spent == 8.0
    assert timed.beside(record("c", old), run) == {}  # 4 s more than the bound
    busy = {"began": now["began"], "load": (psutil.getloadavg()[0] + 1 + (os.cpu_count() or 1), 0, 0)}
    assert TimedAgain(9.0).beside(record("d", busy), run)
    assert TimedAgain(0.0).beside(record("d", busy), run) == {}


def test_a_setting_has_one_backbone_while_it_is_in_use_however_many_there_are(menu, tmp_path):
    orders = [composed(menu, tmp_path / "r", ("mark", str(tmp_path / "never-0-0")))]
    for steps in (7, 8, 9):
        orders.append(replace(orders[0], config=orders[0].config.replace("\n  steps: 6\n", f"\n  steps: {steps}\n")))
    cells = [Cell.of(o) for o in (replace(o, config=_plain(o)) for o in (*orders, *orders))]
    assert [c.base.settings.steps for c in cells] == [6, 7, 8, 9] * 2
    assert all(a.base is b.base is b.model for a, b in zip(cells[:4], cells[4:], strict=True))
    assert [len(group) for group in grouped(cells)] == [2, 2, 2, 2]


def _plain(order: Order) -> str:
    """The configuration of an order, with a method that every process can import."""
    return order.config.replace("_target_: deadly.Deadly", "_target_: engine.method.Original").replace("  mark:", "  #")


# --- the device -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device,selected", [("cuda:1", [torch.device("cuda:1")]), ("cuda", []), ("cpu", [])])
def test_the_device_is_the_current_one_before_text_or_weights_are_loaded(device, selected, monkeypatch, tmp_path):
    done = []
    monkeypatch.setattr(torch.cuda, "set_device", done.append)
    monkeypatch.setattr("sweep.make_videos.make", lambda *arguments: done.append("made"))
    monkeypatch.setattr("sweep.run_cell.Store", lambda path: done.append("store") or Store(path))
    only = cell("a", object(), results=str(tmp_path / "r"))
    only.model.device, only.run.logger = torch.device(device), SimpleNamespace(name="none")
    told = []
    perform([only], lambda *event: told.append(event))
    assert done == [*selected, "store", "made"] and not told
