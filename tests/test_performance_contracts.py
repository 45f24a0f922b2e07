"""What speed rests on, as far as a test can hold it: bytes kept, round trips to the host, equality with the stock."""

import os
import warnings
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from diffusers import SkyReelsV2Transformer3DModel

from baselines.adacache import AdaCache
from baselines.delta_dit import DeltaDiT
from baselines.taylorseer import TaylorSeer
from baselines.teacache import TeaCache
from baselines.uniform import Uniform
from benchmarks.abab import Spent, in_turn, peak_ratio, ratio, split
from benchmarks.realised import arms
from benchmarks.simulated_memory import SimulatedMemory
from benchmarks.stock import compare
from conf.schema import ConfigError
from engine.compile import CompileWarning, compile_parts
from engine.discrepancy import Discrepancy
from engine.free_memory import free_bytes
from engine.history import History
from engine.loop import decide, generate
from engine.method import Original
from engine.row import Mode
from engine.visit import Visit
from models.magi1.backbone import Magi1Backbone
from models.magi1.price import cache_bytes
from models.skyreels.backbone import SkyReelsV2
from models.skyreels.batch import MARGIN, activation_bytes, joined, together
from models.skyreels.forward import condition, forward, opening
from models.wan.blocks import read_text
from models.wan.branch import through
from scope.method import Scope
from scope.predictors import ANCHORS
from tests import far
from tests.test_magi1_backbone import TINY as MAGI1
from tests.tiny import ARCHITECTURE, LONG, TINY, build, texts_of, video

FETCHES = ("tolist", "item", "numpy", "cpu", "__bool__", "__float__", "__int__", "__index__")


@pytest.fixture(scope="module")
def model():
    return build(steps=8)


@contextmanager
def fetched():
    """Counts all transfers of a tensor's value to the host."""
    seen: Counter[str] = Counter()

    def counted(name):
        real = getattr(torch.Tensor, name)

        def fetch(self, *args, **kwargs):
            seen[name] += 1
            return real(self, *args, **kwargs)

        return mock.patch.object(torch.Tensor, name, fetch)

    patches = [counted(name) for name in FETCHES]
    for patch in patches:
        patch.start()
    try:
        yield seen
    finally:
        for patch in patches:
            patch.stop()


def nbytes(tensors):
    return sum(t.untyped_storage().nbytes() for t in tensors)


# --- memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("predictor", ["taylor1", "newton2", "hicache", "foca", "spectrum"])
@pytest.mark.parametrize("signal", ["time_projection", "latent"])
def test_scope_keeps_a_latent_for_every_order_and_its_signal_and_nothing_else(model, predictor, signal):
    scope = Scope(0.2, 0.6, predictor=predictor, signal=signal)
    latents = video(model, scope)
    one = latents.nbytes // len(latents)
    slots = max(segment.length for segment in model.settings.segments)
    width = model.transformer.config.num_attention_heads * model.transformer.config.attention_head_dim
    last_signal = {"time_projection": 6 * width * 4, "latent": one}[signal]
    assert nbytes(scope.state()) == slots * (ANCHORS[predictor] * one + last_signal)


def test_a_history_holds_its_ring_and_does_not_hold_what_was_pushed():
    history, value = History(3), torch.randn(4, 2, 8)
    for level in range(7):
        history.push(range(4), [float(level)] * 4, value)
    assert nbytes(history.tensors()) == 3 * value.nbytes
    assert all(held.data_ptr() != value.data_ptr() for held in history.tensors())


def test_hidden_states_of_finished_chunks_are_not_kept():
    """8 chunks pass through a window of 4 (2 slots each). The duplicate of the oldest chunk has its own memory."""
    model = Magi1Backbone(replace(MAGI1, frames=64), torch.device("cpu"))
    model.load()
    method = TaylorSeer(3.0, order=1)
    generate(model, method, model.conditioning("a fox", model.texts(["a fox"])), 0, [])
    assert model.plan.chunks == 8
    sites, hidden = model.depth * 2, 6 * 32 * 4  # tokens of a slot x width x float32
    assert nbytes(method.state()) == sites * 2 * (8 + 2) * hidden


def test_a_signal_is_remembered_by_value_not_by_keeping_the_rows_tensor():
    moved, signal = Discrepancy(), torch.ones(5, 1000)
    moved.remember([2, 3], signal[2:4])
    signal.zero_()
    assert nbytes(moved.tensors()) == 2 * 1000 * 4
    assert moved.measure([2, 3], torch.full((2, 1000), 1.5)) == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize(
    "changes,held",
    [({}, 7), ({"kv_range": [3, 2, 2, 1]}, 5), ({"kv_range": [6, 2, 2, 1]}, 6), ({"kv_range": [1], "window": 1}, 2)],
)
def test_magi1_holds_the_keys_of_what_is_still_seen_and_its_price_says_how_much(changes, held):
    """4 chunks are in flight, and one is computed again. The first quarter of the steps may attend to earlier
    chunks."""
    model = Magi1Backbone(replace(MAGI1, frames=56, **changes), torch.device("cpu"))
    model.load()
    text = model.conditioning("a fox", model.texts(["a fox"]))
    forgetful = generate(model, Original(), text, 0, [])
    cache = model._dispatcher.cache
    assert len(cache.layers[0]) == held <= model.plan.chunks == 7
    assert nbytes(cache.layers) == cache_bytes(model.config, model.settings.runtime, model.plan)
    model.plan.__dict__["oldest_held"] = (0,) * len(model.plan.forwards)  # remember everything instead
    assert model.plan.held_chunks == 7
    assert torch.equal(generate(model, Original(), text, 0, []), forgetful)


# --- round trips to the host ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signal", ["time_projection", "latent", "patch_embedding"])
@torch.inference_mode()
def test_a_decision_brings_one_vector_to_the_host_and_nothing_else_does(model, signal):
    text, seen = model.conditioning("a fox", texts_of(model, "a fox")), []
    rows = [(tau_cache, row) for tau_cache in (0.0, 1e9) for row in model.schedule()]  # predicts, then hands back
    for tau_cache, row in rows:
        if row.iteration == 0:
            scope = Scope(tau_cache, 1e9, max_skip=3, signal=signal, amplitude=1.0)
            latents = model.open(model.start(text, 0), row)
        row = scope.narrow(row)
        with fetched() as counts:
            plan = decide(model, scope, latents, row)
            visit = Visit(scope, row, model.depth, plan)
            latents = model.advance(latents, row, model.velocity(latents, row, visit))
        seen.append((plan[""][0][1].mode, dict(counts)))
    assert {mode for mode, _ in seen} == set(Mode)
    for mode, counts in seen:
        assert set(counts) <= {"tolist"} and counts.get("tolist", 0) <= 1, mode


@torch.inference_mode()
def test_the_original_brings_nothing_to_the_host_within_a_segment():
    model = build(frames=LONG)
    text = model.conditioning("a fox", texts_of(model, "a fox"))
    latents = model.start(text, 0)
    rows = [row for row in model.schedule() if row.segment == 1][:3]
    latents = model.open(latents, rows[0])
    with fetched() as counts:
        for row in rows:
            visit = Visit(Original(), row, model.depth, decide(model, Original(), latents, row))
            latents = model.advance(latents, row, model.velocity(latents, row, visit))
    assert not counts


def test_the_signal_is_computed_once_a_row(model):
    scope = Scope(0.2, 0.6)
    with mock.patch.object(model, "probe", wraps=model.probe) as probe:
        video(model, scope)
    assert probe.call_count == len(model.schedule())


# --- against the stock pipeline ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [TaylorSeer(1.0), DeltaDiT(1), TeaCache(0.0, fit="none", warmup=1)])
def test_what_no_text_enters_is_computed_once_for_all_branches_whatever_the_method_watches(model, method):
    """The result is also equal to the Original's, bit for bit."""
    attend, calls = F.scaled_dot_product_attention, []

    def counted(q, k, v, **more):
        calls.append(q.shape)
        return attend(q, k, v, **more)

    with mock.patch.object(F, "scaled_dot_product_attention", counted):
        expected, own = video(model, Original()), len(calls)
        found = video(model, method)
    assert torch.equal(found, expected)
    rows, depth = len(model.schedule()), model.depth
    assert own == len(calls) - own == rows * (2 * 2 * depth - 1)


class Stand:
    """A visit in which memory supplies the result of one branch of a block."""

    def __init__(self, memory):
        self.memory = memory

    def __call__(self, site, x, compute):
        return self.memory


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("gate", [torch.randn(3, 1, 8, generator=torch.Generator().manual_seed(1)), None])
def test_a_stand_in_joins_the_stream_as_a_computed_output_does_and_stays_as_it_is(dtype, own, gate):
    torch.manual_seed(2)
    h, memory = torch.randn(3, 5, 8).to(dtype), torch.randn(3, 5, 8).to(dtype)
    stream, held = h.clone(), memory.clone()
    computed = through("feed_forward", 0, h.clone(), gate, lambda x, _: memory, None, "cond", own)
    stood = through("feed_forward", 0, stream, gate, None, Stand(memory), "cond", own)
    assert stood.dtype is dtype and torch.equal(memory, held)
    torch.testing.assert_close(stood, computed, rtol=1e-6 if dtype is torch.float32 else 8e-3, atol=1e-6)
    assert torch.equal(stream, stood if own else h)


@pytest.mark.parametrize("settings", [TINY, MAGI1], ids=lambda settings: settings.name)
def test_a_forward_that_reads_a_methods_memory_does_not_write_to_it(settings):
    given, changed = [], []

    class Watched(AdaCache):
        def fill(self, site, part, mode, x):
            out = super().fill(site, part, mode, x)
            given.append((out, out.clone()))
            return out

        def decide(self, part, probe, branch=""):
            changed.extend(not torch.equal(now, then) for now, then in given)
            given.clear()
            return super().decide(part, probe, branch)

    model = (SkyReelsV2 if settings is TINY else Magi1Backbone)(settings, torch.device("cpu"))
    model.load()
    text = model.conditioning("a fox", model.texts(["a fox"]))
    generate(model, Watched(codebook=[], rates=[3], cooldown=0), text, 0, [])
    assert len(changed) > 20 and not any(changed)


@pytest.mark.parametrize("attention", ["full", "block_causal"])
def test_the_comparison_with_the_stock_pipeline_finds_equal_latents(attention):
    model = build(attention=attention, addnoise=0)
    found = compare(model, model.conditioning("a fox", texts_of(model, "a fox")), rounds=1, seed=0)
    assert found["max_abs_error"] <= (1e-6 if attention == "full" else 1e-5) and found["largest_latent"] > 1
    assert found["ratio"] > 0 and found["cpu_ratio"] > 0 and [len(runs) for runs in found["runs"].values()] == [1, 1]


def test_folding_the_padding_changes_the_video_by_no_more_than_rounding():
    kinds = [build(addnoise=0, fold_padding=fold) for fold in (False, True)]
    one, other = (video(model, Original(), prompt="a") for model in kinds)
    assert 0 < (one - other).abs().max() <= 1e-4


# --- batching ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"fold_padding": True}, {"attention": "block_causal", "frames": LONG}])
def test_branches_in_one_batch_are_the_branches_one_by_one(changes):
    both = [build(batch_guidance=choice, **changes) for choice in ("always", "never")]
    batched, alone = (video(model, Original(), prompt="a fox") for model in both)
    torch.testing.assert_close(batched, alone, atol=1e-5, rtol=0)
    assert both[0]._batched and not both[1]._batched


def test_a_batch_that_would_not_fit_is_refused_before_it_is_tried(monkeypatch):
    need = activation_bytes(ARCHITECTURE, 10 * 2 * 3, 2, 4, TINY.text_length)
    monkeypatch.setattr("models.skyreels.batch.free_bytes", lambda device: int(need / MARGIN) - 10)
    with pytest.raises(ValueError, match=r"always: 2 branches of 60 tokens need 0\.00 GB .* use batch_guidance=auto"):
        build(batch_guidance="always")
    assert not build(batch_guidance="auto")._batched
    monkeypatch.setattr("models.skyreels.batch.free_bytes", lambda device: int(need / MARGIN) + 10)
    assert build(batch_guidance="auto")._batched


def test_the_size_of_a_batch_is_that_of_its_widest_moment():
    """By hand, w = 24 and f = 32: (7 x 4 + 8) 24 = 864 bytes a token in attention, 4 (5 x 24 + 2 x 32) = 736 inside
    the feed-forward; 48 for its rotation; 2 blocks with keys and values of 8 x 24 x 4 bytes, twice for each branch."""
    assert activation_bytes(ARCHITECTURE, 60, 2, 4, 8) == 2 * 60 * 864 + 60 * 48 + 2 * 2 * 2 * 2 * 768
    full = {"num_attention_heads": 12, "attention_head_dim": 128, "ffn_dim": 8960, "num_layers": 30}
    assert activation_bytes(full, 51_000, 2, 2, 512) == pytest.approx(5.64e9, rel=0.01)  # counted without weights


@pytest.mark.parametrize("ffn", [64, 640], ids=["attention is widest", "the feed-forward is widest"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("batched", [True, False], ids=["batched", "in turn"])
def test_the_size_of_a_batch_is_what_a_forward_takes(batched, precision, ffn):
    """A forward of the released class on tensors without data, every live byte counted."""
    architecture = ARCHITECTURE | {"num_attention_heads": 4, "attention_head_dim": 32, "ffn_dim": ffn}
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    branches, slots, height, width, length = 1 + batched, 10, 32, 48, 16
    with torch.device("meta"):
        model = SkyReelsV2Transformer3DModel(**architecture).to(dtype)
        latents = torch.empty(slots, 16, height, width, dtype=dtype)
        embedding = torch.empty(1, length, architecture["text_dim"], dtype=dtype)
        steps = torch.empty(slots)
    with (
        mock.patch.object(F, "scaled_dot_product_attention", lambda q, *_, **__: torch.empty_like(q)),  # as flash does
        torch.inference_mode(),
        SimulatedMemory(device="meta") as memory,
    ):
        texts = [read_text(model, embedding) for _ in range(branches)]
        when = condition(model, steps, 24, dtype)
        begun = opening(model, latents, when, 0, ("cond", "uncond")[:branches])
        if batched:
            together(model, latents, when, joined(texts), 0, begun)
        else:
            forward(model, latents, when, texts[0], begun=begun)
    need = activation_bytes(architecture, slots * height * width // 4, branches, dtype.itemsize, length)
    assert 0.97 * need < memory.peak < need / MARGIN


def test_free_memory_is_some_of_what_the_machine_has():
    assert 0 < free_bytes(torch.device("cpu")) <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


# --- compiling --------------------------------------------------------------------------------------------------------


def test_what_cannot_be_compiled_runs_uncompiled_and_says_so():
    plain = build()
    with (
        mock.patch.object(torch, "compile", side_effect=RuntimeError("no compiler here\nat all")),
        pytest.warns(CompileWarning, match="ffn runs uncompiled on cpu: RuntimeError: no compiler here$"),
    ):
        model = build(compile=True)
    assert torch.equal(video(model, Original()), video(plain, Original()))


@pytest.mark.slow
@pytest.mark.parametrize(("build", "video"), [(build, video), (far.build, far.video)], ids=["skyreels", "far"])
def test_a_compiled_model_makes_the_plain_ones_video_up_to_rounding(build, video):
    plain = build()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model = build(compile=True)
    refused = [str(one.message) for one in told if issubclass(one.category, CompileWarning)]
    if refused:
        pytest.skip(refused[0])
    assert all(isinstance(block.ffn, torch._dynamo.OptimizedModule) for block in model.transformer.blocks)
    for method in (Original(), Uniform(2.0)):
        wanted = video(plain, method)
        assert 0 < float((video(model, method) - wanted).norm() / wanted.norm()) < 1e-5


def test_all_blocks_or_none_are_compiled():
    blocks = build().transformer.blocks
    before = [block.ffn for block in blocks]
    calls = iter([lambda x: x, None])

    def second_fails(part, dynamic):
        made = next(calls)
        if made is None:
            raise RuntimeError("the second")
        return torch.nn.Identity()

    with mock.patch.object(torch, "compile", second_fails), warnings.catch_warnings():
        warnings.simplefilter("ignore", CompileWarning)
        assert compile_parts(blocks, "ffn", torch.zeros(1, 2, 24)) == 0.0
    assert [block.ffn for block in blocks] == before


# --- the measuring itself ---------------------------------------------------------------------------------------------


def test_arms_take_turns():
    order = []
    spent = in_turn({k: lambda k=k: order.append(k) for k in "ab"}, 3, torch.device("cpu"))
    assert order == list("ababab") and all(len(runs) == 3 for runs in spent.values())
    with pytest.raises(ValueError, match="rounds=0; want at least 1"):
        in_turn({}, 0, torch.device("cpu"))


def test_ratios_are_geometric_means_of_rounds():
    spent = {"a": [Spent(2, 1, 30), Spent(8, 1, 10)], "b": [Spent(1, 2, 20), Spent(1, 2, 20)]}
    assert ratio(spent, "a", "b") == pytest.approx(4)
    assert ratio(spent, "a", "b", "cpu_seconds") == pytest.approx(0.5)
    assert peak_ratio(spent, "a", "b") == 1.5


def test_a_benchmarks_own_arguments_are_told_from_the_menus():
    own, rest = split(["model=x", "rounds=3", "model.steps=2"], {"rounds": "2", "seed": "0"})
    assert own == {"rounds": "3", "seed": "0"} and rest == ["model=x", "model.steps=2"]


def test_settings_of_one_of_several_methods_reach_that_one_and_what_is_wrong_is_said_before_any_is_timed():
    tiny, both = ["model=skyreels_tiny", "speed=none"], ["flowcache", "bwcache"]
    _, base, (flowcache, bwcache) = arms(both, [*tiny, "flowcache.threshold=0.125", "bwcache.threshold=0.25"])
    assert (flowcache[1].threshold, bwcache[1].threshold) == (0.125, 0.25)
    assert bwcache[0] is base is not flowcache[0] and not hasattr(base, "transformer")
    with pytest.raises(ConfigError, match=r"method.threshold has no value"):
        arms(both, [*tiny, "bwcache.threshold=0.25"])
