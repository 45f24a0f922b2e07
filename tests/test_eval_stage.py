"""`python -m eval RESULTS`: scores what lacks scores, once, and a broken record costs only itself."""

import json
import math
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from eval import __main__ as stage
from eval import lpips_weights, metrics, score, video
from eval.score import score_record
from store import SEALED, Store, checksum
from store.checks import with_seal

T, SIZE = 12, 48


def moving(seed: int, noise: float = 0) -> np.ndarray:
    """A disc that crosses a gradient, uint8 (T, 48, 48, 3)."""
    y, x = np.mgrid[:SIZE, :SIZE]
    ground = np.stack([40 + 2 * x, 60 + y, 150 - x], -1).astype(float)
    frames = np.stack(
        [np.where((np.hypot(x - 10 - 2 * t, y - 20 - 5 * seed) < 8)[..., None], 220.0, ground) for t in range(T)]
    )
    return (frames + np.random.default_rng(seed).normal(0, noise, frames.shape)).clip(0, 255).astype(np.uint8)


def add(store: Store, method: str, key: str, frames: np.ndarray | None, **run) -> None:
    with store.stage("tiny", method, None, key) as record:
        if frames is not None:
            video.write_lossless(record.path / "frames.mp4", frames, fps=8)
            (record.path / "trace.jsonl").write_text("{}\n")
        record.run |= {
            "status": "ok",
            "prompt": "p1",
            "seed": 0,
            "reference_key": None,
            "fps": 8,
            "frames": T,
            "decisions": {"cache": 5, "predict": 5, "recompute": 10},
        } | run


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with LPIPS weights (random convolutions) and a store. Every test gets a copy of the store."""
    folder = tmp_path_factory.mktemp("made")
    shapes = [(64, 3, 11), (192, 64, 5), (384, 192, 3), (256, 384, 3), (256, 256, 3)]
    generator, state = torch.Generator().manual_seed(0), {}
    for layer, (out, into, size) in zip(lpips_weights.LAYERS["alex"], shapes, strict=True):
        state[f"{layer}.weight"] = torch.randn(out, into, size, size, generator=generator) / math.sqrt(into) / size
        state[f"{layer}.bias"] = torch.zeros(out)
    save_file(state, folder / "lpips_alex.safetensors")
    store = Store(folder / "results")
    for n in (1, 2):
        add(store, "original", f"o{n}", moving(n), prompt=f"p{n}")
        add(store, "original_repeat", f"r{n}", moving(n), prompt=f"p{n}", reference_key=f"o{n}")
        add(store, "scope", f"s{n}", moving(n, 5), prompt=f"p{n}", reference_key=f"o{n}")
    return folder


@pytest.fixture
def results(made, tmp_path, monkeypatch):
    """A store with two prompts, an Original, its repeat and a method each; and LPIPS on random convolutions."""
    monkeypatch.setenv("SCOPE_WEIGHTS", str(made))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "nothing"))
    return Store(shutil.copytree(made / "results", tmp_path / "results"))


def reseal(folder: Path) -> None:
    """Seal a record with its present files."""
    record = json.loads((folder / "run.json").read_text())
    record["files"] = {path.name: checksum(path) for path in folder.iterdir() if path.name in SEALED}
    (folder / "run.json").write_text(json.dumps(with_seal(record)))


def _encode(path: Path, frames: np.ndarray, pixel_format: str) -> None:
    """Write frames that no method stores: FFV1 in a container that supports it, under the name of the lossless file."""
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("ffv1", rate=8)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixel_format
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def quality(store: Store, method: str, key: str) -> dict:
    return json.loads((store.root / "tiny" / method / key / "quality.json").read_text())


def run(store: Store, *flags: str) -> int:
    return stage.main([str(store.root), *flags])


def test_every_record_is_scored_against_the_original_of_its_prompt(results, capsys):
    assert run(results) == 0
    assert "scored 6" in capsys.readouterr().out
    scope = quality(results, "scope", "s2")
    assert scope["reference"] == "o2" and scope["validity"]["status"] == "ok" and scope["identical"] is False
    error = metrics.mse(moving(2, 5), moving(2))
    assert scope["psnr"] == metrics.psnr(error)
    assert scope["per_frame"]["psnr"] == pytest.approx(metrics.psnr_per_frame(error).tolist())
    assert [len(curve) for curve in scope["per_frame"].values()] == [T, T, T]
    assert 0 < scope["ssim"] < 1 and scope["lpips"] > 0
    assert scope["measures"]["frame_change"] > 0 and "alex" in scope["metric_versions"]["lpips"]
    assert set(scope["drift"]) == {"psnr", "ssim", "lpips"}


def test_an_original_has_no_similarity_and_its_repeat_is_identical(results):
    run(results)
    original, repeat = quality(results, "original", "o1"), quality(results, "original_repeat", "r1")
    assert original["psnr"] is original["lpips"] is original["identical"] is None
    assert original["validity"]["status"] == "ok" and "reference_missing" not in original
    assert repeat["identical"] is True and repeat["psnr"] is None and repeat["ssim"] == 1 and repeat["lpips"] == 0


def test_what_the_preview_of_an_original_loses_is_measured_once(results):
    original = results.root / "tiny" / "original" / "o1"
    run(results)
    assert "preview" not in quality(results, "original", "o1")
    for method, key in (("original", "o1"), ("scope", "s1")):
        video.write_preview(results.root / "tiny" / method / key / "video.mp4", moving(1), fps=8)
        reseal(results.root / "tiny" / method / key)
    run(results)
    lost = quality(results, "original", "o1")["preview"]
    expected = metrics.compare(original / "frames.mp4", original / "video.mp4")
    assert lost == {"psnr": expected.psnr, "ssim": expected.ssim, "lpips": expected.lpips} and 25 < lost["psnr"] < 60
    assert "preview" not in quality(results, "scope", "s1") and quality(results, "original", "o1")["psnr"] is None
    before = (original / "quality.json").stat().st_mtime_ns
    run(results)
    assert (original / "quality.json").stat().st_mtime_ns == before
    (original / "video.mp4").write_text("no video")
    reseal(original)
    run(results, "--redo")
    assert "video.mp4" in quality(results, "original", "o1")["preview"]["missing"]


def test_nothing_is_scored_twice_unless_told_to(results, monkeypatch):
    run(results)
    calls = []

    def counted(*arguments, **named):
        calls.append(arguments[0])
        return score_record(*arguments, **named)

    monkeypatch.setattr(stage, "score_record", counted)
    run(results)
    assert calls == []
    (results.root / "tiny" / "scope" / "s1" / "quality.json").unlink()
    run(results)
    assert [path.name for path in calls] == ["s1"]
    run(results, "--redo")
    assert len(calls) == 7


def test_scores_of_others_survive_in_the_same_file(results):
    path = results.root / "tiny" / "scope" / "s1" / "quality.json"
    path.write_text(json.dumps({"vbench": {"temporal_flickering": 0.9}}))
    run(results)
    assert quality(results, "scope", "s1")["vbench"] == {"temporal_flickering": 0.9}
    assert quality(results, "scope", "s1")["psnr"] > 20


def test_lpips_is_left_empty_without_weights_and_filled_in_once_they_are_there(results, monkeypatch, tmp_path, capsys):
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("SCOPE_WEIGHTS", str(tmp_path / "nowhere"))
        run(results)
    assert "lpips_weights fetch" in capsys.readouterr().out
    before = quality(results, "scope", "s1")
    assert before["lpips"] is None and "lpips_weights fetch" in before["lpips_missing"] and before["psnr"] > 20
    run(results)
    after = quality(results, "scope", "s1")
    assert after["lpips"] > 0 and "lpips_missing" not in after and after["psnr"] == before["psnr"]


FORMATS = {"grey format": ("gray", "gray (grey)"), "alpha": ("bgra", "colour with alpha")}


@pytest.mark.parametrize("fault", ["truncated", "no video", "short", "blank", "odd size", *FORMATS])
def test_a_broken_video_is_invalid_by_name_and_the_rest_is_scored(results, fault, tmp_path):
    target = results.root / "tiny" / "scope" / "s1"
    frames = target / "frames.mp4"
    if fault == "truncated":
        frames.write_bytes(frames.read_bytes()[:-200])
    elif fault == "no video":
        frames.write_text("hello")
    elif fault == "odd size":
        video.write_lossless(frames, moving(1)[:, :-1, :-3], fps=8)
    elif fault in FORMATS:
        _encode(frames, moving(1), FORMATS[fault][0])
    else:
        video.write_lossless(frames, moving(1)[:-1] if fault == "short" else moving(1) * 0 + 127, fps=8)
    reseal(target)  # as if it was stored broken
    assert run(results) == 0
    broken = quality(results, "scope", "s1")
    assert broken["validity"]["status"] == "invalid"
    expected = {"short": "wrong count: 11 frames, 12", "blank": "flat", "odd size": "wrong size: 45×47"}
    expected |= {name: kind for name, (_, kind) in FORMATS.items()}
    reason = broken["validity"]["reasons"][0]
    assert expected.get(fault, "") in reason and ("frames.mp4" in reason or fault in ("short", "blank", "odd size"))
    if fault != "blank":
        assert broken["psnr"] is None
    assert quality(results, "scope", "s2")["validity"]["status"] == "ok"


def test_bytes_that_are_not_those_that_were_sealed_are_not_scored(results, capsys):
    """Changed bytes may decode without an error. Only the checksum shows them."""
    run(results)
    before = quality(results, "scope", "s1"), quality(results, "original_repeat", "r2")
    for folder in ("scope/s1", "original/o2"):
        path = results.root / "tiny" / folder / "frames.mp4"
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    capsys.readouterr()
    assert run(results, "--redo") == 1
    told = capsys.readouterr().out
    assert "errors 4" in told and "scope/s1 were changed after they were sealed" in told and "scores are kept" in told
    assert (quality(results, "scope", "s1"), quality(results, "original_repeat", "r2")) == before
    (results.root / "tiny" / "scope" / "s1" / "quality.json").unlink()
    assert run(results) == 1
    assert not (results.root / "tiny" / "scope" / "s1" / "quality.json").exists()


@pytest.mark.parametrize("fault", ["its frames", "the Original's frames", "torch", "no Original", "a colon"])
def test_an_error_never_takes_the_place_of_scores(results, fault, monkeypatch, tmp_path):
    run(results)
    some = (("scope", "s1"), ("original_repeat", "r1"))
    before = {key: quality(results, method, key) for method, key in some}
    failing = {"its frames": "s1", "the Original's frames": "o1"}.get(fault)
    if failing:
        whole = video.read

        def read(path, *arguments):
            if failing in str(path):
                raise video.VideoError(f"{path}: no decoder")
            return whole(path, *arguments)

        monkeypatch.setattr(video, "read", read)
    elif fault == "torch":
        monkeypatch.setattr(metrics, "ssim", lambda *_: (_ for _ in ()).throw(RuntimeError("CUDA error")))
    elif fault == "no Original":
        shutil.rmtree(results.root / "tiny" / "original" / "o1")
    else:
        (tmp_path / "a:b").symlink_to(results.root)
        monkeypatch.chdir(tmp_path)
        assert stage.main(["a:b", "--redo"]) == 0
        assert quality(results, "scope", "s1") == before["s1"]
        return
    score._reference_signals.cache_clear()
    assert run(results, "--redo") == 1
    assert {key: quality(results, method, key) for method, key in some} == before


def test_scores_of_a_file_that_could_not_be_read_are_tried_again(results, monkeypatch):
    def broken(path, *_):
        raise video.VideoError(f"{path}: no decoder")

    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(video, "read", broken)
        run(results)
    first = quality(results, "scope", "s1")
    assert first["validity"]["status"] == "invalid" and "no decoder" in first["unreadable"]
    run(results)
    run(results)  # the first of the two read the Originals
    again = quality(results, "scope", "s1")
    assert again["validity"]["status"] == "ok" and again["psnr"] > 20 and "unreadable" not in again


def test_lpips_stays_where_its_weights_have_gone(results, monkeypatch, tmp_path):
    run(results)
    before = quality(results, "scope", "s1")
    assert run(results, "--redo", "--lpips-net", "none") == 0
    assert quality(results, "scope", "s1") == before
    monkeypatch.setenv("SCOPE_WEIGHTS", str(tmp_path / "nowhere"))
    run(results, "--redo")
    assert quality(results, "scope", "s1") == before


def test_a_video_that_has_left_its_original_is_diverged_and_keeps_its_numbers(results):
    add(results, "scope", "negative", 255 - moving(1), prompt="p1", reference_key="o1")
    add(results, "original_seed", "elsewhere", moving(2), prompt="p1", reference_key="o1")
    run(results)
    found = quality(results, "scope", "negative")
    assert found["validity"]["status"] == "diverged" and found["psnr"] < 20 and found["beside"]["turned"] == 1
    assert any("inverted" in text for text in found["validity"]["diverged"])
    assert quality(results, "original_seed", "elsewhere")["validity"]["status"] == "ok"


def test_half_written_and_failed_records_are_passed_over(results, capsys):
    half = results.root / "tiny" / "scope" / "half"
    half.mkdir()
    (half / "frames.mp4").write_bytes(b"")
    add(results, "scope", "failed", None, status="failed", reason="out of memory")
    assert run(results) == 0
    assert not (half / "quality.json").exists()
    text = capsys.readouterr().out
    assert "scope/half" in text and "no run.json" in text and "scored 6" in text and "failed 1" in text


def test_a_half_written_quality_file_is_made_again(results):
    run(results)
    path = results.root / "tiny" / "scope" / "s1" / "quality.json"
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    run(results)
    assert json.loads(path.read_text()) == json.loads(whole)


def test_latents_that_were_not_finite_make_the_record_invalid(results):
    reason = "latents of segment 0 are not finite after iteration 3"
    add(results, "scope", "nan", None, status="invalid", reason=reason, reference_key="o1")
    run(results)
    assert quality(results, "scope", "nan")["validity"] == {"status": "invalid", "reasons": [reason], "warnings": []}


def test_without_an_original_a_video_is_judged_but_not_compared(results):
    add(results, "scope", "alone", moving(3, 5), prompt="p3", reference_key="o3")
    run(results)
    alone = quality(results, "scope", "alone")
    missing = alone["reference_missing"]
    assert alone["psnr"] is None and "method=original" in missing and "o3" in missing
    assert alone["validity"]["status"] == "ok" and alone["measures"]
    add(results, "original", "o3", moving(3), prompt="p3")
    run(results)
    assert quality(results, "scope", "alone")["psnr"] > 20
    assert "reference_missing" not in quality(results, "scope", "alone")


def test_two_originals_for_one_prompt_are_told_apart_by_key_and_never_guessed(results):
    add(results, "original", "other", moving(7), prompt="p1")
    add(results, "teacache", "keyless", moving(1, 5), prompt="p1")
    add(results, "teacache", "keyed", moving(1, 5), prompt="p1", reference_key="o1")
    add(results, "teacache", "single", moving(2, 5), prompt="p2")
    run(results)
    missing = quality(results, "teacache", "keyless")["reference_missing"]
    assert "2 Originals" in missing and "original/o1" in missing and "original/other" in missing
    assert quality(results, "teacache", "keyed")["psnr"] > 20
    assert quality(results, "teacache", "single")["psnr"] > 20


def test_an_invalid_original_is_no_reference(results):
    add(results, "original", "black", moving(4) * 0, prompt="p4")
    add(results, "scope", "s4", moving(4), prompt="p4", reference_key="black")
    run(results)
    assert quality(results, "original", "black")["validity"]["status"] == "invalid"
    assert "no valid video" in quality(results, "scope", "s4")["reference_missing"]
    assert quality(results, "scope", "s4")["psnr"] is None


def test_a_record_still_being_written_can_be_scored(results, tmp_path):
    video.write_lossless(tmp_path / "new" / "frames.mp4", moving(1, 5), fps=8)
    given = {"method": "scope", "reference_key": "o1", "fps": 8, "frame_borders": [5]}
    scores = score_record(tmp_path / "new", results.root / "tiny" / "original" / "o1", given)
    run(results)
    assert scores["psnr"] == quality(results, "scope", "s1")["psnr"]
    assert len(scores["by_segment"]["ssim"]) == 2 and len(scores["border_jumps"]["ssim"]) == 1
    assert not (tmp_path / "new" / "quality.json").exists()
    json.dumps(scores, allow_nan=False)


def test_a_folder_without_records_or_none_at_all_is_an_error(tmp_path, capsys):
    assert stage.main([str(tmp_path / "absent")]) == 2
    assert "results" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert stage.main([str(tmp_path / "empty"), "--lpips-net", "none"]) == 2
    assert "python run.py" in capsys.readouterr().err
