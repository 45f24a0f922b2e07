"""Frames are read as a player shows them: edit lists, display matrices, hidden frames; damage and loss are detected."""

import json
import struct
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageOps

from eval import metrics, video
from models.prefix import read_prefix

FIXTURES = Path(__file__).parent / "fixtures" / "videos"
# EXIF's number: the display matrix that says the same, and the picture as shown
TURNS = {
    1: ((1, 0, 0, 1), lambda p: p),
    2: ((-1, 0, 0, 1), lambda p: p[:, ::-1]),
    3: ((-1, 0, 0, -1), lambda p: p[::-1, ::-1]),
    4: ((1, 0, 0, -1), lambda p: p[::-1]),
    5: ((0, 1, 1, 0), lambda p: p.transpose(1, 0, 2)),
    6: ((0, 1, -1, 0), lambda p: np.rot90(p, -1)),
    7: ((0, -1, -1, 0), lambda p: p[::-1, ::-1].transpose(1, 0, 2)),
    8: ((0, -1, 1, 0), np.rot90),
}


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    y, x = np.mgrid[:48, :64]
    return np.stack([np.stack([3 * x + t, 4 * y, 200 - x - y + 2 * t], -1) for t in range(24)]).astype(np.uint8)


def encode(
    path: Path,
    frames: np.ndarray,
    codec: str,
    pixels: str,
    options: dict[str, str] | None = None,
    matrix: tuple[int, ...] | None = None,
) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=24, options=options or {})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixels
        if matrix:
            a, b, c, d = (65536 * value for value in matrix)
            stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        for array in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format="rgb24")))
        container.mux(stream.encode())
    return path


def edited(path: Path, first: int, count: int) -> None:
    """Rewrites the file's edit list to show `count` frames from `first` on, at 24 frames per second."""
    data = bytearray(path.read_bytes())
    at, (scale,) = data.index(b"elst"), struct.unpack_from(">I", data, data.index(b"mdhd") + 16)
    (movie,) = struct.unpack_from(">I", data, data.index(b"mvhd") + 16)
    struct.pack_into(">Ii", data, at + 12, count * movie // 24, first * scale // 24)
    path.write_bytes(data)


def flipped(path: Path, share: float) -> None:
    """Inverts sixteen bytes of the file at a share of its length."""
    data = bytearray(path.read_bytes())
    at = int(share * len(data))
    data[at : at + 16] = bytes(255 - byte for byte in data[at : at + 16])
    path.write_bytes(data)


# -- what is shown ----------------------------------------------------------------------------------------------------


def test_a_trimmed_file_is_compared_by_the_frames_that_a_player_shows():
    found = metrics.compare(FIXTURES / "trimref.mp4", FIXTURES / "trim.mp4", "none")
    assert (found.frames, round(found.psnr, 3), round(found.ssim, 4)) == (36, 35.651, 0.9741)
    assert video.probe(FIXTURES / "trim.mp4").frames == 36


@pytest.mark.parametrize(("first", "count"), [(8, 16), (0, 10), (5, 12)])
def test_an_edit_list_that_cuts_either_end_is_honoured_by_every_reader(frames, tmp_path, first, count):
    path = tmp_path / "cut.mp4"
    video.write_lossless(path, frames)
    edited(path, first, count)
    assert video.probe(path).frames == count
    np.testing.assert_array_equal(video.read_all(path), frames[first : first + count])
    np.testing.assert_array_equal(read_prefix(path, count, 24, 48, 64).numpy(), frames[first : first + count])
    with pytest.raises(metrics.MismatchError, match=rf"{count} frames"):
        metrics.compare(_whole(frames, tmp_path), path, "none")


def _whole(frames: np.ndarray, folder: Path) -> Path:
    video.write_lossless(folder / "whole.mp4", frames)
    return folder / "whole.mp4"


@pytest.mark.parametrize("number", TURNS)
def test_a_display_matrix_turns_and_mirrors_frames_as_exif_says_it(number, frames, tmp_path):
    matrix, shown = TURNS[number]
    path = encode(tmp_path / "turned.mp4", frames[:3], "libx264rgb", "rgb24", {"qp": "0"}, matrix)
    expected = np.stack([shown(picture) for picture in frames[:3]])
    np.testing.assert_array_equal(video.read_all(path), expected)
    info = video.probe(path)
    assert (info.height, info.width) == expected.shape[1:3]
    np.testing.assert_array_equal(read_prefix(path, 3, 24, *expected.shape[1:3]).numpy(), expected)


def test_a_slanting_display_matrix_is_refused_by_name(frames, tmp_path):
    path = encode(tmp_path / "slant.mp4", frames[:3], "libx264rgb", "rgb24", {"qp": "0"}, (1, 0, 0, 1))
    data, diagonal = path.read_bytes(), struct.pack(">9i", 46341, 46341, 0, -46341, 46341, 0, 0, 0, 1 << 30)
    at = data.index(struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30), data.index(b"tkhd"))
    path.write_bytes(data[:at] + diagonal + data[at + 36 :])
    with pytest.raises(video.VideoError, match=r"slant\.mp4.*90 degrees"):
        video.read_all(path)
    with pytest.raises(ValueError, match=r"slant\.mp4.*90 degrees"):
        read_prefix(path, 1, 24, 48, 64)


def test_a_video_upside_down_in_its_file_is_compared_as_shown():
    turned = FIXTURES / "rot180.mp4"
    assert metrics.compare(FIXTURES / "lossy.mp4", turned, "none").psnr == pytest.approx(2.04, abs=0.005)
    assert metrics.compare(FIXTURES / "rot180_upright.mp4", turned, "none").psnr == pytest.approx(38.99, abs=0.005)


@pytest.mark.parametrize("number", TURNS)
@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_a_prefix_picture_is_turned_as_its_exif_says(number, kind, frames, tmp_path):
    path, exif = tmp_path / f"picture.{kind}", Image.Exif()
    exif[0x0112] = number
    Image.fromarray(frames[0]).save(path, exif=exif, **({"quality": 95, "subsampling": 0} if kind == "jpg" else {}))
    expected = np.array(ImageOps.exif_transpose(Image.open(path)).convert("RGB")).astype(int)
    found = read_prefix(path, 1, 24, *expected.shape[:2])[0].numpy()
    assert np.abs(found - expected).mean() < 1.5


def test_the_prefix_of_a_photograph_taken_upside_down_is_upright():
    given = FIXTURES / "exif180.jpg"
    expected = np.array(ImageOps.exif_transpose(Image.open(given)).convert("RGB")).astype(int)
    assert np.abs(read_prefix(given, 1, 24, 64, 96)[0].numpy() - expected).mean() < 2


# -- damage -----------------------------------------------------------------------------------------------------------


def test_frames_that_the_decoder_could_only_guess_are_refused_by_number():
    with pytest.raises(video.VideoError, match=r"flip0\.mp4: frames 28, 29, 43 are damaged"):
        metrics.compare(FIXTURES / "okc.mp4", FIXTURES / "flip0.mp4", "none")
    with pytest.raises(ValueError, match=r"flip0\.mp4: frame 28 is damaged"):
        read_prefix(FIXTURES / "flip0.mp4", 40, 24, 64, 64)
    assert read_prefix(FIXTURES / "flip0.mp4", 20, 24, 64, 64).shape[0] == 20


def test_the_command_refuses_damaged_frames_with_their_numbers(capsys):
    code = metrics.main([str(FIXTURES / "okc.mp4"), str(FIXTURES / "flip0.mp4"), "--net", "none"])
    told = capsys.readouterr()
    assert code == 2 and told.out == "" and "frames 28, 29, 43 are damaged" in told.err


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_a_damaged_slice_that_its_checksum_betrays_is_refused(share, frames, tmp_path):
    rough = (frames.astype(int) + np.random.default_rng(0).integers(0, 40, frames.shape)).clip(0, 255).astype(np.uint8)
    path = encode(tmp_path / "slices.mkv", rough, "ffv1", "bgr0", {"level": "3", "slicecrc": "1"})
    np.testing.assert_array_equal(video.read_all(path), rough)
    flipped(path, share)
    with pytest.raises(video.VideoError, match=r"slices\.mkv.*damaged"):
        video.read_all(path)


# -- loss -------------------------------------------------------------------------------------------------------------

LOSSLESS = {
    "ours": (None, True),
    "rgb crf 35": (("libx264rgb", "rgb24", {"crf": "35"}, "mp4"), False),
    "rgb crf 0": (("libx264rgb", "rgb24", {"crf": "0"}, "mp4"), True),
    "rgb qp 1": (("libx264rgb", "rgb24", {"qp": "1"}, "mkv"), False),
    "444 qp 0": (("libx264", "yuv444p", {"qp": "0"}, "mp4"), False),
    "ffv1": (("ffv1", "bgr0", {}, "mkv"), True),
    "vp9 lossless": (("libvpx-vp9", "gbrp", {"lossless": "1"}, "webm"), True),
    "vp9 lossy": (("libvpx-vp9", "gbrp", {"crf": "40", "b": "0"}, "webm"), False),
    "hevc": (("libx265", "gbrp", {"x265-params": "log-level=none"}, "mp4"), None),
}


@pytest.mark.parametrize("case", LOSSLESS)
def test_whether_a_file_is_lossless_is_known_from_its_data(case, frames, tmp_path):
    given, expected = LOSSLESS[case]
    noisy = frames[:6] + np.random.default_rng(0).integers(0, 20, frames[:6].shape).astype(np.uint8)
    if given is None:
        path = tmp_path / "ours.mp4"
        video.write_lossless(path, noisy)
    else:
        path = encode(tmp_path / f"case.{given[3]}", noisy, *given[:3])
    assert video.probe(path).lossless is expected
    if expected:
        np.testing.assert_array_equal(video.read_all(path), noisy)


def test_the_command_says_lossless_lossy_or_unknown(frames, tmp_path, capsys):
    video.write_lossless(tmp_path / "ours.mp4", frames)
    encode(tmp_path / "hevc.mp4", frames, "libx265", "gbrp", {"x265-params": "log-level=none"})
    encode(tmp_path / "lossy.mp4", frames, "libx264rgb", "rgb24", {"crf": "35"})
    for other, expected, word in (("ours", True, ""), ("hevc", None, "does not tell"), ("lossy", False, "lossy")):
        metrics.main([str(tmp_path / "ours.mp4"), str(tmp_path / f"{other}.mp4"), "--net", "none"])
        told = capsys.readouterr()
        assert json.loads(told.out)["lossless"] is expected and word in told.err and bool(told.err) == bool(word)
    assert video.probe(FIXTURES / "rgbcrf35.mp4").lossless is False
