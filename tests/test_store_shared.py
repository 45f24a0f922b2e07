"""Many processes on one store, and failing disks: no video is generated twice, no record is incomplete, errors are
shown."""

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from store import SCHEMA, Record, Store, StoreError, checksum, print_status
from store import claims as module
from store.__main__ import main as status
from store.index import difference, merged, seal

ROOT = Path(__file__).parents[1]


def put(store, key="abc", state="ok", frames=b"frames", **run):
    with store.stage("tiny", "scope", "fast", key) as stage:
        (stage.path / "frames.mp4").write_bytes(frames)
        (stage.path / "trace.jsonl").write_text("{}\n")
        stage.run.update(status=state, prompt_id=key, seed=0, **run)
    return stage.record


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results")


# --- claims -----------------------------------------------------------------------------------------------------------


def test_a_video_is_claimed_by_one_at_a_time(store):
    other = Store(store.root)
    with store.claims.claim("tiny/scope", "k") as mine:
        assert mine and [(h.pid, h.host) for h in other.claims.holders()] == [(os.getpid(), module.HOST)]
        with store.claims.claim("tiny/scope", "k") as again:
            assert not again
        with store.claims.claim("tiny/scope-slow", "k") as elsewhere:
            assert elsewhere
        assert len(list(store.claims.holders())) == 1  # the inner ones have not taken ours with them
    assert not list(store.claims.holders())


def held_by(store, key="k", **holder):
    """Write a claim as another process writes it."""
    path = store.claims.folder / f"tiny.scope.{key}"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"cell": "tiny/scope", "key": key, "host": "elsewhere", "pid": 1} | holder))
    return path


def test_a_claim_is_respected_while_its_owner_touches_it_and_taken_over_later(store):
    path = held_by(store)
    with store.claims.claim("tiny/scope", "k") as mine:
        assert not mine
    past = time.time() - module.STALE - 1
    os.utime(path, (past, past))
    with store.claims.claim("tiny/scope", "k") as mine:
        assert mine
    assert not path.exists()


def test_the_claim_of_a_dead_process_of_this_host_is_void_at_once(store):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    path = held_by(store, host=module.HOST, pid=dead.pid)
    assert not list(store.claims.holders())
    assert store.sweep() == [path]
    held_by(store, host=module.HOST, pid=dead.pid)
    with store.claims.claim("tiny/scope", "k") as mine:
        assert mine


@pytest.fixture
def clock(monkeypatch):
    """clock(seconds) moves this process's own clock forward."""
    now, begun = [0.0], time.monotonic()
    monkeypatch.setattr(module.time, "monotonic", lambda: begun + now[0])
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


def taken(store):
    with store.claims.claim("tiny/scope", "k") as mine:
        return mine


@pytest.mark.parametrize("ahead", [86400, 3600, 10 * 365 * 86400])
def test_a_claim_dated_ahead_is_waited_for_no_longer_than_another(store, clock, ahead):
    path = held_by(store)
    os.utime(path, (time.time() + ahead,) * 2)
    assert not taken(store)
    clock(module.STALE - 1)
    assert not taken(store)
    clock(2)
    assert taken(store)


@pytest.mark.parametrize("off", [86400, -86400, 0])
def test_a_claim_that_is_touched_under_our_eyes_lives_whatever_its_clock_says(store, clock, off):
    path, begun = held_by(store, place="elsewhere-0123abcd"), time.time() + off
    for beat in range(30):
        os.utime(path, (begun + module.BEAT * beat,) * 2)
        assert not taken(store)
        clock(module.BEAT)


def test_a_claim_that_seems_old_is_watched_for_some_beats_before_it_is_taken(store, clock):
    path = held_by(store, place="elsewhere-0123abcd")
    os.utime(path, (time.time() - 86400,) * 2)
    assert not taken(store)
    clock(module.DOUBT + 1)
    assert taken(store)


def in_a_container(script, *arguments):
    """A Python process in its own PID namespace with its own /proc, as in a container."""
    unshare = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    return subprocess.Popen(
        [*unshare, sys.executable, "-c", script, *map(str, arguments)],
        cwd=ROOT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


@pytest.fixture(scope="module")
def containers():
    done = subprocess.run(["unshare", "--pid", "--fork", "--mount-proc", "true"], capture_output=True)
    if done.returncode:
        pytest.skip("needs unshare with the right to make PID namespaces (root)")


HOLDS = """
import sys, os
from store import Store
store = Store(sys.argv[1])
with store.claims.claim("tiny/scope", "k") as mine, store.stage("tiny", "scope", None, "k") as stage:
    (stage.path / "frames.mp4").write_text("frames")
    print(mine, os.getpid(), stage.path.name, flush=True)
    sys.stdin.readline()
    (stage.path / "trace.jsonl").write_text("{}")
    stage.run["status"] = "ok"
print(stage.first, flush=True)
"""
LOOKS = """
import sys, os
from store import Store
store = Store(sys.argv[1])
gone = store.sweep()
with store.claims.claim("tiny/scope", "k") as mine, store.stage("tiny", "scope", None, "other") as stage:
    print(mine, os.getpid(), stage.path.name, len(gone), len(list(store.claims.holders())), flush=True)
    stage.run["status"] = "failed"
"""


def test_who_works_in_another_container_of_the_same_host_is_left_to_it(store, containers):
    """Both are process 1 in their own namespaces, or one does not see the other's process number."""
    first = in_a_container(HOLDS, store.root)
    mine, pid, staged = first.stdout.readline().split()
    second, _ = in_a_container(LOOKS, store.root).communicate(timeout=60)
    theirs, their_pid, their_staged, gone, holders = second.split()
    assert (mine, theirs, gone, holders) == ("True", "False", "0", "1") and pid == their_pid
    assert staged.split(".", 1)[1] != their_staged.split(".", 1)[1]
    with store.claims.claim("tiny/scope", "k") as ours:
        assert not ours and not store.sweep()
    first.stdin.write("\n")
    rest, _ = first.communicate(timeout=60)
    assert rest.split() == ["True"] and store.find("tiny", "scope", None, "k").status == "ok"


def test_who_died_in_another_container_is_replaced_after_its_last_beat_is_old(store, containers, clock):
    first = in_a_container(HOLDS, store.root)
    first.stdout.readline()
    first.kill()
    first.wait()
    assert not taken(store)  # from here one cannot know
    clock(module.STALE + 1)
    assert taken(store)


def test_a_torn_claim_counts_until_it_is_old(store):
    path = held_by(store)
    path.write_text('{"cell": "ti')
    with store.claims.claim("tiny/scope", "k") as mine:
        assert not mine
    os.utime(path, (0, 0))
    with store.claims.claim("tiny/scope", "k") as mine:
        assert mine


def test_whoever_lost_its_claim_while_asleep_does_not_remove_the_next_owners(store):
    with store.claims.claim("tiny/scope", "k") as mine:
        assert mine
        path = store.claims.folder / "tiny.scope.k"
        path.unlink()
        held_by(store)
    assert path.exists()


SHARED = """
import os, sys, time
from store import Store
store = Store(sys.argv[1])
for key in sys.argv[2:]:
    with store.claims.claim("tiny/scope", key) as mine:
        if mine and store.find("tiny", "scope", None, key) is None:
            with open(sys.argv[1] + ".log", "a") as log:
                log.write(key + "\\n")
            with store.stage("tiny", "scope", None, key) as stage:
                for name in ("frames.mp4", "trace.jsonl"):
                    (stage.path / name).write_text(key)
                stage.run.update(status="ok")
"""


def test_two_sweeps_on_one_folder_make_every_video_once(tmp_path):
    keys = [f"k{n:02}" for n in range(20)]
    orders = (keys, keys, keys[::-1])
    jobs = [subprocess.Popen([sys.executable, "-c", SHARED, str(tmp_path / "r"), *order], cwd=ROOT) for order in orders]
    assert [job.wait() for job in jobs] == [0, 0, 0]
    assert sorted((tmp_path / "r.log").read_text().split()) == keys
    assert len(list(Store(tmp_path / "r").records())) == 20


# --- the index --------------------------------------------------------------------------------------------------------


def test_differences_give_back_what_they_were_taken_from():
    base = {"a": 1, "b": {"c": [1], "d": {"e": None}}, "f": "x"}
    for other in ({}, base, {"a": 1.0}, {"b": {"c": [2], "d": {}}}, {"b": 3, "g": {"h": 1}}, {"b": {"d": {"e": 5}}}):
        assert merged(base, difference(base, other)) == other
        assert merged(base, json.loads(json.dumps(difference(base, other)))) == other


@pytest.fixture
def old(monkeypatch):
    """Files count as old when they are written."""
    monkeypatch.setattr("store.index.SETTLED", -(10**18))


def test_an_index_answers_as_the_records_do(store, old):
    for n in range(5):
        put(store, f"k{n}", seconds={"total": n}, environment={"gpu": "A"})
    plain = list(Store(store.root).records())
    list(store.records())
    store.remember()
    (store.root / "tiny" / "scope-fast" / "k4" / "frames.mp4").unlink()
    put(store, "k9", seconds={"total": 9.0})
    again = Store(store.root)
    found = list(again.records())
    assert found[:4] == plain[:4] and [r.path.name for r in found] == ["k0", "k1", "k2", "k3", "k9"]
    assert found[4].run["seconds"] == {"total": 9.0} and [p.name for p in again.damaged] == ["k4"]


def test_records_that_are_indexed_are_not_opened_again(store, old, monkeypatch):
    put(store, "a")
    put(store, "b").write_json("quality.json", {"psnr": 30.0, "per_frame": {"psnr": [1.0] * 100}})
    first = [r.scores for r in store.records()]
    store.remember()
    monkeypatch.setattr("store.store.open", lambda *a: pytest.fail("a run.json was read"), raising=False)
    assert [r.scores for r in Store(store.root).records()] == first == [None, {"psnr": 30.0}]


def test_scores_follow_a_rewritten_quality_json(store):
    record = put(store)
    assert record.scores is None
    for psnr in (30.0, 31.0):
        record.write_json("quality.json", {"psnr": psnr, "per_frame": {}})
        assert record.scores == {"psnr": psnr}


@pytest.fixture
def hashed(monkeypatch):
    """The files that were read for their checksum, in order."""
    seen = []
    monkeypatch.setattr("store.store.checksum", lambda path: seen.append(Path(path).name) or checksum(path))
    return seen


def outlive(record):
    """Move the file system's clock past the record's time, as happens while a video is generated."""
    while (record.path / "run.json").stat().st_ctime_ns <= (record.path / "trace.jsonl").stat().st_ctime_ns:
        (record.path / "run.json").touch()
    return record


def test_what_did_not_change_since_it_was_sealed_is_not_read_again(store, hashed):
    record = outlive(put(store, frames=b"frames"))
    hashed.clear()
    assert Store(store.root).find("tiny", "scope", "fast", "abc") and not hashed
    (record.path / "frames.mp4").write_bytes(b"FRAMES")
    assert Store(store.root).find("tiny", "scope", "fast", "abc") is None and hashed == ["frames.mp4"]


def test_a_copied_store_is_read_once_and_remembered(store, old, hashed, tmp_path):
    put(store)
    copy = shutil.copytree(store.root, tmp_path / "copy")
    for expected in (["frames.mp4", "trace.jsonl"], []):
        hashed.clear()
        there = Store(copy)
        assert there.find("tiny", "scope", "fast", "abc") and hashed == expected
        there.remember()
    (copy / "tiny/scope-fast/abc/frames.mp4").write_bytes(b"FRAMES")
    assert Store(copy).find("tiny", "scope", "fast", "abc") is None


def test_a_file_sealed_in_the_same_instant_as_its_run_json_is_read(store, hashed, monkeypatch):
    record = put(store)
    at = {name: (record.path / name).stat().st_ctime_ns for name in ("frames.mp4", "trace.jsonl")}
    hashed.clear()
    monkeypatch.setattr("store.store.seal", lambda path: (found := seal(path)) and [min(at.values()), found[1]])
    run = record.run | {"files": {n: f | {"changed_ns": min(at.values())} for n, f in record.run["files"].items()}}
    (record.path / "run.json").write_text(json.dumps(run))
    assert Store(store.root).find("tiny", "scope", "fast", "abc") and len(hashed) == 2


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 99, "base": [{}, {}], "records": {"abc": 1}}'])
def test_an_index_that_is_damaged_or_of_another_version_is_made_again(store, content):
    put(store)
    path = store.cache("index", "tiny/scope-fast.json")
    path.parent.mkdir(parents=True)
    path.write_text(content)
    assert [r.status for r in Store(store.root).records()] == ["ok"]


# --- disks ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def mounted(tmp_path):
    """Mounts a memory disk; skips where that is not allowed."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options):
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no memory disk without root: {done.stderr.strip()}")
        return place

    try:
        yield mount
    finally:
        subprocess.run(["umount", "-l", place], capture_output=True)


def test_a_full_disk_is_named_and_nothing_half_written_counts(mounted):
    store = Store(mounted("size=400k") / "results")
    put(store, "small")
    for key in ("large", "again"):
        full = pytest.raises(StoreError, match=r"disk full.*free space")
        with full, store.stage("tiny", "scope", "fast", key) as stage:
            (stage.path / "trace.jsonl").write_text("{}\n")
            stage.run["status"] = "ok"
            with open(stage.path / "frames.mp4", "wb") as file:
                for _ in range(100):
                    file.write(bytes(10_000))
                    file.flush()
    assert [r.path.name for r in Store(store.root).records()] == ["small"]
    assert [p.name for p in store.staging.iterdir()] == [".writable"]
    put(store, "small2")


def test_a_disk_that_fills_up_under_run_json_leaves_no_record(store, monkeypatch):
    def full(path):
        if path.name.startswith(".run"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("store.files.fsync", full)
    with pytest.raises(StoreError, match="disk full"):
        put(store)
    assert not list(store.records()) and not (store.root / "tiny").exists()


def test_a_folder_that_may_only_be_read_is_refused_for_writing_and_can_be_listed(mounted):
    place = mounted("size=1m")
    put(Store(place / "results"))
    assert subprocess.run(["mount", "-o", "remount,ro", place]).returncode == 0
    with pytest.raises(StoreError, match=r"cannot write .*Read-only.*choose another results=FOLDER"):
        Store(place / "results")
    assert [r.status for r in Store(place / "results", create=False).records()] == ["ok"]


# --- the command ------------------------------------------------------------------------------------------------------


def test_status_names_who_is_at_work_what_failed_and_what_is_damaged(store, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "150")
    put(store, "bad", state="failed", reason="OutOfMemoryError: [7 GiB]")
    put(store, "gone")
    (store.root / "tiny/scope-fast/gone/frames.mp4").unlink()
    held_by(store)
    newer = put(store, "newer")
    assert isinstance(newer, Record)
    (newer.path / "run.json").write_text(json.dumps(newer.run | {"schema": SCHEMA + 1}))
    print_status(Store(store.root))
    said = capsys.readouterr().out
    assert "OutOfMemoryError: [7 GiB]" in said and "retry_failed=true" in said and "1 videos are being" in said
    assert "frames.mp4 is missing" in said and f"newer than {SCHEMA}; update the program" in said


def test_status_with_verify_finds_what_sizes_do_not_show(store, old, capsys):
    put(store, frames=b"frames")
    store.remember()
    assert status([str(store.root)]) == 0
    path = store.root / "tiny/scope-fast/abc/frames.mp4"
    path.write_bytes(b"FRAMES")
    assert status([str(store.root)]) == 0  # the size is right
    assert status([str(store.root), "--verify"]) == 1 and "checksum" in capsys.readouterr().out
    assert status([str(store.root / "none")]) == 1
