"""Bounded keys and values on MAGI-1: the score checked by hand, kept entries, memory, price, and errors."""

import math
from dataclasses import replace

import pytest
import torch

from baselines.flowcache import FlowCache
from baselines.shared.kv_compression import importance, redundancy, score
from engine.ledger import flops, plan
from engine.method import Original
from models.magi1.backbone import Magi1Backbone
from models.magi1.cache import KVCache
from models.magi1.chunk_forward import Dispatcher
from models.magi1.config import ModelConfig, RuntimeConfig
from models.magi1.schedule import schedule
from models.magi1.settings import Magi1
from tests.test_magi1_backbone import ARCHITECTURE, TINY, _video

LONGER = replace(TINY, frames=64)  # eight chunks, six tokens a frame
RESTFUL = {"threshold": math.inf, "warmup": 2, "cooldown": 1}


def built(settings):
    model = Magi1Backbone(settings, torch.device("cpu"))
    model.load()
    return model


def softmax(*values):
    powers = [math.exp(v) for v in values]
    return [p / sum(powers) for p in powers]


def test_importance_by_hand():
    """Two heads of queries share one head of keys, d = 1: the larger of their two products counts, before the
    softmax."""
    keys = torch.tensor([1.0, 2.0, -1.0])[:, None, None]
    queries = torch.tensor([[1.0, -3.0], [0.5, 0.0]])[..., None]  # (n = 2, heads = 2, d = 1)
    first = softmax(1.0, 2.0, 3.0)  # max(1, -3), max(2, -6), max(-1, 3)
    second = softmax(0.5, 1.0, 0.0)
    mean = [(a + b) / 2 for a, b in zip(first, second, strict=True)]
    assert importance(keys, queries, window=1)[:, 0].tolist() == pytest.approx(mean)
    wide = [max(mean[:2]), max(mean), max(mean[1:])]
    assert importance(keys, queries, window=3)[:, 0].tolist() == pytest.approx(wide)


def test_looks_are_divided_by_the_root_of_the_width():
    keys, queries = torch.ones(2, 1, 4), torch.zeros(1, 1, 4)
    keys[1] = 3.0
    queries[:] = 0.5
    assert importance(keys, queries, 1)[:, 0].tolist() == pytest.approx(softmax(2 / 2, 6 / 2))


def test_redundancy_by_hand():
    """Two equal keys and one orthogonal key: the mean cosines (over all three) are 1/3, 1/3, 0."""
    keys = torch.tensor([[2.0, 0.0], [5.0, 0.0], [0.0, 1.0]])[:, None]
    assert redundancy(keys)[:, 0].tolist() == pytest.approx(softmax(1 / 3, 1 / 3, 0.0))


def test_redundancy_is_the_mean_similarity_to_every_other_key():
    keys = torch.randn(9, 2, 4, generator=torch.Generator().manual_seed(0))
    unit = keys / keys.norm(dim=-1, keepdim=True)
    alike = torch.einsum("agd,bgd->gab", unit, unit) - torch.eye(9)
    torch.testing.assert_close(redundancy(keys), alike.mean(-1).softmax(-1).T)


def test_score_weighs_the_two():
    keys, queries = torch.randn(5, 2, 4), torch.randn(3, 6, 4)
    for share in (0.0, 0.07, 1.0):
        expected = share * importance(keys, queries) - (1 - share) * redundancy(keys)
        torch.testing.assert_close(score(keys, queries, share), expected)


def test_each_head_keeps_its_own_tokens_and_unfinished_chunks_move_up():
    """Three chunks of two tokens, two heads of keys. As many keys as one chunk has must be dropped."""
    config = ModelConfig.from_dict({**ARCHITECTURE, "num_layers": 1, "params_dtype": "float32"})
    cache = KVCache(config, chunks=4, tokens=2, device="cpu", held=3, queries=1)
    for chunk in range(3):
        keys = torch.full((2, 2, 8), 10.0 * chunk)
        keys[1] += 1  # tokens 0, 1, 10, 11, 20, 21
        cache.write(0, chunk, keys, -keys)
    cache.notice(0, torch.zeros(2, 4, 8))
    worth = torch.tensor([[3.0, 0.0], [0.0, 2.0], [1.0, 0.0], [2.0, 9.0]])
    cache.compress(finished=2, written=3, rank=lambda keys, queries: worth)
    keys, values = cache.read(0, (0, 3))
    assert keys[..., 0].tolist() == [[0.0, 1.0], [11.0, 11.0], [20.0, 20.0], [21.0, 21.0]]
    assert torch.equal(values, -keys)
    cache.write(0, 3, torch.full((2, 2, 8), 30.0), torch.zeros(2, 2, 8))  # into the room that was made
    assert cache.read(0, (0, 4))[0][:, 0, 0].tolist() == [0.0, 11.0, 20.0, 21.0, 30.0, 30.0]


def test_without_a_rank_of_its_own_a_method_keeps_the_newest():
    worth = Original().rank(torch.zeros(6, 2, 4), torch.zeros(1, 4, 4))
    assert worth.shape == (6, 2) and worth.topk(2, dim=0).indices.sort(0).values.tolist() == [[4, 4], [5, 5]]


def test_room_for_every_chunk_changes_nothing():
    off, roomy = FlowCache(0.2, warmup=1), FlowCache(0.2, warmup=1, capacity=8)
    videos = [_video(built(method.reschedule(LONGER)), method) for method in (off, roomy)]
    assert off.reschedule(LONGER).kv_capacity == 0
    assert torch.equal(*videos)


@pytest.mark.parametrize("changes", [{"capacity": 5}, {"capacity": 6, "function": "stock"}], ids=str)
def test_a_bounded_memory_costs_less_and_never_reads_what_was_not_written(changes, monkeypatch):
    method = FlowCache(**RESTFUL, **changes)
    model, ledger = built(method.reschedule(LONGER)), []
    method.check(model)
    first = _video(model, method, ledger=ledger)
    assert sum(f.compresses > 0 for f in model.plan.forwards) >= 2
    held = sum(layer.numel() for layer in model._dispatcher.cache.layers)
    assert held * 8 == changes["capacity"] * sum(n.numel() for n in _whole(model)) and torch.isfinite(first).all()
    bounded, free = flops(ledger, model.price)[0], built(replace(model.settings, kv_capacity=0))
    assert bounded < flops(ledger, free.price)[0]
    empty = Dispatcher._empty_cache

    def poisoned(self):
        cache = empty(self)
        for layer in cache.layers:
            layer.fill_(math.nan)
        return cache

    monkeypatch.setattr(Dispatcher, "_empty_cache", poisoned)
    _video(model, method, prompt="a cat", seed=1)
    assert torch.equal(_video(model, method), first)


def _whole(model):
    tokens = 2 * (LONGER.height // 16) * (LONGER.width // 16)
    return KVCache(model.config, 8, tokens, "cpu").layers


def test_the_published_videos_bounded_memory():
    """240 frames, capacity 5 and 6: when chunks drop keys, and how many chunks of keys are attended to in all."""
    free = schedule(RuntimeConfig(noise2clean_kvrange=(), clean_refresh=False))
    for capacity, times in ((5, 5), (6, 4), (10, 0)):
        bounded = schedule(RuntimeConfig(noise2clean_kvrange=(), clean_refresh=False, kv_capacity=capacity))
        due = [f for f in bounded.forwards if f.compresses]
        assert len(due) == times and bounded.held_chunks == capacity
        assert [f.index for f in due] == [16 * (capacity + k) - 1 for k in range(times)]  # as a stage ends
        given_up = sum(f.dropped * len(f.chunks) for f in bounded.forwards)
        assert bounded.visible_chunks == free.visible_chunks - given_up
    assert free.held_chunks == 10


def test_dropped_keys_leave_the_price():
    settings = Magi1(frames=240, text_tokens=40, clean_refresh=False, architecture=ARCHITECTURE)
    model, bounded = (Magi1Backbone(replace(settings, kv_capacity=n), torch.device("cpu")) for n in (0, 5))
    full, less = (flops(plan(m.schedule()), m.price)[0] for m in (model, bounded))
    tokens = model.prices.tokens
    per_chunk = 2 * 2 * tokens * tokens * model.config.attention_width * model.config.num_layers
    dropped = sum(f.dropped * len(f.chunks) for f in bounded.plan.forwards)
    assert full - less == pytest.approx(per_chunk * dropped)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: FlowCache(0.1, capacity=-1), "capacity must lie in"),
        (lambda: FlowCache(0.1, importance=1.5), "importance must lie in"),
        (lambda: FlowCache(0.1, queries="video"), "queries is one of token, frame, chunk"),
        (lambda: FlowCache(0.1, capacity=4).reschedule(LONGER).plan, "kv_capacity=4 is too small .* want 5 or more"),
        (lambda: FlowCache(0.1, capacity=5, function="stock").reschedule(LONGER).plan, "want 6 or more"),
        (lambda: FlowCache(0.1, capacity=5).reschedule(replace(LONGER, kv_range=[4, 3, 2, 1])), r"set kv_range=\[\]"),
    ],
)
def test_a_capacity_that_cannot_be_is_refused_with_what_can(make, words):
    with pytest.raises(ValueError, match=words):
        make()
