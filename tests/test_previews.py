"""Bundles with small copies of the videos: they are read back, shown by the page, and checked like other lines."""

import zipfile

import av
import numpy as np
import pytest

from reports import build, page, read
from store import Store, StoreError, clips
from store.__main__ import main
from store.bundle import export
from store.bundled import read as read_bundle
from tests.synthetic import CELLS, FRAMES, PROMPTS, make_store
from tests.test_bundle import lines, rewritten

FEW = {name: CELLS[name] for name in (("original", None), ("scope", "fast"))}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    root = tmp_path_factory.mktemp("store") / "lab"
    make_store(root, cells=FEW, prompts=PROMPTS[:1])
    return root


@pytest.fixture(scope="module")
def bundle(results):
    path = results.parent / "lab.jsonl.gz"
    assert main(["export", str(results), str(path), "--previews"]) == 0
    return path


def decoded(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_every_record_has_a_preview_with_all_its_frames(results, bundle, tmp_path):
    assert [line["kind"] for line in lines(bundle)] == ["bundle", "schedule", *["record", "preview"] * 2]
    got, stored = read_bundle(bundle), {record.path.name: record for record in Store(results).records()}
    assert len(got.records) == 2 and not got.damaged
    for record in got.records:
        (tmp_path / "clip.mp4").write_bytes(record.preview)
        mine, whole = decoded(tmp_path / "clip.mp4"), decoded(stored[record.path.name].path / "video.mp4")
        assert mine.shape == whole.shape == (FRAMES, 64, 64, 3)
        assert np.abs(mine.astype(float) - whole).mean() < 10


def test_a_preview_is_small_and_keeps_the_ratio_and_the_rate(tmp_path):
    with av.open(str(tmp_path / "large.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 640, 362, "yuv420p"
        for n in range(5):
            frame = av.VideoFrame.from_ndarray(np.full((362, 640, 3), 40 * n, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    made = clips.shrunk(tmp_path / "large.mp4")
    assert made == clips.shrunk(tmp_path / "large.mp4")
    (tmp_path / "small.mp4").write_bytes(made)
    assert decoded(tmp_path / "small.mp4").shape == (5, 90, clips.SIDE, 3)
    with av.open(str(tmp_path / "small.mp4")) as container:
        assert container.streams.video[0].average_rate == 24
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(StoreError, match="gives no preview"):
        clips.shrunk(tmp_path / "text.mp4")


def test_the_page_shows_the_previews_also_when_it_is_sent(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr("reports.write.draw", lambda report: [])  # figures take a minute
    monkeypatch.setattr("reports.write.ARTEFACTS", ())
    report = read(bundle, into=tmp_path / "out")
    folder = build(report, send=True)
    shown = page.render(report, [])
    files = sorted((folder / "previews").glob("*.mp4"))
    assert len(files) == 2 and all(f"previews/{path.name}" in shown for path in files)
    assert "small copies" in shown
    with zipfile.ZipFile(folder / "out.zip") as archive:
        assert {f"out/previews/{path.name}" for path in files} <= {*archive.namelist()}
    (folder / "previews" / "old.mp4").touch()
    build(report)
    assert sorted((folder / "previews").glob("*.mp4")) == files


def test_a_bundle_without_previews_is_one_that_older_programs_read(results, tmp_path):
    export(Store(results), tmp_path / "plain.jsonl.gz")
    head = lines(tmp_path / "plain.jsonl.gz")[0]["content"]
    assert head["schema"] == 1 and "previews" not in head
    report = read(tmp_path / "plain.jsonl.gz", into=tmp_path / "out")
    assert "previews/" not in page.render(report, [])


def test_changed_and_misplaced_previews_are_named_and_their_records_stay(bundle, tmp_path):
    def clip(found):
        return next(line for line in found if line["kind"] == "preview")

    for change, seal, told in (
        (lambda found: clip(found)["content"].update(mp4="AAAA"), False, "checksum differs"),
        (lambda found: clip(found)["content"].update(mp4="AAAA"), True, "its preview is no mp4"),
        (lambda found: clip(found)["content"].update(mp4="<b>"), True, "mp4 is '<b>', want text that matches"),
        (lambda found: clip(found)["content"].update(key="other"), True, "the record of its preview is missing"),
        (lambda found: found.insert(4, found[3]), True, "its preview is in the bundle twice"),
        (lambda found: found.remove(clip(found)), True, "says 2 records and 2 previews, but it has 3"),
    ):
        got = read_bundle(rewritten(bundle, tmp_path, change, seal))
        assert len(got.records) == 2 and any(told in why for why in got.damaged.values()), (told, got.damaged)
