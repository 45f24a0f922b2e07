"""The store keeps acknowledged records after any crash, and ignores incomplete ones."""

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from store import SCHEMA, Store, StoreError, fingerprint, print_status, writing


def fill(stage, frames=b"frames", status="ok", **run):
    (stage.path / "frames.mp4").write_bytes(frames)
    (stage.path / "trace.jsonl").write_text('{"iteration": 0, "mode": "recompute"}\n')
    (stage.path / "config.yaml").write_text("seed: 0\n")
    stage.run.update(status=status, prompt_id=0, seed=0, **run)


def put(store, key="abc", **kwargs):
    with store.stage("tiny", "scope", "fast", key) as stage:
        fill(stage, **kwargs)
    return stage


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results")


def test_fingerprint_ignores_order_and_sees_every_value():
    base = {"model": "tiny", "method": {"tau": 0.3, "skip": 5}, "shape": [2, 3]}
    same = {"shape": (2, 3), "method": {"skip": 5, "tau": 0.3}, "model": "tiny"}
    assert fingerprint(base) == fingerprint(same)
    assert len(fingerprint(base)) == 12
    others = [base | {"method": {"tau": 0.1 + 0.2, "skip": 5}}, base | {"shape": [3, 2]}, base | {"seed": 0}]
    assert len({fingerprint(o) for o in [base, *others]}) == 4


def test_fingerprint_is_the_sha256_of_the_sorted_json():
    assert fingerprint({"a": 0.1, "b": ["x", None, True]}) == "84a2300fc61b"  # printf TEXT | sha256sum


@pytest.mark.parametrize("value, error", [(float("nan"), ValueError), (Path(), TypeError), ({1}, TypeError)])
def test_fingerprint_refuses_what_has_no_stable_text(value, error):
    with pytest.raises(error):
        fingerprint({"a": value})


def test_a_record_comes_back_as_it_was_written(store):
    stage = put(store, reason=None, seconds={"denoise": 1.5})
    record = store.find("tiny", "scope", "fast", "abc")
    assert stage.first and stage.record == record
    assert record.path == store.root / "tiny" / "scope-fast" / "abc"
    assert record.run["seconds"] == {"denoise": 1.5} and record.run["schema"] == SCHEMA
    assert (record.run["model"], record.run["method"], record.run["speed"], record.run["key"]) == (
        "tiny",
        "scope",
        "fast",
        "abc",
    )
    assert record.run["files"]["frames.mp4"]["bytes"] == 6
    assert record.trace() == [{"iteration": 0, "mode": "recompute"}]
    assert record.config == {"seed": 0} and record.quality is None
    record.write_json("quality.json", {"psnr": 30.0})
    assert store.find("tiny", "scope", "fast", "abc").quality == {"psnr": 30.0}
    assert [r.path for r in store.records()] == [record.path]
    assert list(store.staging.iterdir()) == [store.staging / ".writable"]


def test_what_the_key_stands_for_is_never_rewritten(store):
    record = put(store).record
    for name in ("run.json", "frames.mp4", "trace.jsonl", "config.yaml"):
        with pytest.raises(ValueError, match="must not change"):
            record.write_json(name, {})


def test_an_exception_leaves_nothing(store):
    with pytest.raises(ZeroDivisionError), store.stage("tiny", "scope", "fast", "abc") as stage:
        fill(stage)
        raise ZeroDivisionError
    assert store.find("tiny", "scope", "fast", "abc") is None
    assert not stage.path.exists() and not (store.root / "tiny").exists()


@pytest.mark.parametrize("run", [{}, {"status": "done"}, {"status": "ok"}])
def test_a_record_without_status_or_frames_is_refused(store, run):
    with pytest.raises(ValueError, match="want status"), store.stage("tiny", "scope", "fast", "abc") as stage:
        stage.run.update(run)
    assert list(store.records()) == []


def test_the_first_writer_wins(store, caplog):
    with store.stage("tiny", "scope", "fast", "abc") as slow:
        fill(slow, frames=b"second")
        assert put(store, frames=b"first").first
    assert not slow.first and "another process stored" in caplog.text
    assert (slow.record.path / "frames.mp4").read_bytes() == b"first"
    assert not slow.path.exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: (path / "frames.mp4").unlink(),
        lambda path: (path / "frames.mp4").write_bytes(b"fr"),
        lambda path: (path / "frames.mp4").write_bytes(b"FRAMES"),
        lambda path: (path / "trace.jsonl").write_text(""),
        lambda path: (path / "run.json").unlink(),
        lambda path: (path / "run.json").write_text('{"status": "o'),
    ],
)
def test_a_damaged_record_counts_as_absent_and_is_made_again(store, damage, caplog):
    damage(put(store).record.path)
    assert store.find("tiny", "scope", "fast", "abc") is None
    assert "is ignored" in caplog.text
    assert put(store).first
    assert store.find("tiny", "scope", "fast", "abc").status == "ok"


def test_a_failed_record_makes_room_for_a_later_try_and_a_good_one_does_not(store):
    put(store, status="failed", reason="out of memory")
    assert store.find("tiny", "scope", "fast", "abc").run["reason"] == "out of memory"
    assert put(store).first
    assert not put(store, status="failed").first
    assert store.find("tiny", "scope", "fast", "abc").status == "ok"


def test_records_lists_the_whole_and_names_the_damaged(store):
    for key in ("b", "a", "c"):
        put(store, key)
    (store.root / "tiny" / "scope-fast" / "c" / "frames.mp4").unlink()
    (store.root / "report" / "tables").mkdir(parents=True)
    assert [record.path.name for record in store.records()] == ["a", "b"]
    assert [path.name for path in store.damaged] == ["c"]
    assert "frames.mp4" in next(iter(store.damaged.values()))


def test_a_newer_schema_is_named_and_never_overwritten(store):
    record = put(store).record
    (record.path / "run.json").write_text(json.dumps(record.run | {"schema": SCHEMA + 1}))
    with pytest.raises(StoreError, match=f"schema {SCHEMA + 1}.*update"):
        store.find("tiny", "scope", "fast", "abc")
    with pytest.raises(StoreError, match="update"):
        put(store)
    assert list(store.records()) == [] and "newer" in next(iter(store.damaged.values()))


def test_a_record_from_before_checksums_still_counts(store):
    folder = store.root / "tiny" / "original" / "abc"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text('{"model": "tiny", "method": "original"}')
    record = store.find("tiny", "original", None, "abc")
    assert record.status == "ok" and record.trace() == [] and record.quality is None and record.config == {}


def test_a_record_of_an_older_schema_is_read(store):
    record = put(store).record
    for schema in ({"schema": 0}, {}):
        older = {name: value for name, value in record.run.items() if name != "schema"} | schema
        (record.path / "run.json").write_text(json.dumps(older))
        assert Store(store.root).find("tiny", "scope", "fast", "abc").trace(), schema


@pytest.mark.parametrize("content", ['{"schema": "1"}', '{"schema": null}', "[1]", "null", '"text"'])
def test_a_run_json_of_no_schema_at_all_is_ignored_and_named(store, content):
    record = put(store).record
    (record.path / "run.json").write_text(content)
    for again in (store, Store(store.root)):
        assert list(again.records()) == [] and "whole number as schema" in again.damaged[record.path]
        assert again.find("tiny", "scope", "fast", "abc") is None
        again.remember()


def test_a_record_under_an_operating_points_older_name_is_found_by_the_present_one(store):
    """Table 2's points were called row1 to row5; their keys are the same."""
    with store.stage("tiny", "scope", "row2", "abc") as stage:
        fill(stage)
    found = store.find("tiny", "scope", "table2_row2", "abc")
    assert found == stage.record and found.speed == "table2_row2"
    assert [record.speed for record in store.records(verify=True)] == ["table2_row2"] and not store.damaged
    assert store.find("tiny", "scope", "table2_row1", "abc") is None and put(store, "def").record.speed == "fast"


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".staging", "report", "a b", "é"])
def test_a_name_that_is_no_plain_folder_is_refused(store, name):
    with pytest.raises(ValueError, match="cannot name a folder"):
        store.cell(name, "scope")
    with pytest.raises(ValueError, match="cannot name a folder"):
        store.cell("tiny", name)


def test_speed_is_part_of_the_cell_unless_there_is_none(store):
    assert store.cell("tiny", "scope", "fast") == "tiny/scope-fast"
    assert {store.cell("tiny", "scope", speed) for speed in (None, "none", "")} == {"tiny/scope"}


def test_a_root_that_cannot_be_written_or_found_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot write .*file.*results=FOLDER"):
        Store(tmp_path / "file")
    with pytest.raises(StoreError, match="no results folder"):
        Store(tmp_path / "absent", create=False)
    assert not (tmp_path / "absent").exists()


def test_a_full_disk_is_named_and_leaves_nothing(store):
    with pytest.raises(StoreError, match="disk full"), store.stage("tiny", "scope", "fast", "abc") as stage:
        fill(stage)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(store.records()) == [] and not stage.path.exists()


def test_writing_replaces_whole_or_not_at_all(tmp_path):
    path = tmp_path / "sub" / "table.csv"
    with writing(path) as draft:
        draft.write_text("one")
        assert draft.suffix == ".csv" and not path.exists()
    with pytest.raises(KeyError), writing(path) as draft:
        draft.write_text("two")
        raise KeyError
    assert path.read_text() == "one" and list(path.parent.iterdir()) == [path]


def test_sweep_takes_what_the_dead_left_and_nothing_else(store):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    with store.stage("tiny", "scope", None, "alive") as stage:
        host = stage.path.name.split(".")[1]
        left = store.staging / f"abc.{host}.{dead.pid}.0"
        reused = store.staging / f"abc.{host}.{os.getpid()}.999999"  # containers give every run the same pid
        draft = store.staging / f".quality.{host}.{dead.pid}.3.json"
        elsewhere, init = store.staging / f"abc.other-host.{dead.pid}.0", store.staging / f"abc.{host}.1.0"
        for folder in (left, reused, elsewhere, init):
            folder.mkdir()
        draft.write_text("{")
        assert store.sweep() == sorted([left, reused, draft])
        assert stage.path.exists() and elsewhere.exists() and init.exists()
        fill(stage)
    assert stage.record.status == "ok"


def test_status_counts_each_cell_and_what_it_lacks(store, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    for prompt in range(3):
        with store.stage("tiny", "original", None, f"o{prompt}") as stage:
            fill(stage)
            stage.run["prompt_id"] = prompt
    put(store, status="invalid")
    print_status(store)
    lines = [line for line in capsys.readouterr().out.splitlines() if "│" in line]
    rows = [[cell.strip() for cell in line.split("│")[2:9]] for line in lines]
    assert rows == [["original", "3", "", "", "", "", ""], ["scope-fast", "", "1", "", "", "", "2"]]


KILL = """
import json, os, random, signal, sys, time
from store import Store
root, keys = sys.argv[1], [f"k{n:03}" for n in range(int(sys.argv[2]))]

def note(**what):  # one short append is atomic on a local disk
    handle = os.open(root + ".log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(handle, (json.dumps(what) + "\\n").encode())
    os.close(handle)

def work(seed):
    store = Store(root)
    store.sweep()
    for key in random.Random(seed).sample(keys, len(keys)):
        looked = time.monotonic()
        if store.find("tiny", "scope", None, key):
            continue
        with store.stage("tiny", "scope", None, key) as stage:
            for name in ("frames.mp4", "trace.jsonl"):
                (stage.path / name).write_bytes(key.encode() * 2000)
            stage.run.update(status="ok", prompt_id=key, seed=0)
        note(key=key, looked=looked, stored=time.monotonic(), first=stage.first)

def spawn(seed):
    child = os.fork()
    if child == 0:
        work(seed)
        os._exit(0)
    return child

os.environ["PYTHONWARNINGS"] = "ignore"
rng, workers = random.Random(0), [spawn(n) for n in range(8)]
for n in range(100):
    time.sleep(rng.uniform(0, 0.02))
    victim = rng.randrange(8)
    os.kill(workers[victim], signal.SIGKILL)
    os.waitpid(workers[victim], 0)
    workers[victim] = spawn(100 + n)
for worker in workers:
    assert os.waitpid(worker, 0)[1] == 0
work(-1)
"""


def test_a_hundred_kills_lose_nothing_and_double_nothing(tmp_path):
    root, count = tmp_path / "results", 400
    run = subprocess.run(
        [sys.executable, "-c", KILL, str(root), str(count)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    store = Store(root)
    notes = [json.loads(line) for line in Path(f"{root}.log").read_text().splitlines()]
    found = {r.path.name: r for r in store.records()}
    assert set(found) == {f"k{n:03}" for n in range(count)} and not store.damaged
    for key in found:
        assert store.find("tiny", "scope", None, key) is not None  # checksums
    stored = {}
    for note in sorted(notes, key=lambda n: n["stored"]):
        stored.setdefault(note["key"], note["stored"])
        assert note["looked"] <= stored[note["key"]], "made again after it was acknowledged"
    store.sweep()
    assert [p.name for p in store.staging.iterdir()] == [".writable"]


def test_ten_thousand_records_are_indexed_quickly(tmp_path):
    store, run = Store(tmp_path), {"schema": SCHEMA, "status": "ok", "files": {}, "environment": {}}
    for n in range(10_000):
        folder = tmp_path / "tiny" / f"scope-{n % 20}" / f"{n:012x}"
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps(run | {"prompt_id": n // 20, "seed": 0}))
    start = time.perf_counter()
    assert sum(1 for _ in store.records()) == 10_000
    assert time.perf_counter() - start < 5  # 100,000 in ten seconds; benchmarks measure it on a quiet machine
