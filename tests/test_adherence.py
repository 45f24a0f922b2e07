"""The checker agrees with rendered truth, and says no where truth and prompt differ."""

import numpy as np
import pytest
from scipy import ndimage

from eval import adherence as checker
from eval.adherence import adherence
from models import shapes


def truth(spec: shapes.Spec) -> tuple[str, str, str]:
    return spec.colour, spec.shape, spec.direction


@pytest.mark.slow
@pytest.mark.parametrize("blur", [0.0, 1.0])
def test_the_checker_reads_rendered_videos(blur: float) -> None:
    wrong = []
    for seed in range(72):
        spec = shapes.sample(20_000 + seed, "held_out")
        video = shapes.render(spec, 25).numpy()
        if blur:
            noise = np.random.default_rng(seed).normal(0, 5, video.shape)
            video = ndimage.gaussian_filter(video.astype(float), (0, blur, blur, 0), mode="nearest") + noise
            video = video.clip(0, 255).astype(np.uint8)
        seen = adherence(video, shapes.caption(spec))
        assert seen is not None and seen.frames_present == 25 and seen.jumps == 0
        if seen.seen != truth(spec):
            wrong.append((spec, seen))
    assert not wrong


def test_a_wrong_prompt_is_called_wrong_part_by_part() -> None:
    spec = shapes.Spec("blue", "square", "up", "night", 30.0, 30.0, 10.0, 0.7, 0)
    video = shapes.render(spec, 25).numpy()
    seen = adherence(video, "a red square moving down")
    assert seen is not None
    assert (seen.colour, seen.shape, seen.direction) == (False, True, False)
    assert seen.seen == ("blue", "square", "up")


def test_what_the_prompt_does_not_name_is_not_judged() -> None:
    video = shapes.render(shapes.sample(3), 9).numpy()
    assert adherence(video, "a nice landscape in spring") is None
    seen = adherence(video, "something moving upwards")
    assert seen is not None and seen.colour is None and seen.shape is None and seen.direction is not None


def test_an_empty_video_and_noise_show_nothing() -> None:
    empty = np.full((9, 64, 64, 3), 80, np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, (9, 64, 64, 3), dtype=np.uint8)
    for video in (empty, noise):
        seen = adherence(video, "a red circle moving left")
        assert seen is not None
        assert seen.frames_present == 0 and seen.seen == ("", "", "") and not seen.colour


def test_a_still_shape_has_no_direction_but_colour_and_shape() -> None:
    spec = shapes.Spec("green", "triangle", "left", "dusk", 20.0, 30.0, 10.0, 0.7, 0)
    video = shapes.render(spec, 1).numpy().repeat(12, 0)
    seen = adherence(video, "a green triangle moving left")
    assert seen is not None and (seen.colour, seen.shape, seen.direction) == (True, True, False)


def test_a_jump_of_the_object_is_counted() -> None:
    spec = shapes.Spec("white", "circle", "right", "forest", 20.0, 30.0, 10.0, 0.7, 0)
    video = shapes.render(spec, 40).numpy()
    seen = adherence(np.concatenate([video[:12], video[28:]]), "a white circle moving right")
    assert seen is not None and seen.jumps == 1


def test_the_tables_agree_with_what_is_rendered() -> None:
    assert checker.COLOURS == shapes.COLOURS and checker.SHAPES == shapes.SHAPES
    assert checker.DIRECTIONS == shapes.DIRECTIONS


def test_bad_frames_are_refused() -> None:
    with pytest.raises(ValueError, match="uint8 of shape"):
        adherence(np.zeros((9, 64, 64, 3)), "a red circle")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="T above 4"):
        adherence(np.zeros((3, 64, 64, 3), np.uint8), "a red circle")
