"""SkyReels-V2's schedule in closed form against the stock pipeline's own matrix, and the counts that follow."""

from collections import Counter
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from diffusers import SkyReelsV2DiffusionForcingPipeline

from engine.staircase import Segment, segments, staircase
from models.skyreels.settings import SkyReels
from models.wan.settings import latents_of

PAPER = {"frames": 257, "block": 5, "ar_step": 5}
COUNTS = {  # rows per segment with 50 steps, base 97 and overlap 17
    (257, 0, 5): [50, 50, 50],
    (257, 0, 1): [50, 50, 50],
    (257, 1, 1): [74, 69, 69],
    (257, 2, 1): [98, 88, 88],
    (257, 5, 1): [170, 145, 145],
    (257, 1, 5): [54, 53, 53],
    (257, 2, 5): [58, 56, 56],
    (257, 5, 5): [70, 65, 65],
    (257, 10, 5): [90, 80, 80],
    (97, 5, 5): [70],
    (137, 5, 5): [70, 55],
    (177, 5, 5): [70, 65],
    (337, 5, 5): [70, 65, 65, 65],
    (377, 5, 5): [70, 65, 65, 65, 55],
    (497, 5, 1): [170, 145, 145, 145, 145, 145],
}


@pytest.mark.parametrize(
    "latents,steps,ar_step,block,prefix",
    [
        (latents, steps, ar_step, block, prefix)
        for latents, block, prefixes in (
            (25, 5, (0, 5, 10)),
            (25, 1, (5,)),
            (15, 5, (5,)),
            (10, 2, (0, 4)),
            (1, 1, (0,)),
        )
        for prefix in prefixes
        for steps, ar_step in ((1, 5), (6, 0), (6, 2), (6, 60), (50, 0), (50, 1), (50, 5), (50, 60))
    ],
)
def test_closed_form_equals_the_stock_matrix(latents, steps, ar_step, block, prefix):
    grid = torch.arange(900, 900 - steps, -1)
    stock = SkyReelsV2DiffusionForcingPipeline.generate_timestep_matrix
    times, index, update, interval = stock(SimpleNamespace(), latents, grid, latents, ar_step, prefix, block)
    rows = staircase([Segment(0, latents, prefix)], steps, ar_step, block, list(range(steps + 1)))
    assert len(rows) == len(times)
    assert torch.equal(torch.tensor([row.active for row in rows]), update)
    # the stock index counts an update when it begins, and has one more value for "was finished before"
    ours = torch.tensor([[k + on for k, on in zip(row.step, row.active, strict=True)] for row in rows])
    finished = torch.tensor([[k == steps for k in row.step] for row in rows])
    assert torch.equal(torch.where(finished, steps + 1, ours), index)
    assert set(interval) == {(0, latents)}


@pytest.mark.parametrize("frames,ar_step,block", COUNTS)
def test_rows_per_segment(frames, ar_step, block):
    settings = SkyReels(frames=frames, ar_step=ar_step, block=block)
    rows = settings.rows([0.0] * 51)
    assert list(Counter(row.segment for row in rows).values()) == COUNTS[frames, ar_step, block]


def test_the_published_setting_takes_200_iterations_over_65_latents():
    settings = SkyReels(**PAPER)
    assert settings.segments == [Segment(0, 25, 0), Segment(20, 25, 5), Segment(40, 25, 5)]
    assert settings.latents == 65
    assert len(settings.rows([0.0] * 51)) == 200


@pytest.mark.parametrize("ar_step", [0, 1, 3, 9])
@pytest.mark.parametrize("total", [10, 14, 16, 22])
def test_every_slot_gets_every_step_once_and_in_order(total, ar_step):
    cut = segments(total, base=10, overlap=4, block=2)
    sigma = [1 - k / 7 for k in range(8)]
    seen: dict[int, list[tuple]] = {slot: [] for slot in range(total)}
    for row in staircase(cut, 7, ar_step, 2, sigma):
        for slot, k, now, after, on in zip(row.slots, row.step, row.sigma, row.sigma_next, row.active, strict=True):
            if on:
                seen[slot].append((k, now, after))
            else:
                assert now == after
    expected = [(k, sigma[k], sigma[k + 1]) for k in range(7)]
    assert all(updates == expected for updates in seen.values())


def test_rows_count_through_the_video_and_mark_the_end_of_each_segment():
    rows = staircase(segments(16, 10, 4, 2), 6, 2, 2, [1 - k / 6 for k in range(7)])
    assert [row.iteration for row in rows] == list(range(len(rows)))
    ends = [row.iteration for row in rows if row.last]
    assert len(ends) == 2 and ends[-1] == len(rows) - 1
    assert rows[ends[0]].segment == 0 and rows[ends[0] + 1].segment == 1
    assert set(rows[-1].slots) == set(range(6, 16))


@pytest.mark.parametrize("frames", [97, 137, 177, 217, 257, 577, 737])
def test_new_latents_of_the_segments_partition_the_video(frames):
    cut = segments(latents_of(frames), 25, 5, 5)
    new = [slot for s in cut for slot in range(s.first + s.prefix, s.first + s.length)]
    assert new == list(range(latents_of(frames)))
    for before, after in pairwise(cut):
        assert after.first + after.prefix == before.first + before.length


@pytest.mark.parametrize("total,overlap,block", [(26, 5, 5), (121, 5, 5), (65, 4, 5), (25, 0, 2)])
def test_a_window_that_blocks_do_not_fill_is_refused(total, overlap, block):
    with pytest.raises(ValueError, match="want multiples of the block length"):
        segments(total, 25, overlap, block)


@pytest.mark.parametrize("frames,nearest", [(257, None), (258, 257), (250, 257), (265, 257), (480, 477), (100, 97)])
def test_a_length_that_does_not_fit_names_the_nearest_that_does(frames, nearest):
    if nearest is None:
        assert SkyReels(frames=frames).frames == frames
        return
    with pytest.raises(ValueError, match=f"the nearest that does is {nearest}") as error:
        SkyReels(frames=frames)
    assert f"model.frames={frames}" in str(error.value)


def test_a_row_can_be_cut_to_its_units_and_not_beyond():
    row = next(r for r in staircase([Segment(4, 10, 4)], 6, 2, 2, [1 - k / 6 for k in range(7)]) if r.iteration == 3)
    assert row.slots == range(4, 14) and row.updating == [8, 9, 10, 11]
    parts = row.units()
    assert [part.slots for part in parts] == [range(8, 10), range(10, 12)]
    assert [part.step for part in parts] == [(3, 3), (1, 1)]
    assert row.progress == 1 and parts[0].progress == 3
    for outside in (range(2, 6), range(12, 15), range(6, 6)):
        with pytest.raises(ValueError, match="want a non-empty part of"):
            row.only(outside)
