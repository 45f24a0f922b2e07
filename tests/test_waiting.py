"""A sweep that waits for other processes reports which ones."""

from types import SimpleNamespace

import pytest

from store import KEY_VERSION, Store
from sweep import make_videos as work


def test_who_is_waited_for_is_said_at_once_and_every_minute(tmp_path, monkeypatch):
    store, said, now = Store(tmp_path), [], [1000.0]
    turn = SimpleNamespace(job=SimpleNamespace(key="k"), label="tiny scope-fast", place=("tiny", "scope", "fast", "k"))
    monkeypatch.setattr(work.time, "monotonic", lambda: now[0])
    with store.claims.claim("tiny/scope-fast", "k"):
        told = -work.TELL
        for _ in range(150):
            told = work.waiting([turn], store, told, lambda *event: said.append(event))
            now[0] += 1
    assert [kind for kind, _ in said] == ["say"] * 3
    assert "1 videos that other processes are generating; the first is tiny scope-fast k, by process" in said[0][1]
    assert " since 20" in said[0][1] and "replaced" in said[0][1] and "\n" not in said[0][1]


@pytest.mark.parametrize("content", ["", "{}", '{"cell": 3'])
def test_a_claim_that_is_being_written_is_waited_for_too(tmp_path, content):
    store, said = Store(tmp_path), []
    store.claims.folder.mkdir(parents=True)
    (store.claims.folder / "tiny.scope.k").write_text(content)
    turn = SimpleNamespace(job=SimpleNamespace(key="k"), label="tiny scope", place=("tiny", "scope", None, "k"))
    work.waiting([turn], store, -work.TELL, lambda *event: said.append(event))
    assert "has just started or ended" in said[0][1]


def test_a_sweep_says_which_records_of_an_older_key_it_does_not_use(tmp_path):
    store = Store(tmp_path)
    for version in (1, KEY_VERSION):
        with store.stage("tiny", "scope", "fast", f"key{version}") as stage:
            stage.run |= {"status": "failed", "key_version": version}
    assert store.older("tiny/scope-fast") == 1 and store.older("tiny/scope-slow") == 0
