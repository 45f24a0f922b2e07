"""The procedural videos: deterministic, periodic, and split without overlap."""

from dataclasses import replace

import pytest
import torch

from models import shapes

RED_CIRCLE = shapes.Spec("red", "circle", "left", "dusk", 32.0, 32.0, 10.0, 1.0, 0)


def test_equal_seeds_give_equal_videos_and_other_seeds_others() -> None:
    first, again = shapes.render(shapes.sample(7), 9), shapes.render(shapes.sample(7), 9)
    assert first.dtype == torch.uint8 and first.shape == (9, 64, 64, 3)
    assert torch.equal(first, again)
    assert not torch.equal(first, shapes.render(shapes.sample(8), 9))


def test_a_shape_that_leaves_enters_on_the_other_side_and_is_back_after_one_lap() -> None:
    video = shapes.render(RED_CIRCLE, 65)
    assert torch.equal(video[0], video[64])
    middle = shapes.coverage([RED_CIRCLE], 33)[0, 32]  # half a lap: the centre lies on the border
    assert middle[32, 0] == 1 and middle[32, 63] == 1 and middle[32, 32] == 0


def test_coverage_has_the_area_of_the_shape() -> None:
    area = lambda shape: float(shapes.coverage([replace(RED_CIRCLE, shape=shape)], 1).sum())  # noqa: E731
    assert area("circle") == pytest.approx(3.14159 * 100, rel=0.01)
    assert area("square") == pytest.approx(18**2, rel=0.01)
    assert area("triangle") == pytest.approx(27**0.5 * 7.2**2, rel=0.02)  # inradius 7.2


def test_starting_later_is_the_same_as_skipping_frames() -> None:
    assert torch.equal(shapes.render(RED_CIRCLE, 12)[5:], shapes.render(RED_CIRCLE, 7, start=5))


def test_a_video_scales_with_its_frame() -> None:
    small = shapes.coverage([RED_CIRCLE], 3, 64).mean((2, 3))
    assert torch.allclose(shapes.coverage([RED_CIRCLE], 3, 128).mean((2, 3)), small, rtol=0.01)


def test_each_direction_moves_the_shape_that_way() -> None:
    for name, (dx, dy) in shapes.DIRECTIONS.items():
        mask = shapes.coverage([replace(RED_CIRCLE, direction=name)], 9)[0]
        grid = torch.arange(64.0)
        x = (mask.sum(1) * grid).sum(1) / mask.sum((1, 2))
        y = (mask.sum(2) * grid).sum(1) / mask.sum((1, 2))
        assert x[8] - x[0] == pytest.approx(8 * dx, abs=0.05) and y[8] - y[0] == pytest.approx(8 * dy, abs=0.05)


def test_the_splits_share_no_cell_and_samples_stay_in_theirs() -> None:
    train, held_out = set(shapes.cells("train")), set(shapes.cells("held_out"))
    assert len(train) == 216 and len(held_out) == 72 and not train & held_out
    for seed in range(40):
        s = shapes.sample(seed, "held_out")
        assert (s.colour, s.shape, s.direction, s.background) in held_out


def test_held_out_prompts_are_distinct_and_no_training_caption_equals_one() -> None:
    prompts = shapes.prompts("held_out", 72)
    assert len(set(prompts)) == 72 and prompts[:64] == shapes.prompts("held_out", 64)
    trained = {shapes.caption(shapes.sample(seed)) for seed in range(500)}
    assert not trained & set(prompts)


def test_the_vocabulary_holds_every_word_of_a_caption() -> None:
    words = set(shapes.vocabulary())
    for seed in range(100):
        assert set(shapes.caption(shapes.sample(seed)).split()) <= words


def test_bad_input_names_what_is_wanted() -> None:
    with pytest.raises(ValueError, match="'train' or 'held_out'"):
        shapes.cells("test")
    with pytest.raises(ValueError, match="at least 1"):
        shapes.render(RED_CIRCLE, 0)
