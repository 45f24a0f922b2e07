"""`python -m store RESULTS --verify` detects any change of a record, and contradictions between its files."""

import json
import shutil
from dataclasses import asdict, replace

import pytest
import yaml

from engine.fingerprint import code_of
from engine.ledger import plan, write
from engine.produce import Produced, account
from engine.row import Mode
from store import Store, checksum, fingerprint
from store.__main__ import main
from store.checks import SEAL, with_seal
from tests.tiny import build

MADE = {"model": {"class": "Toy", "frames": 9, "fps": 24}, "weights": "w", "prompt": "a red circle", "seed": 3}
SCORES = {"psnr": 31.5, "lpips": 0.1, "validity": {"status": "ok"}, "per_frame": {"psnr": [31.5]}}


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "results")
    for prompt in ("a red circle", "a blue square"):
        made = MADE | {"prompt": prompt}
        with store.stage("tiny", "scope", "fast", fingerprint(made)) as stage:
            (stage.path / "frames.mp4").write_bytes(prompt.encode() * 9)
            (stage.path / "trace.jsonl").write_text("{}\n")
            (stage.path / "config.yaml").write_text("model: {}\n")
            (stage.path / "video.mp4").write_bytes(b"for people")
            stage.run |= {"status": "ok", "produced_by": made, "prompt": prompt, "seed": 3, "frames": 9, "fps": 24}
            stage.run |= {"seconds": {"total": 1.5}, "flops": {"dense": 1e12}, "key_version": 2, "ratio": 1 / 3}
        stage.record.write_json("quality.json", SCORES)
    return store


def verified(store, capsys):
    status = main([str(store.root), "--verify"])
    return status, capsys.readouterr().out


def one(store):
    return next(record for record in Store(store.root).records() if record.run["prompt"] == "a red circle").path


def test_what_is_whole_passes_once_and_again(store, capsys):
    for _ in range(2):
        status, said = verified(store, capsys)
        assert status == 0 and "without seals" not in said


def set_(*names, to):
    def change(content):
        for name in names[:-1]:
            content = content[name]
        content[names[-1]] = to

    return change


def drop(*names):
    def change(content):
        for name in names[:-1]:
            content = content[name]
        del content[names[-1]]

    return change


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (set_("seconds", "total", to=0.5), "changed after it was sealed"),
        (set_("flops", "dense", to=1e11), "changed after it was sealed"),
        (set_("ratio", to=1 / 3 + 1e-16), "changed after it was sealed"),
        (set_("environment", to={"gpu": "H100"}), "changed after it was sealed"),
        (set_("status", to="invalid"), "changed after it was sealed"),
        (set_("prompt", to="a green circle"), "changed after it was sealed"),
        (set_("produced_by", "seed", to=4), "changed after it was sealed"),
        (set_("files", to={}), "changed after it was sealed"),
        (drop("files"), "changed after it was sealed"),
        (drop("seconds"), "changed after it was sealed"),
        (drop(SEAL), "has no seal any more"),
    ],
)
def test_a_changed_run_json_is_noticed(store, capsys, change, why):
    path = one(store) / "run.json"
    verified(store, capsys)  # and is not covered by what was learnt before
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    status, said = verified(store, capsys)
    assert status == 1 and why in said


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (set_("prompt", to="a green circle"), "run.json says prompt='a green circle'"),
        (set_("seed", to=4), "run.json says seed='4'"),
        (set_("frames", to=5), "run.json says frames='5'"),
        (set_("produced_by", "prompt", to="a green circle"), "has the key"),
        (set_("produced_by", "model", "fps", to=12), "has the key"),
        (set_("speed", to="slow"), "belongs to tiny/scope-slow"),
        (set_("key", to="abc"), "its key is abc"),
        (set_("files", to={}), "has no checksum of config.yaml, frames.mp4, trace.jsonl"),
        (drop("files"), "has no checksum of config.yaml, frames.mp4, trace.jsonl"),
        (set_("files", to=None), "has no checksum of config.yaml, frames.mp4, trace.jsonl"),
        (drop("files", "config.yaml"), "has no checksum of config.yaml"),
        (drop("files", "video.mp4"), "has no checksum of video.mp4"),
    ],
)
@pytest.mark.parametrize("sealed", [True, False])
def test_what_does_not_follow_from_the_rest_is_noticed_with_a_new_seal_and_in_old_records_without(
    store, capsys, change, why, sealed
):
    folder = one(store)
    content = json.loads((folder / "run.json").read_text())
    change(content)
    if not sealed:
        del content["key_version"]
    content = with_seal(content)
    if not sealed:
        del content[SEAL]
    (folder / "run.json").write_text(json.dumps(content))
    (folder / "frames.mp4").write_bytes(b"other" if "checksum of config.yaml, f" in why else b"a red circle" * 9)
    status, said = verified(store, capsys)
    assert status == 1 and why in said


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (set_("psnr", to=40.0), "quality.json was changed after it was sealed"),
        (set_("lpips", to=0.01), "quality.json was changed after it was sealed"),
        (set_("per_frame", "psnr", to=[40.0]), "quality.json was changed after it was sealed"),
        (set_("validity", "status", to="invalid"), "quality.json was changed after it was sealed"),
        (drop(SEAL), "quality.json has no seal any more"),
    ],
)
def test_changed_scores_are_noticed_and_scoring_mends_them(store, capsys, change, why):
    path = one(store) / "quality.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    status, said = verified(store, capsys)
    assert status == 1 and why in said
    next(r for r in Store(store.root).records() if r.path == path.parent).write_json("quality.json", SCORES)
    assert verified(store, capsys)[0] == 0


def test_scores_of_another_video_are_noticed(store, capsys):
    mine, other = (record.path for record in Store(store.root).records())
    shutil.copy(other / "quality.json", mine / "quality.json")
    status, said = verified(store, capsys)
    assert status == 1 and "quality.json belongs to other frames" in said


def test_frames_exchanged_with_their_checksum_are_noticed(store, capsys):
    folder = one(store)
    (folder / "frames.mp4").write_bytes(b"other frames")
    content = json.loads((folder / "run.json").read_text())
    content["files"]["frames.mp4"] = checksum(folder / "frames.mp4")
    (folder / "run.json").write_text(json.dumps(content))
    status, said = verified(store, capsys)
    assert status == 1 and "run.json was changed after it was sealed" in said


def test_records_without_seals_are_named_and_do_not_fail(store, capsys):
    for record in list(Store(store.root).records()):
        content = {k: v for k, v in record.run.items() if k not in (SEAL, "key_version")}
        (record.path / "run.json").write_text(json.dumps(content))
        (record.path / "quality.json").write_text(json.dumps(SCORES))
    status, said = verified(store, capsys)
    assert status == 0 and "2 records are of a version without seals" in said
    assert "2 records have older keys" in said


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """counted(name, run=..., ledger=...) -> a store with a record of the small model, sealed with this run and
    ledger."""
    model = build()
    settings = asdict(model.settings)
    made = {"model": {"class": "SkyReelsV2", "code": "c", **settings}, "prompt": "p", "seed": 0}
    for name in ("name", "checkpoint"):
        del made["model"][name]
    right = plan(model.schedule())

    def put(run=lambda run: None, ledger=lambda ledger: ledger, status="ok"):
        store = Store(tmp_path_factory.mktemp("counted"))
        with store.stage("tiny", "original", None, fingerprint(made)) as stage:
            (stage.path / "frames.mp4").write_bytes(b"frames")
            config = {"model": {"_target_": "models.skyreels.backbone.SkyReelsV2", **settings}}
            (stage.path / "config.yaml").write_text(yaml.safe_dump(config))
            write(ledger(right), stage.path / "trace.jsonl")
            stage.run |= account(model, Produced(ledger=right), model) | {"status": status, "produced_by": made}
            stage.run |= {"counted_by": code_of(type(model).price), "key_version": 2, "prompt": "p", "seed": 0}
            run(stage.run)
        return store

    return put


def test_flops_and_counts_follow_from_the_trace(counted, capsys):
    status, said = verified(counted(), capsys)
    assert status == 0 and "counted again" not in said


@pytest.mark.parametrize(
    ("run", "what"),
    [
        (lambda run: run["flops"].update(dense=run["flops"]["dense"] * 0.999), "flops in run.json"),
        (lambda run: run["flops"].update(executed_fraction=0.5), "flops in run.json"),
        (lambda run: run.update(forwards=run["forwards"] - 1), "forwards in run.json"),
        (lambda run: run["decisions"].update(recompute=1), "decisions in run.json"),
    ],
)
def test_counts_that_do_not_follow_from_the_trace_are_noticed_though_sealed(counted, capsys, run, what):
    status, said = verified(counted(run), capsys)
    assert status == 1 and f"{what}: the trace gives another count" in said


def test_another_trace_is_noticed_though_sealed(counted, capsys):
    def skip(ledger):
        return [*ledger[:-1], replace(ledger[-1], mode=Mode.CACHE, sites=("velocity",))]

    status, said = verified(counted(ledger=skip), capsys)
    assert status == 1 and "flops, forwards, decisions in run.json: the trace gives another count" in said


def test_flops_that_other_code_counted_are_left_and_said_so(counted, capsys):
    status, said = verified(counted(lambda run: run.update(counted_by="0" * 12)), capsys)
    assert status == 0 and "FLOPs of 1 records were not counted again: the code that counts them has changed" in said
