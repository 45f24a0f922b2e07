"""Video files: written frames are read back bit for bit, and errors name the file."""

import av
import numpy as np
import pytest
import torch

from eval import video


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (19, 48, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def lossless(frames, tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "frames.mp4"
    assert video.write_lossless(path, frames, fps=12) == 19
    return path


def _encode(path, frames, codec: str, pixel_format: str):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=24)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixel_format
        for array in frames:
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            container.mux(stream.encode(frame.reformat(format=pixel_format)))
        container.mux(stream.encode())
    return path


def test_lossless_frames_come_back_bit_for_bit_whatever_the_batch(lossless, frames):
    for batch in (1, 8, 100):
        parts = list(video.read(lossless, batch))
        assert all(len(part) == batch for part in parts[:-1])
        np.testing.assert_array_equal(np.concatenate(parts), frames)


def test_a_file_says_what_it_is(lossless):
    info = video.probe(lossless)
    assert (info.frames, info.height, info.width, info.fps, info.lossless) == (19, 48, 64, 12.0, True)


def test_batches_and_tensors_give_the_same_file_as_one_array(lossless, frames, tmp_path):
    for name, given in (("parts", iter(np.array_split(frames, 4))), ("tensor", torch.from_numpy(frames))):
        video.write_lossless(tmp_path / f"{name}.mp4", given, fps=12)
        assert (tmp_path / f"{name}.mp4").read_bytes() == lossless.read_bytes()


@pytest.mark.parametrize("size", [(47, 65), (1, 1), (2, 3)])
def test_odd_sizes_stay_in_the_lossless_file_and_are_padded_in_the_preview(size, tmp_path):
    frames = np.random.default_rng(1).integers(0, 256, (3, *size, 3), dtype=np.uint8)
    video.write_lossless(tmp_path / "frames.mp4", frames)
    np.testing.assert_array_equal(video.read_all(tmp_path / "frames.mp4"), frames)
    video.write_preview(tmp_path / "video.mp4", frames)
    info = video.probe(tmp_path / "video.mp4")
    assert (info.height, info.width) == tuple(side + side % 2 for side in size)


def test_the_preview_is_what_browsers_play_close_to_the_frames_and_the_same_every_time(tmp_path):
    y, x = np.mgrid[:64, :64]
    frames = np.stack([np.stack([2 * x + t, 3 * y, 90 + x - y], -1) for t in range(8)]).astype(np.uint8)
    for name in ("a", "b"):
        video.write_preview(tmp_path / f"{name}.mp4", frames)
    data = (tmp_path / "a.mp4").read_bytes()
    assert data == (tmp_path / "b.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    info = video.probe(tmp_path / "a.mp4")
    assert (info.codec, info.pixel_format, info.frames, info.lossless) == ("h264", "yuv420p", 8, False)
    error = np.abs(video.read_all(tmp_path / "a.mp4").astype(int) - frames).mean()
    assert error < 4


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("grey", "uint8"),
        ("one channel", "uint8"),
        ("alpha", "alpha"),
        ("floats", "multiply floats"),
        ("nothing", "no frames"),
        ("no batches", "no frames"),
        ("another size", "one size"),
        ("no rate", "fps"),
    ],
)
def test_frames_that_are_no_video_are_refused_and_leave_nothing(what, message, frames, tmp_path):
    given = {
        "grey": frames[..., 0],
        "one channel": frames[..., :1],
        "alpha": frames[..., [0, 1, 2, 0]],
        "floats": frames / 255,
        "nothing": frames[:0],
        "no batches": iter(()),
        "no rate": frames,
        "another size": [frames, frames[:, :32]],
    }[what]
    with pytest.raises(video.VideoError, match=message):
        video.write_lossless(tmp_path / "frames.mp4", given, fps=0 if what == "no rate" else 24)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_file_that_was_there(lossless, frames, tmp_path):
    target = tmp_path / "frames.mp4"
    target.write_bytes(lossless.read_bytes())
    with pytest.raises(video.VideoError):
        video.write_lossless(target, [frames, frames[:, :32]])
    assert target.read_bytes() == lossless.read_bytes()


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_an_error_that_names_it(share, lossless, tmp_path, frames):
    video.write_preview(tmp_path / "preview.mp4", frames)
    for whole in (lossless, tmp_path / "preview.mp4"):  # the index at the end, and in front
        data = whole.read_bytes()
        (tmp_path / "cut.mp4").write_bytes(data[: int(share * len(data))])
        with pytest.raises(video.VideoError, match=r"cut\.mp4"):
            list(video.read(tmp_path / "cut.mp4"))


@pytest.mark.parametrize("name", ["text.mp4", "text.txt", "text.nfo", "picture.png", "absent.mp4", "."])
def test_what_is_no_video_is_an_error_that_names_it(name, frames, tmp_path):
    from PIL import Image

    if name.startswith("text"):
        (tmp_path / name).write_text("not a video, whatever it is called\n" * 40)
    elif name.startswith("picture"):
        Image.fromarray(frames[0]).save(tmp_path / name)
    for call in (video.probe, video.read_all):
        with pytest.raises(video.VideoError, match=(tmp_path / name).name):
            call(tmp_path / name)


@pytest.mark.parametrize(("pixel_format", "kind"), [("gray", "grey"), ("bgra", "alpha"), ("yuva420p", "alpha")])
def test_grey_and_transparent_videos_are_refused(pixel_format, kind, frames, tmp_path):
    path = _encode(tmp_path / "other.mkv", frames[:2], "ffv1", pixel_format)
    with pytest.raises(video.VideoError, match=kind):
        list(video.read(path))


def test_a_container_without_a_frame_count_is_counted(frames, tmp_path):
    path = _encode(tmp_path / "frames.mkv", frames, "ffv1", "bgr0")
    assert video.probe(path).frames == 19
    np.testing.assert_array_equal(video.read_all(path), frames)
