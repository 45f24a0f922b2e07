"""Selective computation: which slots a row forwards, when that is exact and when it is not, and what it saves."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from engine.ledger import flops, plan
from engine.method import Original
from engine.staircase import Segment, staircase
from models.skyreels.backbone import SkyReelsV2
from models.skyreels.overlap import noised_overlap
from models.skyreels.settings import SkyReels
from scope.method import Scope
from scope.selective import narrow
from tests.tiny import CPU, LONG, SHORT, build, video

PAPER = Path(__file__).parents[1] / "conf" / "model" / "skyreels.yaml"


def only(selective):
    """Computes every row, so that only the selection has an effect."""
    return Scope(0.0, 0.0, selective=selective)


def intervals(prefix, selective, ratio=()):
    """[((start, end), number of rows)] of a published segment, in order."""
    rows = staircase([Segment(0, 25, prefix)], 50, 5, 5, [1 - k / 50 for k in range(51)])
    cut = [narrow(row, selective, ratio).slots for row in rows]
    return dict(Counter((slots.start, slots.stop) for slots in cut))


def test_the_prefix_grows_as_blocks_start():
    """Five rows each at 5, 10, 15 and 20 slots, then 50 at 25. If a block is given, five rows fewer."""
    assert intervals(0, "prefix") == {(0, 5): 5, (0, 10): 5, (0, 15): 5, (0, 20): 5, (0, 25): 50}
    assert intervals(5, "prefix") == {(0, 10): 5, (0, 15): 5, (0, 20): 5, (0, 25): 50}
    assert intervals(5, "none") == {(0, 25): 65}


def test_the_hull_also_leaves_finished_blocks_behind():
    found = intervals(0, "hull")
    assert list(found.items())[:5] == [((0, 5), 5), ((0, 10), 5), ((0, 15), 5), ((0, 20), 5), ((0, 25), 30)]
    assert list(found.items())[5:] == [((5, 25), 5), ((10, 25), 5), ((15, 25), 5), ((20, 25), 5)]
    assert intervals(5, "hull")[(5, 25)] == 35  # the overlap, clean from the start, is never forwarded


def test_a_share_of_the_interval_by_stage_reaches_from_the_prefix_to_the_hull():
    """Half of 25 slots is 13, in whole blocks 15. Updating slots are kept at any share."""
    for ready in (0, 5):
        assert intervals(ready, "prefix", (0, 0, 0)) == intervals(ready, "hull")
        assert intervals(ready, "prefix", (1, 1, 1)) == intervals(ready, "prefix")
    assert list(intervals(0, "prefix", (1, 1, 0.5)).items())[4:] == [((0, 25), 30), ((5, 25), 5), ((10, 25), 15)]
    early = intervals(5, "prefix", (0.5, 1, 1))
    assert early == {(5, 10): 5, (5, 15): 5, (5, 20): 5, (5, 25): 2, (0, 25): 48}


@pytest.mark.parametrize(
    "settings",
    [{"interval_ratio": [1, 0.5]}, {"interval_ratio": [1, 1, 2]}, {"interval_ratio": [1, 1, 0.5], "selective": "hull"}],
)
def test_a_share_that_means_nothing_is_refused(settings):
    with pytest.raises(ValueError, match="interval_ratio"):
        Scope(0.0, 0.0, **settings)


def test_the_end_of_the_interval_never_moves_back():
    for prefix in (0, 5):
        ends = [end for _, end in intervals(prefix, "prefix")]
        assert ends == sorted(ends)


@pytest.mark.parametrize("frames", [SHORT, LONG])
def test_under_block_causal_attention_the_prefix_is_exact(frames):
    model = build(frames=frames, attention="block_causal")
    torch.testing.assert_close(video(model, only("prefix")), video(model, Original()), atol=1e-5, rtol=0)


@pytest.mark.parametrize("frames", [SHORT, LONG])
def test_under_full_attention_the_prefix_changes_the_video(frames):
    model = build(frames=frames)
    assert (video(model, only("prefix")) - video(model, Original())).abs().max() > 1e-3


@pytest.mark.parametrize("attention", ["full", "block_causal"])
def test_the_hull_changes_the_video_under_either(attention):
    model = build(frames=LONG, attention=attention)
    assert (video(model, only("hull")) - video(model, Original())).abs().max() > 1e-3


@pytest.mark.parametrize("selective", ["prefix", "hull"])
def test_on_the_synchronous_schedule_nothing_can_be_left_out(selective):
    model = build(ar_step=0, addnoise=0)
    assert torch.equal(video(model, only(selective)), video(model, Original()))


def test_a_hull_that_cuts_the_noised_overlap_short_leaves_its_slots_their_noise():
    """The noise on the overlap depends on slot and row, not on the part of the overlap that is forwarded."""
    model = build(frames=LONG)
    row = next(r for r in model.schedule() if r.segment == 1)
    model.start({b: torch.zeros(1, 8, 32) for b in model.branches}, 0)
    x = torch.zeros(len(row.slots), 16, 4, 6)
    whole = noised_overlap(x, row, model.settings, 0)
    part = noised_overlap(x[2:], row.only(range(row.slots.start + 2, row.slots.stop)), model.settings, 0)
    assert torch.equal(part, whole[2:]) and part[:2].abs().sum() > 0 and part[2:].abs().sum() == 0


@pytest.fixture(scope="module")
def published():
    settings = OmegaConf.to_container(OmegaConf.load(PAPER))
    del settings["_target_"]
    return SkyReelsV2(SkyReels(**settings), CPU)


def test_price_of_the_published_setting(published):
    assert published.parameters == 1_435_525_696
    assert published.prices.of(25, 0).whole == 611_947_571_576_832
    for slots, tera in ((5, 45.806), (10, 129.811), (15, 252.170), (20, 412.882)):
        assert published.prices.of(slots, 0).whole / 1e12 == pytest.approx(tera, abs=5e-4)
    assert published.prices.of(25, 5).whole / 1e12 == pytest.approx(420.18, abs=0.01)
    dense, masked = flops(plan(published.schedule()), published.price)
    assert dense / 1e15 == pytest.approx(244.78, abs=0.005)
    assert masked / 1e15 == pytest.approx(168.07, abs=0.005)


def test_selection_alone_saves_a_sixth_of_the_published_setting(published):
    dense, _ = flops(plan(only("prefix").narrow(row) for row in published.schedule()), published.price)
    assert dense / 1e15 == pytest.approx(207.89, abs=0.005)
    whole, _ = flops(plan(published.schedule()), published.price)
    assert whole / dense == pytest.approx(1.177, abs=5e-4)
