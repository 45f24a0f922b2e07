"""Columns, strip and radar axis of the chunks of a video, and the columns and the figure of its drift."""

import json
import math
from dataclasses import replace

import pytest

from reports import figures, formats, own_drift, read, streaming
from reports.__main__ import main, make
from reports.layouts import GROUPS, groups
from reports.metric import BY_NAME, DRIFT, OPTIONAL, STREAMING
from reports.notes import blanks
from reports.page import render
from reports.players import prompts
from reports.terminal_table import as_text
from tests.synthetic import CELLS, FPS, FRAMES, make_store

CHUNKS = {"frames": [4, 8, 12, 16, 20], "denoised": [1.0, 1.5, 2.0, 2.5, 3.5], "decoded": [0.2, 0.4, 0.6, 0.8, 1.0]}
STREAMED = {"chunks": {**CHUNKS, "by_chunk": True}, "fps": 8.0}
SOME = {cell: CELLS[cell] for cell in (("original", None), ("teacache", "fast"), ("scope", "fast"))}
SCORES = {
    "drift": {"sharpness": 3.0, "colour": 12.0, "saturation": 0.0, "motion": None},
    "starts": [0, 11, 22],
    "parts": {
        "sharpness": [9.0, 8.0, 6.0],
        "colour": [0.0, 5.0, 12.0],
        "saturation": [1.0, 1.0, 1.0],
        "motion": [None, 0.5, 0.7],
    },
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A store of three lines: the chunks are the Original's times, the methods take 0.9 and 0.6 of them."""
    root = tmp_path_factory.mktemp("streamed")
    store = make_store(root, cells=SOME)
    for record in store.records():
        seconds = {"original": 1.0, "teacache": 0.9, "scope": 0.6}[record.run["method"]]
        times = {name: [seconds * s for s in CHUNKS[name]] for name in ("denoised", "decoded")}
        record.run["chunks"] = {"frames": [7, 14, 21, 28, FRAMES], **times, "by_chunk": True}
        with_chunks(record, record.run)
        record.write_json("quality.json", record.quality | {"alone": SCORES})
    return root


def with_chunks(record, run):
    (record.path / "run.json").write_text(json.dumps(run))


def named(report):
    return {line.name: line for line in report.lines}


def test_the_numbers_of_a_video_worked_by_hand():
    """Ready at 1.2, 1.9, 2.6, 3.3, 4.5 s; 4 frames take 0.5 s of playing, so deadlines are 1.2 + 0.5 k."""
    found = streaming.numbers(STREAMED)
    assert found["ready_s"] == pytest.approx(1.2)
    assert found["interval_s"] == pytest.approx(0.7)  # of 0.7, 0.7, 0.7, 1.2
    assert found["interval_p95_s"] == pytest.approx(0.7 + 0.5 * 0.85)  # at place 2.85 of 0 to 3
    assert found["fps_vae"] == pytest.approx(20 / 4.5) and found["fps_denoise"] == pytest.approx(20 / 3.5)
    assert found["missed"] == 1.0
    assert streaming.numbers(STREAMED | {"fps": 4.0})["missed"] == 0.0  # 1 s for 4 frames; the last: 4.5 < 5.2
    assert streaming.numbers(STREAMED | {"fps": 5.0})["missed"] == pytest.approx(1 / 4)  # 0.8 s: 4.4 < 4.5
    intervals = [b - a for a, b in zip([1.2, 1.9, 2.6, 3.3], [1.9, 2.6, 3.3, 4.5], strict=True)]
    assert found["ready_s"] + sum(intervals) == pytest.approx(3.5 + 1.0)


@pytest.mark.parametrize(
    ("run", "why"),
    [
        ({}, streaming.OLD),
        ({"chunks": None}, streaming.OLD),
        ({"chunks": {}}, streaming.OLD),
        ({"chunks": {"frames": [9], "denoised": [1.0], "decoded": [0.5], "by_chunk": True}, "fps": 8}, streaming.ONE),
        ({"chunks": {"frames": [9], "denoised": [1.0], "decoded": [0.5], "by_chunk": False}}, streaming.WHOLE),
    ],
)
def test_without_stamps_or_with_one_chunk_a_number_is_blank_with_a_reason(run, why):
    found = streaming.numbers(run)
    assert math.isnan(found["interval_s"]) and math.isnan(found["missed"]) and streaming.lacks(run) == why
    assert math.isnan(found["ready_s"]) == (why == streaming.OLD)


def test_older_records_are_read_and_their_columns_say_why_they_are_blank(tmp_path):
    make_store(tmp_path, cells=SOME)
    report = read(tmp_path, asked=("streaming", "drift"))
    told = " ".join(blanks(report))
    assert "first chunk (s): recorded before chunks were stamped" in told and "--redo" in told
    assert "first chunk" not in " ".join(blanks(read(tmp_path)))
    page = render(report, [])
    assert 'class="optional' not in page and own_drift.figure(report.study, "skyreels_tiny") is None
    assert {player["ready"] for prompt in prompts(report.study)[0] for player in prompt["players"]} == {None}


def spaced(text):
    """A printed table with single spaces."""
    return " ".join(text.split())


def test_tables_have_optional_columns_only_if_asked_for(root):
    plain, asked = read(root), read(root, asked=("streaming",))
    heads = {"streaming": "n first gap gap95 fps no VAE late", "drift": "n sharp colour satur"}
    assert not any(head in spaced(as_text(plain)) for head in heads.values())
    assert heads["streaming"] in spaced(as_text(asked)) and heads["drift"] not in spaced(as_text(asked))
    assert heads["drift"] in spaced(as_text(read(root, asked=("drift",))))
    line = named(asked)["SCOPE fast"]
    assert line.value("first_chunk_s") == pytest.approx(0.6 * 1.2 + 0.01) and line.value("missed") == 0.0
    assert line.estimates["interval_s"].value == pytest.approx(0.6 * 0.7)
    assert named(plain)["SCOPE fast"].estimates == line.estimates or line.known("interval_s")
    assert not {metric.name for metric in STREAMING} & set(BY_NAME)  # so they are never bold, and have no rank


def test_the_page_has_a_switch_and_the_csv_has_the_columns(root):
    page, head = render(read(root), []), formats.table(read(root)).columns
    for name in OPTIONAL:
        assert f'class="show-group" value="{name}">' in page and f'class="optional {name}"' in page
    assert {metric.name for metric in (*STREAMING, *DRIFT)} <= set(head)
    assert 'value="streaming" checked' in render(read(root, asked=("streaming",)), [])


def test_the_strip_of_a_video_has_a_bar_for_each_chunk(root):
    report = read(root)
    players = {player["name"]: player["ready"] for player in prompts(report.study)[0][0]["players"]}
    bars = players["Original"]["chunks"]
    assert [bar[:2] for bar in bars] == [
        [pytest.approx(a / FPS, abs=1e-3), pytest.approx(b / FPS, abs=1e-3)]
        for a, b in ((0, 7), (7, 14), (14, 21), (21, 28), (28, FRAMES))
    ]
    assert [bar[2] for bar in bars] == pytest.approx([1.2, 1.9, 2.6, 3.3, 4.5])
    assert players["Original"]["late"] == sum(bar[3] for bar in bars) and players["Original"]["of"] == 4
    assert players["SCOPE fast"]["total"] == 2.7


def test_text_from_the_cache_counts_as_that_of_the_videos_that_were_encoded(tmp_path):
    store = make_store(tmp_path, cells=SOME, text_encoded=True, **STREAMED)
    for record in store.records():
        if record.run["method"] == "scope":
            seconds = record.run["seconds"] | {"text": 0.001}
            with_chunks(record, record.run | {"text_encoded": False, "seconds": seconds})
    lines = named(read(tmp_path))
    assert lines["SCOPE fast"].value("first_chunk_s") == pytest.approx(1.2 + 0.01)
    for record in store.records():
        with_chunks(record, record.run | {"text_encoded": False})
    report = read(tmp_path, asked=("streaming",))
    assert named(report)["SCOPE fast"].value("first_chunk_s") == pytest.approx(1.2)
    assert "3 of 3 videos without the text" in " ".join(blanks(report))


def test_the_radar_has_the_first_chunk_second_if_asked_for_and_its_five_axes_otherwise(root):
    report = read(root)
    usual = axes_of(report, False)
    assert len(usual) == 5 and not any("first chunk" in name for name in usual)
    asked = axes_of(report, True)
    assert asked[1].startswith("first chunk") and asked[0] == usual[0] and asked[2:] == usual[1:-1]


def axes_of(report, streams):
    figure = figures.radar(report.study, report.numbers, "skyreels_tiny", streams)
    return [text.get_text() for text in figure.axes[0].get_xticklabels()]


def test_the_drift_of_a_line_is_the_mean_over_its_videos_and_blank_where_there_is_none(root):
    report = read(root, asked=("drift",))
    line = named(report)["TeaCache fast"]
    assert line.estimates["drift_colour"].value == 12.0 and not line.known("drift_motion")
    told = " ".join(blanks(report))
    assert "drift of motion: the video is too short" in told
    assert "drift of imaging quality (VBench): VBench-Long has not scored" in told
    figure = own_drift.figure(report.study, "skyreels_tiny")
    assert [axes.get_title(loc="left") for axes in figure.axes] == list(own_drift.PANELS.values())
    assert figure.axes[3].lines[0].get_xdata().size == 2  # the first part has no motion


def test_columns_are_named_on_the_command_line(root, capsys, monkeypatch):
    monkeypatch.setattr("reports.build", lambda report, send: report.study.root / "report")  # its files are not read
    assert groups(["a", "columns=streaming,drift"]) == (GROUPS, ["a"]) and tuple(OPTIONAL) == GROUPS
    assert main([str(root), "columns=speed"]) == 1
    assert "columns=speed is unknown" in capsys.readouterr().err
    assert main([str(root), "columns=streaming"]) == 0 and " late " in spaced(capsys.readouterr().out)
    assert " late " in spaced(make(root, asked=("streaming",))["table"])
    assert " late " not in spaced(make(root)["table"])


def test_a_report_with_random_weights_has_no_drift(root):
    report = read(root, asked=("drift",))
    videos = report.study.videos.assign(weights="random")
    assert own_drift.figure(replace(report.study, videos=videos), "skyreels_tiny") is None
