"""Ca2-VDM's shareable part: keys and values of the clean prefix, computed once a segment, leave the video as it is."""

import pytest
import torch

from baselines.ca2vdm import Ca2VDM
from engine.ledger import flops, plan
from engine.method import Original
from tests.tiny import LONG, SHORT, build, video

STEADY = {"attention": "block_causal", "frames": LONG}


@pytest.mark.parametrize("changes", [{"addnoise": 0}, {"overlap_noise": "segment"}, {"addnoise": 0, "ar_step": 0}])
def test_shared_keys_and_values_give_the_originals_video(changes):
    model, ledger = build(**STEADY, **changes), []
    method = Ca2VDM()
    method.check(model)
    shared = video(model, method, ledger=ledger)
    torch.testing.assert_close(shared, video(model, Original()), atol=1e-5, rtol=0)
    assert [(entry.segment, entry.kept) for entry in ledger if entry.kept[1]] == [(1, (6, 10))]
    assert {entry.slots for entry in ledger} == {(0, 10), (10, 16)} and {e.seen for e in ledger} == {(0, 10), (6, 16)}
    assert plan(map(method.narrow, model.schedule())) == ledger
    dense, masked = flops(ledger, model.price)
    whole = flops(plan(model.schedule()), model.price)
    assert dense < whole[0] and masked < whole[1]


def test_recomputed_at_every_step_it_is_the_original_bit_for_bit():
    model = build(**STEADY)
    method = Ca2VDM("recompute")
    method.check(model)
    assert torch.equal(video(model, method), video(model, Original()))


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"frames": LONG}, "model.attention=block_causal"),
        ({**STEADY}, "new noise is added to the overlap at every row.*model.overlap_noise=segment or model.addnoise=0"),
        ({**STEADY, "frames": SHORT}, "one segment.*model.frames above model.base_frames"),
    ],
)
def test_where_there_is_nothing_to_share_it_is_refused_with_what_to_change(changes, told):
    with pytest.raises(ValueError, match=told):
        Ca2VDM().check(build(**({"overlap_noise": "segment"} if changes.get("frames") == SHORT else {}), **changes))
    with pytest.raises(ValueError, match="shared, recompute, got 'once'"):
        Ca2VDM("once")
