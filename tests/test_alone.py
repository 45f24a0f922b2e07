"""Drift without a reference: worked by hand, and on videos with one frame, no change, or no structure."""

import json
import math

import numpy as np
import pytest

from eval import alone, score
from eval.signals import Watch
from eval.video import write_lossless


def measured(frames, chunks=None):
    """`alone` of uint8 frames (T, H, W, 3), given in two batches."""
    watch, colours = Watch(), alone.Colours()
    for batch in filter(len, (frames[:3], frames[3:])):
        watch.update(batch)
        colours.update(batch)
    return alone.alone(watch.signals(), colours, chunks)


def flat(colours, size=8):
    """Frames of one colour each."""
    return np.stack([np.full((size, size, 3), colour, np.uint8) for colour in colours])


def test_colour_and_saturation_are_those_of_the_first_and_last_fifteen_percent():
    """20 frames: 3 at each end. Means (100, 50, 50) and (130, 90, 50): distance 50; saturation 50 and 80."""
    video = flat([(100, 50, 50)] * 3 + [(255, 0, 255)] * 14 + [(130, 90, 50)] * 3)
    found = measured(video)["drift"]
    assert found["colour"] == 50.0 and found["saturation"] == 30.0 and found["sharpness"] == 0.0


def test_the_number_of_frames_at_each_end_is_rounded_up():
    """8 frames: ceil(1.2) = 2. First mean (0 + 30) / 2, last mean (60 + 90) / 2; a distance of 60 in each channel."""
    video = flat([(v, v, v) for v in (0, 30, 200, 200, 200, 200, 60, 90)])
    assert measured(video)["drift"]["colour"] == pytest.approx(60 * math.sqrt(3), abs=1e-4)


def test_sharpness_is_the_deviation_of_the_laplacian():
    """A checkerboard of 0 and 20 has a Laplacian of +-80 (four neighbours that differ by 20); a flat frame has 0."""
    board = np.indices((8, 8)).sum(0) % 2 * 20
    sharp = np.repeat(board[..., None], 3, 2).astype(np.uint8)
    video = np.stack([sharp] * 2 + [sharp // 2] * 6 + [np.zeros_like(sharp)] * 2)
    found = measured(video)
    assert found["drift"]["sharpness"] == pytest.approx(80.0, rel=1e-3)
    assert found["parts"]["sharpness"] == pytest.approx([80.0] * 2 + [40.0] * 6 + [0.0] * 2, rel=1e-3)


def test_motion_is_the_mean_change_between_frames():
    """11 frames, 10 changes, 2 at each end: 4 and 4, then 10 and 10 levels."""
    steps = [4, 4, 1, 1, 1, 1, 1, 1, 10, 10]
    video = flat([(v, v, v) for v in np.cumsum([0, *steps])])
    assert measured(video)["drift"]["motion"] == 6.0


def test_the_curve_has_a_value_for_each_chunk():
    video = flat([(10, 10, 10)] + [(20, 10, 10)] * 4 + [(10, 10, 40)] * 4)
    found = measured(video, chunks=[1, 5, 9])
    assert found["starts"] == [0, 1, 5]
    assert found["parts"]["colour"] == [0.0, 10.0, 30.0]
    assert found["parts"]["saturation"] == [0.0, 10.0, 30.0]
    assert found["parts"]["motion"] == [None, pytest.approx(10 / 3 / 4, abs=1e-4), pytest.approx(40 / 3 / 4, abs=1e-4)]


@pytest.mark.parametrize("chunks", [None, [], [30], [10, 30], [5, 10, 29]])
def test_without_at_least_three_fitting_chunks_there_are_ten_equal_parts(chunks):
    assert measured(flat([(5, 5, 5)] * 30), chunks)["starts"] == [0, 3, 6, 9, 12, 15, 18, 21, 24, 27]


@pytest.mark.parametrize("frames", [1, 2, 3, 7])
@pytest.mark.parametrize("size", [2, 8])
def test_short_constant_and_tiny_videos_have_no_nan(frames, size):
    found = measured(flat([(90, 90, 90)] * frames, size))
    json.dumps(found, allow_nan=False)
    known = dict.fromkeys(alone.NAMES, 0.0)
    if frames < 2:
        known = dict.fromkeys(known)  # the ends are the same frame, which says nothing
    elif frames < 3:
        known["motion"] = None
    assert found["drift"] == known and len(found["starts"]) == frames


def test_a_video_and_its_reverse_have_the_same_drift_and_brightening_is_no_saturation():
    rise = flat([(10 * n, 10 * n, 10 * n) for n in range(12)])
    assert measured(rise)["drift"] == measured(rise[::-1])["drift"]
    assert measured(rise)["drift"]["saturation"] == 0.0 and measured(rise)["drift"]["colour"] > 100


def test_clips_of_a_video_have_a_drift_if_there_are_two():
    assert alone.ends([0.9, 0.5, 0.2]) == 0.7 and alone.ends([0.4]) is None


def test_a_scored_video_has_its_drift_and_its_curve(tmp_path):
    video = flat([(20 * n, 0, 0) for n in range(9)], 16)
    write_lossless(tmp_path / "frames.mp4", iter([video]), 8)
    found = score.score_record(tmp_path, None, {"chunks": {"frames": [1, 5, 9]}, "method": "original"}, "none")
    assert found["alone"]["drift"]["colour"] == 140.0  # means of 2 frames: 10 and 150
    assert found["alone"]["drift"]["colour"] == found["alone"]["drift"]["saturation"]
    assert found["alone"]["starts"] == [0, 1, 5]
