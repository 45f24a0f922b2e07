"""Loggers get the values of the records, these can be read back, and no logger stops a sweep."""

import sqlite3
import struct
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest

from conf.schema import ConfigError, Logging
from sweep import log_wandb, loggers
from tests.synthetic import make_store

ROW = {"iteration": 0, "active": [0, 2], "sigma": 1.0, "mode": "cache", "score": 0.2}
TRACE = [ROW, ROW | {"active": [2, 3], "mode": "recompute", "score": None}, ROW | {"iteration": 1, "sigma": 0.5}]


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """The data of a run, as a cell of the synthetic store gives it."""
    store = make_store(tmp_path_factory.mktemp("store"), cells={("scope", "fast"): (0.6, 0.28, 0.035)})
    records = list(store.records())
    return loggers.Told(
        "abc123",
        "skyreels_tiny-scope-fast-abc123",
        "sweep7",
        "bench",
        ["skyreels_tiny", "scope", "fast"],
        {"model": {"name": "skyreels_tiny"}, "method": {"tau_cache": 0.3}, "seeds": [0]},
        loggers.history(r.trace() for r in records),
        loggers.summary(records),
        {"timeline": loggers.timeline(records[0].trace())},
        {"video": records[0].path / "video.mp4"},
    )


def test_history_counts_each_mode_by_hand():
    rows = loggers.history([TRACE, TRACE])
    first = {"iteration": 0, "sigma": 1.0, "decisions/cache": 0.5, "decisions/predict": 0, "decisions/recompute": 0.5}
    assert rows[0] == first | {"decisions/score": pytest.approx(0.2)}
    assert rows[1]["decisions/cache"] == 1 and rows[1]["sigma"] == 0.5


def test_the_timeline_has_time_rightwards_and_slots_upwards():
    picture = loggers.timeline(TRACE)
    p = loggers.PIXELS
    assert picture.shape == (3 * p, 2 * p, 3) and picture.dtype == np.uint8
    assert tuple(picture[0, 0]) == loggers.COLOURS["recompute"] and tuple(picture[-1, 0]) == loggers.COLOURS["cache"]
    assert tuple(picture[0, -1]) == (255, 255, 255)
    assert loggers.timeline([]).any()


def test_the_summary_is_the_mean_of_the_valid_videos(told):
    assert told.summary["videos/ok"] == 3 and told.summary["executed_fraction"] == pytest.approx(0.28)
    assert told.summary["seconds/denoise"] == pytest.approx(0.6 * 1.03) and told.summary["psnr"] > 20


def wandb_records(path):
    """The records of a .wandb file: a header of 7 bytes, then LevelDB's log of 32 KiB blocks."""
    from wandb.proto import wandb_internal_pb2

    data, at, part = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        part += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(part)
            part = b""
            yield record


def test_the_offline_file_of_wandb_holds_the_run(told, tmp_path, monkeypatch):
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # no netrc
    log_wandb.send(told, Logging("wandb"), tmp_path)
    (file,) = tmp_path.rglob("*.wandb")
    records = list(wandb_records(file))
    run = next(r.run for r in records if r.HasField("run"))
    assert (run.project, run.run_group, run.job_type) == ("scope-harness", "sweep7", "bench")
    assert run.run_id == "abc123" and set(run.tags) == {"skyreels_tiny", "scope", "fast"}
    config = {update.key: update.value_json for update in run.config.update}
    assert config["method"] == '{"tau_cache":0.3}' or '"tau_cache": 0.3' in config["method"]
    rows = [
        {i.key or "/".join(i.nested_key): i.value_json for i in r.history.item}
        for r in records
        if r.HasField("history")
    ]
    decided = [row for row in rows if "decisions/cache" in row]
    assert len(decided) == len(told.history) and float(decided[0]["decisions/recompute"]) == 1
    summaries = {
        i.key or "/".join(i.nested_key): i.value_json
        for r in records
        if r.HasField("summary")
        for i in r.summary.update
    }
    assert float(summaries["executed_fraction"]) == pytest.approx(0.28)
    assert list(file.parent.rglob("*.mp4")) and list(file.parent.rglob("*.png"))
    assert any(r.HasField("exit") for r in records)


@pytest.mark.parametrize(
    "key, said, expected",
    [("", "auto", "offline"), ("k" * 40, "auto", "online"), ("", "online", "online"), ("k" * 40, "offline", "offline")],
)
def test_wandb_is_online_only_with_a_key_or_when_told(key, said, expected, monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_API_KEY", key)
    assert log_wandb.mode(Logging("wandb", mode=said)) == expected


def test_a_refused_key_falls_back_to_a_file(told, tmp_path):
    class Wandb:
        modes: ClassVar[list[str]] = []

        @staticmethod
        def Settings(**_):
            return None

        @classmethod
        def init(cls, mode, **_):
            cls.modes.append(mode)
            if mode == "online":
                raise TimeoutError("no answer")
            return "a run"

    assert log_wandb.start(Wandb, told, Logging("wandb"), tmp_path, "online") == "a run"
    assert Wandb.modes == ["online", "offline"]


def test_tensorboard_holds_the_same_numbers(told, tmp_path):
    pytest.importorskip("tensorboard", reason="the extra is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from sweep import log_tensorboard

    log_tensorboard.send(told, Logging("none"), tmp_path)
    events = EventAccumulator(str(tmp_path / told.name)).Reload()
    assert len(events.Scalars("decisions/cache")) == len(told.history)
    assert events.Scalars("summary/executed_fraction")[0].value == pytest.approx(0.28)
    assert "timeline" in events.Tags()["images"]


def test_trackio_holds_the_same_numbers(told, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))  # read at import
    pytest.importorskip("trackio", reason="the extra is not installed")
    from sweep import log_trackio

    log_trackio.send(told, Logging("none", project="p"), tmp_path)
    (file,) = tmp_path.glob("*.db")
    with sqlite3.connect(file) as base:
        rows = base.execute("select metrics from metrics where run_name = ?", [told.name]).fetchall()
    assert len(rows) == len(told.history) + 1


def test_what_goes_wrong_is_said_and_stops_nothing(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(loggers, "of_report", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    loggers.log_report(Logging("wandb"), tmp_path, said.append)
    assert said == ["logger=wandb did not get this run (OSError: disk full); the store is complete"]
    loggers.log_report(Logging("none"), tmp_path, said.append)
    assert len(said) == 1


def test_a_logger_without_its_package_is_refused_with_the_extra_to_install(monkeypatch):
    monkeypatch.setattr("conf.schema.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"logger=trackio needs the package trackio.*'\.\[trackio\]'"):
        Logging("trackio")
    with pytest.raises(ConfigError, match="did you mean wandb"):
        Logging("wanbd")


def test_a_report_run_has_every_table_and_the_figures(tmp_path, told):
    for name in ("figures/radar_m.png", "figures/speed_quality_m.png", "figures/drift_m.png", "tables/main.csv"):
        (tmp_path / "report" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "report" / name).touch()
    report = loggers.of_report(replace(Logging("none"), group=""), tmp_path)
    assert set(report.pictures) == {"radar_m", "speed_quality_m"} and set(report.tables) == {"main"}
    assert (report.job, report.group) == ("report", tmp_path.name)
