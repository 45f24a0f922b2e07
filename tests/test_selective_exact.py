"""Exact selective computation: the Original's video under block-causal attention, from fewer slots run."""

from dataclasses import replace

import pytest
import torch

from baselines.composite import Composite
from baselines.lossless import Lossless
from engine.forecast import newton, weights
from engine.ledger import flops, plan
from engine.method import Original
from engine.row import Mode
from models.skyreels.backbone import SkyReelsV2
from models.skyreels.overlap import noised_overlap
from models.skyreels.settings import SkyReels
from scope.method import Scope
from tests.test_selective import intervals, published  # noqa: F401  (a fixture)
from tests.tiny import CPU, LONG, SHORT, THREE, build, ledger_of, video

CLOSE = {"atol": 1e-5, "rtol": 0}
LOSSLESS = {"_target_": "baselines.lossless.Lossless"}


@pytest.fixture(scope="module")
def model():
    return build(frames=THREE, attention="block_causal", overlap_noise="segment")


@pytest.fixture(scope="module")
def original(model):
    return video(model, Original())


@pytest.fixture(scope="module")
def run(model):
    ledger = []
    return video(model, Lossless(), ledger=ledger), ledger


def test_the_video_is_the_originals(run, original):
    torch.testing.assert_close(run[0], original, **CLOSE)


@pytest.mark.parametrize(
    "changes",
    [
        {"frames": LONG},
        {"frames": LONG, "addnoise": 0, "guidance": 1.0},
        {"frames": LONG, "addnoise": 0, "ar_step": 0},
        {"frames": SHORT, "ar_step": 9},
        {"frames": LONG, "overlap_noise": "segment", "ar_step": 1},
    ],
    ids=str,
)
def test_it_is_on_every_schedule_also_where_the_overlap_is_noised_anew_at_every_row(changes):
    model = build(attention="block_causal", **changes)
    torch.testing.assert_close(video(model, Lossless()), video(model, Original()), **CLOSE)


def test_nothing_is_left_from_one_video_to_the_next(model, run):
    other = video(model, Lossless(), "a cat", seed=1)
    assert torch.equal(video(model, Lossless()), run[0]) and not torch.equal(other, run[0])


def test_only_active_blocks_run_and_every_other_one_once_when_it_has_settled(model, run):
    """Blocks of 2 slots; 6 steps of 5 blocks. Later segments have 3 new blocks, and the overlap of 2 blocks,
    computed once."""
    entries = run[1]
    assert all(entry.slots == entry.active for entry in entries)
    updates = sum((entry.slots[1] - entry.slots[0]) // 2 for entry in entries)
    kept = [(entry.segment, entry.kept) for entry in entries if entry.kept[1]]
    assert updates == 6 * (5 + 3 + 3)
    assert kept == [
        (0, (0, 2)),
        (0, (2, 4)),
        (0, (4, 6)),
        (0, (6, 8)),
        (1, (6, 10)),
        (1, (10, 12)),
        (1, (12, 14)),
        (2, (12, 16)),
        (2, (16, 18)),
        (2, (18, 20)),
    ]
    assert all(entry.seen == (entry.segment * 6, entry.slots[1]) for entry in entries)
    assert flops(entries, model.price)[1] < 0.75 * flops(plan(model.schedule()), model.price)[1]


def test_the_plan_tells_what_a_run_will_do(model, run):
    method = Lossless()
    assert plan(map(method.narrow, model.schedule())) == run[1]


def test_an_overlap_that_changes_at_every_row_settles_nothing_behind_it():
    model = build(frames=LONG, attention="block_causal")
    kept = [entry.segment for entry in ledger_of(model, Lossless()) if entry.kept[1]]
    assert kept == [0] * 4
    later = [entry for entry in ledger_of(model, Lossless()) if entry.segment == 1]
    assert {entry.slots[0] for entry in later} == {6}


def test_noise_on_the_overlap_is_drawn_once_a_segment_if_it_is_to_stay():
    def drawn(**changes):
        model = build(frames=LONG, **changes)
        rows = [row for row in model.schedule() if row.segment == 1][:2]
        model.start({b: torch.zeros(1, 8, 32) for b in model.branches}, 0)
        return [noised_overlap(torch.zeros(10, 16, 4, 6), row, model.settings, 0) for row in rows]

    first, second = drawn(overlap_noise="segment")
    assert torch.equal(first, second) and first[:4].abs().min() > 0
    first, second = drawn()
    assert not torch.equal(first, second)


SKIPS = {
    "cache": {"tau_cache": 9, "tau_predict": 9, "max_skip": 2},
    "predict": {"tau_cache": 0, "tau_predict": 9, "max_skip": 2},
    "unit": {"tau_cache": 0, "tau_predict": 0, "decide_per": "unit"},
}


@pytest.mark.parametrize("skips", SKIPS.values(), ids=SKIPS)
def test_scope_narrowed_exactly_makes_the_same_decisions_and_the_same_video(model, skips):
    """If a block finished in a skipped row, its keys and values are computed in the next forward. Both runs round
    differently, since the matrix library sums a part in another order than the whole. A prediction multiplies
    this error by the sum of its absolute weights: 4.6 for three anchors three steps apart, two steps after the last."""
    gain = sum(map(abs, weights(newton, (-6.0, -3.0, 0.0), 2.0))) if skips["tau_predict"] > skips["tau_cache"] else 1
    assert gain == pytest.approx(4.556, abs=1e-3) or gain == 1
    found = {}
    for selective in ("none", "exact"):
        ledger = []
        found[selective] = video(model, Scope(**skips, selective=selective), ledger=ledger), ledger
    torch.testing.assert_close(found["exact"][0], found["none"][0], atol=gain * CLOSE["atol"], rtol=0)
    modes = [[(e.iteration, e.unit, e.mode) for e in ledger if e.active] for _, ledger in found.values()]
    assert [m for _, _, m in modes[0]] == [m for _, _, m in modes[1]]
    cost = [flops(ledger, model.price) for _, ledger in found.values()]
    assert cost[1] < cost[0] and cost[1][1] < 0.8 * cost[0][1]


def test_as_part_of_a_composite_it_narrows_what_the_others_forward(model, original):
    never = {"_target_": "baselines.teacache.TeaCache", "threshold": 0, "fit": "none"}
    torch.testing.assert_close(video(model, Composite({"narrow": LOSSLESS, "tea": never})), original, **CLOSE)
    skips = {"_target_": "scope.method.Scope", **SKIPS["cache"], "selective": "none"}
    both, alone = (
        video(model, m)
        for m in (Composite({"narrow": LOSSLESS, "scope": skips}), Scope(**SKIPS["cache"], selective="exact"))
    )
    assert torch.equal(both, alone)
    by_unit = Composite({"narrow": LOSSLESS, "scope": {**skips, "decide_per": "unit"}})
    assert by_unit.grain == "unit" and torch.isfinite(video(model, by_unit)).all()


def test_a_guidance_branch_that_rests_catches_up_with_what_settled_meanwhile(model):
    """FasterCache's CFG cache skips the unconditional branch, which has its own keys and values."""
    cfg = {"_target_": "baselines.cfg_cache.CfgCache", "interval": 4, "begin": 0.0}
    parts = {"narrow": LOSSLESS, "cfg": cfg}
    ledger = []
    exact = video(model, Composite(parts), ledger=ledger)
    whole = {"_target_": "scope.method.Scope", "tau_cache": 0, "tau_predict": 0, "selective": "prefix"}
    torch.testing.assert_close(exact, video(model, Composite({"whole": whole, "cfg": cfg})), **CLOSE)
    kept = {branch: [e.iteration for e in ledger if e.branch == branch and e.kept[1]] for branch in model.branches}
    assert kept["cond"] != kept["uncond"]


@pytest.mark.parametrize("method", [Lossless(), Scope(0, 0, selective="exact")], ids=lambda m: type(m).__name__)
def test_under_full_attention_it_is_refused_with_what_to_change(method):
    with pytest.raises(
        ValueError, match=r"needs settled.*every frame attends to all others.*model.attention=block_causal"
    ):
        method.check(build(frames=SHORT))


def test_what_it_saves_of_the_published_setting(published):  # noqa: F811
    """Of 1000 block-forwards a branch 650 update and 12 are run to be kept: 53 of a window's first block, 153 of the
    next three, 150 of the last. FlowCache's sheet has what each costs under the mask, in TFLOP."""
    model = SkyReelsV2(replace(published.settings, attention="block_causal", overlap_noise="segment"), CPU)
    ledger = plan(map(Lossless().narrow, model.schedule()))
    ran = [(e.slots[1] - e.slots[0] + e.kept[1] - e.kept[0]) // 5 for e in ledger]
    assert sum(ran) == 53 + 3 * 153 + 150 and len(ledger) == 200
    assert all(entry.mode is Mode.RECOMPUTE for entry in ledger)
    whole, masked = (flops(entries, model.price)[1] for entries in (plan(model.schedule()), ledger))
    assert whole / 1e15 == pytest.approx(168.07, abs=0.005)
    sheet = (45.81, 64.98, 84.16, 103.34, 122.51)
    share = sum(n * cost for n, cost in zip((53, 153, 153, 153, 150), sheet, strict=True)) / (200 * sum(sheet))
    assert share == pytest.approx(0.706, abs=5e-4) and masked / whole == pytest.approx(share, abs=1e-3)


def test_settings_that_are_no_choice_are_named():
    with pytest.raises(ValueError, match=r"model.overlap_noise is one of row, segment, got 'video'"):
        SkyReels(overlap_noise="video")
    with pytest.raises(ValueError, match=r"selective is one of none, prefix, hull, exact"):
        Scope(0, 0, selective="all")
