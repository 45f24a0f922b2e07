"""MAGI-1's transformer and dispatch: identities that hold for any legal configuration, not only the recorded one."""

from dataclasses import replace

import pytest
import torch

from models.magi1.cache import KVCache
from models.magi1.checkpoint import empty_dit, initialise, random_dit
from models.magi1.chunk_forward import Dispatcher, from_chunks, rollout, to_chunks
from models.magi1.config import ModelConfig, RuntimeConfig
from models.magi1.dit import Magi1DiT, add, stays_float32
from models.magi1.schedule import schedule

TINY = ModelConfig(
    num_layers=3,
    hidden_size=32,
    ffn_hidden_size=64,
    num_attention_heads=4,
    num_query_groups=2,
    kv_channels=8,
    caption_channels=12,
    params_dtype="float32",
)
SHAPES = {
    "square": (TINY, (4, 4)),
    "odd and oblong": (TINY, (6, 10)),  # 3 × 5 patches
    "one patch high": (TINY, (2, 8)),
    "wide heads, one group": (replace(TINY, kv_channels=16, num_query_groups=1, num_attention_heads=3), (4, 6)),
    "gated, twice fed, one layer": (
        replace(TINY, num_layers=1, gated_linear_unit=True, half_channel_vae=True, in_channels=32, out_channels=32),
        (4, 4),
    ),
}
FAST = RuntimeConfig(
    num_frames=40, video_size_h=32, video_size_w=48, chunk_width=2, num_steps=8, noise2clean_kvrange=()
)


@pytest.fixture(scope="module", params=SHAPES.values(), ids=SHAPES)
def shaped(request):
    config, size = request.param
    return random_dit(config, seed=1), size


@pytest.fixture(scope="module")
def model():
    return random_dit(TINY, seed=2)


def _noise(chunks, size, seed=0, channels=16, width=2):
    return torch.randn(chunks, channels, width, *size, generator=torch.Generator().manual_seed(seed))


def _texts(n, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(3 + i % 2, 12, generator=generator) for i in range(n)]


def _dispatcher(model, settings, prefix=None):
    plan = schedule(settings, 0 if prefix is None else prefix.shape[1])
    return Dispatcher(model, settings, plan, _texts(plan.chunks - plan.given), prefix)


def _video(model, settings, prefix=None):
    dispatcher = _dispatcher(model, settings, prefix)
    noise = _noise(dispatcher.schedule.chunks, settings.latent_size, width=settings.chunk_width)
    *_, (_, _, latents) = rollout(dispatcher, noise)
    return latents


@torch.no_grad()
def test_reading_clean_chunks_one_by_one_is_reading_them_together(shaped):
    model, size = shaped
    n, x = 4, _noise(4, size)
    times, texts, tokens = torch.tensor([0.9, 0.9, 0.4, 0.1]), _texts(4), 2 * size[0] * size[1] // 4
    visible = [(0, 1), (0, 2), (1, 3), (0, 4)]
    together = model(x, times, texts, range(n), visible, step_length=4.0)
    cache = KVCache(model.config, n, tokens, "cpu", fill=float("nan"))  # what is not written must not be read
    alone = [
        model(x[j : j + 1], times[j : j + 1], texts[j : j + 1], [j], [visible[j]], cache=cache, step_length=4.0)
        for j in range(n)
    ]
    torch.testing.assert_close(torch.cat(alone), together, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_chunk_sees_its_range_and_nothing_else(shaped):
    model, size = shaped
    x, times, texts = _noise(4, size), torch.full((4,), 0.5), _texts(4)
    visible = [(0, 1), (0, 2), (2, 3), (1, 4)]
    before = model(x, times, texts, range(4), visible)
    changed = x.clone()
    changed[0] += 1
    after = model(changed, times, texts, range(4), visible)
    same = [torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert same[2] and not same[0] and not same[1]
    # chunk 3 sees chunk 1 of this layer's input, which saw chunk 0: information arrives through the layers
    assert same[3] == (model.config.num_layers == 1)


@torch.no_grad()
def test_place_in_the_video_counts_and_text_counts(model):
    x, times, visible = _noise(2, (4, 6)), torch.tensor([0.6, 0.2]), [(0, 1), (0, 2)]
    base = model(x, times, _texts(2), [0, 1], visible, slots=[0, 1])
    apart = model(x, times, _texts(2), [0, 3], visible, slots=[0, 1])
    other = model(x, times, _texts(2, seed=9), [0, 1], visible, slots=[0, 1])
    assert torch.equal(base[0], apart[0]) and not torch.allclose(base[1], apart[1])
    assert not torch.allclose(base, other)


@torch.no_grad()
def test_branches_of_a_layer_add_up_to_the_layer_for_any_of_its_chunks(model):
    x, times, n = _noise(3, (4, 6)), torch.tensor([0.7, 0.4, 0.1]), 3
    cache = KVCache(TINY, n, 12, "cpu")
    call = model.prepare(x.shape, times, _texts(n), range(n), [(0, 1), (0, 2), (0, 3)], range(n), cache, 4.0)
    hidden = model.embed(x)
    layer = model.layers[0]
    whole = layer(hidden, call)
    gates = layer.gates(call)
    attended = add(hidden, layer.gate_attention([layer.mix(hidden, call)], gates[0]))
    inner = layer.mlp(attended)
    assert torch.equal(add(attended, layer.gate_mlp([inner], gates[1])), whole)
    assert torch.equal(add(attended, layer.gate_mlp([inner[:1], inner[1:]], gates[1])), whole)  # a stand-in beside them
    some = layer(hidden[[0, 2]], call.take([0, 2]))  # chunk 1 is read from the cache, as just written
    torch.testing.assert_close(some, whole[[0, 2]], atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="without a cache"):
        model.prepare(x.shape, times, _texts(n), range(n), [(0, 1)] * n, range(n)).take([0])


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"noise2clean_kvrange": (4, 3, 2, 1), "clean_chunk_kvrange": 2},
        {"window_size": 1},
        {"num_steps": 12},
        {"num_frames": 36},
        {"distill": False, "cfg_number": 3},
    ],
    ids=str,
)
def test_a_video_never_reads_a_key_that_was_not_written(model, change, monkeypatch):
    settings = FAST.with_(**change)
    clean = _video(model, settings)
    monkeypatch.setattr(
        Dispatcher,
        "_empty_cache",
        lambda self: KVCache(TINY, self.schedule.chunks, 12, "cpu", fill=float("nan")),
    )
    poisoned = _video(model, settings)
    assert torch.isfinite(clean).all() and torch.equal(clean, poisoned)


@pytest.mark.parametrize("passes", [1, 3])
@torch.no_grad()
def test_computing_all_chunks_by_name_is_the_forward_itself(model, passes):
    settings = FAST.with_(distill=passes == 1, cfg_number=passes)
    one, two = _dispatcher(model, settings), _dispatcher(model, settings)
    noise = _noise(one.schedule.chunks, settings.latent_size)
    for forward in one.schedule.forwards[:12]:
        whole = one.velocity(noise, forward)
        assert torch.equal(two.velocity(noise, forward, chunks=list(forward.chunks)), whole)


@torch.no_grad()
def test_chunks_left_out_are_seen_as_last_computed(model):
    dispatcher = _dispatcher(model, FAST)
    noise = _noise(dispatcher.schedule.chunks, FAST.latent_size)
    forward = next(f for f in dispatcher.schedule.forwards if len(f.chunks) == 3)
    whole = dispatcher.velocity(noise, forward)
    youngest = dispatcher.velocity(noise, forward, chunks=[2])  # older ones' keys are those just written
    torch.testing.assert_close(youngest[0], whole[2], atol=1e-5, rtol=0)
    moved = noise.clone()
    moved[0] += 1
    assert torch.equal(dispatcher.velocity(moved, forward, chunks=[2])[0], youngest[0])
    dispatcher.velocity(moved, forward, chunks=[0])
    assert not torch.allclose(dispatcher.velocity(moved, forward, chunks=[2])[0], youngest[0])
    with pytest.raises(ValueError, match="not in flight"):
        dispatcher.velocity(noise, forward, chunks=[4])


@pytest.mark.parametrize("passes", [1, 3])
@torch.no_grad()
def test_a_forward_that_computes_nothing_still_reads_the_finished_chunk_again(model, passes):
    settings = FAST.with_(distill=passes == 1, cfg_number=passes)
    full, idle = _dispatcher(model, settings), _dispatcher(model, settings)
    forwards = full.schedule.forwards
    noise = _noise(full.schedule.chunks, settings.latent_size)
    refreshing = next(f for f in forwards if f.refresh is not None)
    for dispatcher, chunks in ((full, None), (idle, [])):
        for forward in forwards[: refreshing.index]:
            dispatcher.velocity(noise, forward)
        out = dispatcher.velocity(noise, refreshing, chunks=chunks)
    assert out.numel() == 0
    for ours, theirs in zip(idle.cache.layers, full.cache.layers, strict=True):
        torch.testing.assert_close(ours[refreshing.refresh], theirs[refreshing.refresh], atol=1e-5, rtol=0)


def test_two_videos_of_one_dispatcher_are_equal(model):
    dispatcher = _dispatcher(model, FAST)
    noise = _noise(dispatcher.schedule.chunks, FAST.latent_size)
    first, second = ([v for _, _, v in rollout(dispatcher, noise)][-1] for _ in range(2))
    assert torch.equal(first, second)


def test_given_frames_condition_the_video_and_are_kept(model):
    prefix = _noise(1, FAST.latent_size, seed=7, width=5)[0]
    ours = _video(model, FAST, prefix)
    other = _video(model, FAST, prefix + 1)
    assert not torch.allclose(ours[2:], other[2:])
    dispatcher = _dispatcher(model, FAST, prefix)
    pinned = dispatcher.chunk(torch.zeros_like(ours), 2)
    assert torch.equal(pinned[:, :1], prefix[:, 4:]) and not pinned[:, 1:].any()
    with pytest.raises(ValueError, match="the prefix has 5 latent frames, want 3"):
        Dispatcher(model, FAST, schedule(FAST, 3), None, prefix)


def test_guidance_weights_fall_with_time(model):
    dispatcher = _dispatcher(model, FAST.with_(distill=False, cfg_number=3))
    assert dispatcher.guidance(0.0) == (1.5, 7.5)
    assert dispatcher.guidance(0.25) == (1.5, 7.5)
    assert dispatcher.guidance(0.30000001192092896) == (1.0, 0.0)
    with pytest.raises(ValueError, match="one per chunk"):
        Dispatcher(model, FAST, schedule(FAST), _texts(2))


def test_chunks_and_videos_are_the_same_numbers():
    video = torch.randn(16, 12, 3, 5)
    assert torch.equal(from_chunks(to_chunks(video, 4)), video)
    assert torch.equal(to_chunks(video, 4)[2, :, 1], video[:, 9])


def test_the_published_model_has_its_parameters():
    full = empty_dit(ModelConfig())
    assert sum(p.numel() for p in full.parameters()) == 4_459_898_128
    assert len(full.state_dict()) == 898


def test_bfloat16_streams_keep_embeddings_and_norms_in_float32():
    model = random_dit(replace(TINY, params_dtype="bfloat16"), seed=0)
    held = {name: p.dtype for name, p in model.named_parameters()}
    assert all(dtype == (torch.float32 if stays_float32(name) else torch.bfloat16) for name, dtype in held.items())
    prefix = "videodit_blocks.layers.0."
    exact = {name.removeprefix(prefix) for name, d in held.items() if d == torch.float32 and name.startswith(prefix)}
    modules = {"self_attention.q_layernorm", "self_attention.k_layernorm", "self_attn_post_norm", "mlp_post_norm"}
    assert {name.rpartition(".")[0] for name in exact} == modules
    with torch.no_grad():
        out = model(_noise(2, (4, 6)), torch.tensor([0.5, 0.1]), _texts(2), [0, 1], [(0, 1), (0, 2)], step_length=4.0)
    assert out.dtype == torch.float32 and torch.isfinite(out).all()


@torch.no_grad()
def test_the_cheaper_projection_is_close_but_another_function():
    config = replace(TINY, params_dtype="bfloat16")
    inputs = (_noise(2, (4, 6)), torch.tensor([0.5, 0.1]), _texts(2), [0, 1], [(0, 1), (0, 2)])
    exact, cheap = (random_dit(config, seed=4, proj_precision=p)(*inputs) for p in ("fp32", "bf16"))
    assert 0 < (exact - cheap).abs().max() < 0.1 * exact.abs().max()
    with pytest.raises(ValueError, match="proj_precision"):
        Magi1DiT(TINY, "fp16")


def test_fresh_weights_train():
    model = Magi1DiT(TINY)
    initialise(model, seed=1)
    out = model(_noise(2, (4, 6)), torch.tensor([0.5, 0.1]), _texts(2), [0, 1], [(0, 1), (0, 2)], step_length=4.0)
    assert out.std() < 1
    out.square().mean().backward()
    unused = {"y_embedder.null_caption_embedding"}
    assert all(p.grad is not None and p.grad.isfinite().all() for n, p in model.named_parameters() if n not in unused)
