"""Frames that are kept between two readings of a small video: the same frames, and never those of an older file."""

import numpy as np
import pytest

from eval import kept_frames, reading
from eval.video import write_lossless as write


@pytest.fixture
def path(tmp_path):
    kept_frames._kept.clear()
    write(tmp_path / "frames.mp4", frames(0), 8)
    return tmp_path / "frames.mp4"


def frames(seed):
    return np.random.default_rng(seed).integers(0, 256, (11, 16, 16, 3), dtype=np.uint8)


def test_a_second_reading_gives_the_same_frames_and_decodes_nothing(path, monkeypatch):
    first = list(reading.read(path, 4))
    monkeypatch.setattr(reading, "_decoding", None)
    again = list(reading.read(path, 5))
    assert np.array_equal(np.concatenate(again), np.concatenate(first)) and [len(part) for part in again] == [5, 5, 1]
    again[0][:] = 0  # what a reader does to its batch changes nothing for the next
    assert np.array_equal(np.concatenate(list(reading.read(path))), np.concatenate(first))


def test_a_file_that_was_written_again_is_read_again(path):
    before = reading.read_all(path)
    write(path, frames(1), 8)
    assert not np.array_equal(reading.read_all(path), before) and np.array_equal(reading.read_all(path), frames(1))


def test_a_damaged_file_is_damaged_at_every_reading(path):
    path.write_bytes(path.read_bytes()[:-200])
    for _ in range(2):
        with pytest.raises(reading.VideoError):
            list(reading.read(path))
    assert not kept_frames._kept


def test_a_reading_that_ends_early_and_a_large_video_keep_nothing(path, monkeypatch):
    next(reading.read(path, 4))
    monkeypatch.setattr(kept_frames, "BYTES", 1000)
    reading.read_all(path)
    assert not kept_frames._kept


def test_only_the_last_few_videos_are_kept(path, tmp_path):
    for number in range(kept_frames.FILES + 2):
        write(tmp_path / f"{number}.mp4", frames(number), 8)
        reading.read_all(tmp_path / f"{number}.mp4")
    assert len(kept_frames._kept) == kept_frames.FILES
