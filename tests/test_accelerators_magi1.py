"""The same methods on MAGI-1, where chunks may decide apart and a clean refresh is never skipped."""

import pytest
import torch

from baselines.cfg_cache import CfgCache
from baselines.composite import Composite
from baselines.delta_dit import DeltaDiT
from baselines.first_block_cache import FirstBlockCache
from baselines.taylorseer import TaylorSeer
from engine.ledger import flops, plan
from engine.method import Original
from engine.row import Mode
from tests.test_magi1_backbone import _model, _video

PAIRS = {  # beside what the menu has (test_menu_identities): a setting that never skips, one that does
    "delta_dit, by chunk": (DeltaDiT(1, decide_per="unit"), DeltaDiT(2, blocks=0.7, decide_per="unit")),
    "taylorseer lite": (TaylorSeer(1, variant="lite"), TaylorSeer(3, 0, "lite", "segment")),
    "taylorseer, by chunk": (TaylorSeer(1, decide_per="unit"), TaylorSeer(2, decide_per="unit")),
    "first_block_cache, by chunk": (FirstBlockCache(0, decide_per="unit"), FirstBlockCache(0.3, decide_per="unit")),
}


@pytest.fixture(scope="module")
def model():
    return _model()


@pytest.fixture(scope="module")
def original(model):
    return _video(model, Original())


@pytest.mark.parametrize("never, skips", PAIRS.values(), ids=PAIRS)
def test_every_method_can_be_the_original_skips_cheaply_and_leaves_nothing_behind(model, original, never, skips):
    never.check(model)
    assert torch.equal(_video(model, never), original)
    ledger = []
    first = _video(model, skips, ledger=ledger)
    _video(model, skips, prompt="a cat", seed=1)
    assert torch.equal(_video(model, skips), first)
    assert torch.isfinite(first).all() and not torch.equal(first, original)
    assert flops(ledger, model.price)[0] < flops(plan(model.schedule()), model.price)[0]
    refreshing = {f.index for f in model.plan.forwards if f.refresh is not None}
    assert all(entry.mode is Mode.RECOMPUTE for entry in ledger if entry.iteration in refreshing)


def test_what_the_model_cannot_serve_is_refused(model):
    with pytest.raises(ValueError, match="needs guidance, which magi1 does not offer"):
        CfgCache().check(model)
    whole = {"_target_": "baselines.easycache.EasyCache", "threshold": 0.1}
    first = {"_target_": "baselines.first_block_cache.FirstBlockCache", "threshold": 0.1}
    with pytest.raises(ValueError, match="combine methods at blocks or their branches only"):
        Composite({"a": whole, "b": first}).check(model)
