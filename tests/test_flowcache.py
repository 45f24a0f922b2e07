"""FlowCache on MAGI-1: the released code's own decisions and videos, identities, and what is refused."""

import json
import math
from pathlib import Path

import pytest
import torch

from baselines.composite import Composite
from baselines.flowcache import FlowCache
from engine.ledger import flops, plan
from engine.loop import generate
from engine.method import Original
from engine.row import Mode
from models.magi1.backbone import Magi1Backbone
from models.magi1.recorded import Recording
from models.magi1.settings import Magi1
from models.magi1.text import SpecialTokens
from tests.test_magi1_backbone import TINY, _model, _video

FOLDER = Path(__file__).parent / "fixtures" / "magi1"
NOTES = json.loads((FOLDER / "reuse_baselines.json").read_text())
RELEASED = {
    "flow": FlowCache(0.05, warmup=2),
    "flow_keepnear": FlowCache(0.05, warmup=2, nearly_clean=True),
    "flow_kvcompress5": FlowCache(0.05, warmup=2, capacity=5),
    "flow_never_reuse": FlowCache(0.0, warmup=0, nearly_clean=True),
    "flow_never_reuse_discardnear": FlowCache(0.0, warmup=0),
}


@pytest.fixture(scope="module")
def recording():
    return Recording(FOLDER)


def recorded(recording, method):
    """(latents, ledger) of `method` on the recorded model and noise: 16 steps, the whole history visible."""
    noise = recording.tensors("reuse_baselines")["noise"][0].transpose(0, 1)

    class Recorded(Magi1Backbone):
        config = recording.config

        def open(self, latents, row):
            return super().open(latents, row).copy_(noise)

    settings = Magi1(frames=48, height=64, width=64, steps=16, chunk=2, precision="fp32")
    model = Recorded(method.reschedule(settings), torch.device("cpu"))
    method.check(model)
    model.transformer, inputs = recording.model, recording.tensors("rollout_inputs")
    names = ("other_tokens", "caption_token", "logo_token")
    model.tokens = SpecialTokens.of(*(inputs[f"special.{name}"] for name in names))
    caption = inputs["caption_embs"][0, 0][inputs["emb_masks"][0] > 0]
    ledger = []
    return generate(model, method, caption, 0, ledger), ledger


@pytest.mark.parametrize("name", RELEASED)
def test_the_released_decisions_scores_and_video_come_out(recording, name):
    latents, ledger = recorded(recording, RELEASED[name])
    theirs = recording.tensors("reuse_baselines")[f"{name}.final_x"]
    assert float((latents.transpose(0, 1)[None] - theirs).abs().max()) <= 1e-5
    reused = [(e.iteration, str(e.unit)) for e in ledger if e.mode is Mode.CACHE]
    notes = NOTES[name]
    decided = enumerate(notes["decisions"])
    assert reused == [(i, chunk) for i, chunks in decided for chunk, reuse in chunks.items() if reuse]
    totals = {(i, c): a for i, chunks in enumerate(notes["accumulated_after_decision"]) for c, a in chunks.items()}
    for entry in ledger:
        after = entry.score if entry.mode is Mode.CACHE else 0.0
        assert after == pytest.approx(totals[entry.iteration, str(entry.unit)], abs=1e-5)
    assert len(ledger) == len(totals)


OFF = {
    "threshold 0": FlowCache(0, function="stock"),
    "threshold 0, velocity": FlowCache(0, "velocity", function="stock", warmup=1),
    "threshold 0, residual": FlowCache(0, "residual", function="stock", warmup=1),
    "warm-up only": FlowCache(math.inf, function="stock", warmup=99),
    "a polynomial below zero": FlowCache(0, function="stock", fit="wan_retention", warmup=0),
}
ON = {
    "increment": FlowCache(0.2, warmup=1),
    "velocity": FlowCache(0.2, "velocity", warmup=1),
    "residual": FlowCache(0.2, "residual", warmup=1),
    "stock function": FlowCache(0.2, warmup=1, function="stock"),
}


def rescheduled(method):
    model = Magi1Backbone(method.reschedule(TINY), torch.device("cpu"))
    model.load()
    method.check(model)
    return model


@pytest.fixture(scope="module")
def original():
    return _video(_model(), Original())


@pytest.mark.parametrize("method", OFF.values(), ids=OFF)
def test_on_the_stock_function_a_threshold_of_0_is_the_original_bit_for_bit(method, original):
    assert method.reschedule(TINY) == TINY
    assert torch.equal(_video(rescheduled(method), method), original)


@pytest.mark.parametrize("method", ON.values(), ids=ON)
def test_it_saves_flops_by_chunk_and_leaves_nothing_behind(method, original):
    model, ledger = rescheduled(method), []
    first = _video(model, method, ledger=ledger)
    _video(model, method, prompt="a cat", seed=1)
    assert torch.equal(_video(model, method), first)
    assert torch.isfinite(first).all() and not torch.equal(first, original)
    assert flops(ledger, model.price)[0] < flops(plan(model.schedule()), model.price)[0]
    modes = {}
    for entry in ledger:
        modes.setdefault(entry.iteration, set()).add(entry.mode)
    assert any(len(each) == 2 for each in modes.values())  # chunks of one forward differ


def test_no_chunk_reuses_before_it_is_warm_or_at_the_last_step():
    model, ledger = rescheduled(FlowCache(math.inf)), []
    _video(model, FlowCache(math.inf, warmup=3, cooldown=2), ledger=ledger)
    assert {e.mode for e in ledger if e.step < 3 or e.step >= TINY.steps - 2} == {Mode.RECOMPUTE}
    assert {e.mode for e in ledger if 3 <= e.step < TINY.steps - 2} == {Mode.CACHE}


def test_the_released_function_alone_is_another_function(original):
    video = _video(rescheduled(FlowCache(0)), FlowCache(0))
    assert torch.isfinite(video).all() and not torch.allclose(video, original, atol=1e-3)


def test_the_increment_is_not_rescaled_and_the_velocity_is():
    """If a chunk reuses in every step from step 1 on, each step adds its first increment, or follows its first
    velocity."""
    for reuse in ("increment", "velocity"):
        method = FlowCache(math.inf, reuse, warmup=1)
        model, seen = rescheduled(method), []
        advance = model.advance

        def watched(latents, row, velocity, advance=advance, seen=seen):
            after = advance(latents, row, velocity)
            if row.slots.start == 0 and row.step[0] < 4:
                seen.append((after[0] - latents[0], row.sigma_next[0] - row.sigma[0]))
            return after

        model.advance = watched
        _video(model, method)
        (first, length), *others = seen
        for moved, own in others:
            scale = 1.0 if reuse == "increment" else own / length
            torch.testing.assert_close(moved, first * scale, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"threshold": -1}, "threshold must lie in"),
        ({"threshold": math.nan}, "got nan"),
        ({"reuse": "block"}, "reuse is one of"),
        ({"fit": "own"}, "needs coefficients"),
        ({"warmup": -1}, "warmup must"),
        ({"function": "theirs"}, "function is one of released, stock"),
    ],
)
def test_settings_that_make_no_sense_are_refused_in_words(changes, words):
    with pytest.raises(ValueError, match=words):
        FlowCache(**{"threshold": 0.1, **changes})


def test_a_signal_that_the_model_does_not_have_is_refused_with_those_it_has():
    with pytest.raises(ValueError, match="needs clock, which magi1 does not offer"):
        FlowCache(0.1, signal="clock").check(_model())


def test_within_its_velocity_no_other_method_stands_on_this_model():
    inner = {"_target_": "baselines.first_block_cache.FirstBlockCache", "threshold": 0.1, "decide_per": "unit"}
    outer = {"_target_": "baselines.flowcache.FlowCache", "threshold": 0.1}
    with pytest.raises(
        ValueError, match=r"no sites inside a forward|a forward of a part of the units has no sites inside"
    ):
        Composite({"outer": outer, "inner": inner}).check(_model())
    Composite({"outer": inner, "branches": _branches()}).check(_model())  # blocks and their branches may


def test_a_part_of_a_composite_ranks_keys_for_the_whole():
    flow = {"_target_": "baselines.flowcache.FlowCache", "threshold": 0.0, "capacity": 5, "function": "stock"}
    both = Composite({"flow": {**flow, "importance": 1.0}, "branches": _branches()})
    keys, queries = torch.randn(6, 2, 8), torch.randn(2, 4, 8)
    assert torch.equal(both.rank(keys, queries), FlowCache(0, importance=1.0).rank(keys, queries))
    assert both.reschedule(TINY).kv_capacity == 5


def _branches():
    return {"_target_": "baselines.taylorseer.TaylorSeer", "interval": 2, "decide_per": "unit"}
