"""MAGI-1 in the engine's loop: the pipeline's own numbers, identities of methods, and what is refused."""

from dataclasses import asdict, dataclass, replace
from itertools import groupby

import av
import numpy as np
import pytest
import torch

from baselines.teacache import TeaCache
from baselines.uniform import Uniform
from engine.ledger import flops, forwards, plan
from engine.loop import generate
from engine.method import Method, Original
from engine.row import VELOCITY, Decision, Mode, Site
from models.magi1.backbone import Magi1Backbone
from models.magi1.checkpoint import CheckpointError
from models.magi1.chunk_forward import Dispatcher, from_chunks, rollout, to_chunks
from models.magi1.price import video_flops
from models.magi1.settings import Magi1
from models.magi1.text import chunk_texts
from models.prefix import read_prefix
from scope.method import Scope

ARCHITECTURE = {
    "num_layers": 3,
    "hidden_size": 32,
    "ffn_hidden_size": 64,
    "num_attention_heads": 4,
    "num_query_groups": 2,
    "kv_channels": 8,
    "caption_channels": 12,
}
VAE = {"video_size": 16, "video_length": 8, "embed_dim": 256, "depth": 1, "num_heads": 4, "mlp_ratio": 1.0}
TINY = Magi1(
    weights="random",
    frames=36,
    height=32,
    width=48,
    steps=8,
    chunk=2,
    precision="fp32",
    text_tokens=6,
    fps=8,
    architecture=ARCHITECTURE,
    vae=VAE,
)
VARIANTS = {
    "distilled": {},
    "base": {"distill": False},
    "short ranges": {"kv_range": [4, 3, 2, 1]},
    "one chunk": {"window": 1},
}


def _model(**changes):
    model = Magi1Backbone(replace(TINY, **changes), torch.device("cpu"))
    model.load()
    return model


@pytest.fixture(scope="module", params=VARIANTS.values(), ids=VARIANTS)
def model(request):
    return _model(**request.param)


@pytest.fixture(scope="module")
def original(model):
    """The Original's video of the model."""
    return _video(model, Original())


@pytest.fixture(scope="module")
def distilled():
    return _model()


def _pairs(methods, briefly):
    """Every variant with every method. In the fast tests only "distilled" runs all, the others `briefly`."""
    for variant in VARIANTS:
        for i, method in enumerate(methods):
            grain = getattr(method, "decide_per", getattr(method, "kind", ""))
            later = variant != "distilled" and i not in briefly
            marks = [pytest.mark.slow] if later else []
            yield pytest.param(VARIANTS[variant], method, id=f"{variant}-{type(method).__name__} {grain}", marks=marks)


def _video(model, method, prompt="a fox", seed=0, ledger=None):
    text = model.conditioning(prompt, model.texts([prompt]))
    return generate(model, method, text, seed, [] if ledger is None else ledger)


@dataclass
class Blocks(Method):
    """Computes every `interval`-th row. In between it reuses the middle blocks, or one branch of each."""

    interval: int = 3
    kind: str = "blocks"

    def reset(self):
        self.past, self.rows = {}, 0

    def sites(self, depth, row):
        if self.kind == "blocks":
            return (Site("blocks", range(1, depth)),)
        return tuple(Site(self.kind, range(i, i + 1)) for i in range(depth))

    def decide(self, part, probe, branch=""):
        self.rows += 1
        fresh = self.rows % self.interval == 1 or any(("cond", s) not in self.past for s in part.slots)
        return Decision(Mode.RECOMPUTE if fresh or self.interval == 1 else Mode.CACHE)

    def keep(self, site, part, x, out):
        for i, slot in enumerate(part.slots):
            self.past[site.branch, slot] = True
            self.past[site, slot] = out[i] - x[i]

    def fill(self, site, part, mode, x):
        return x + torch.stack([self.past[site, slot] for slot in part.slots])


def test_the_loop_makes_the_pipelines_own_video_bit_for_bit(model):
    ours = _video(model, Original(), seed=4)
    noise = torch.randn(1, 16, len(ours), 4, 6, generator=torch.Generator().manual_seed(4))
    caption = model.texts(["a fox"])["a fox"]
    texts = chunk_texts(caption, model.tokens, model.plan.chunks)
    dispatcher = Dispatcher(model.transformer, model.settings.runtime, model.plan, texts)
    *_, (_, _, latents) = rollout(dispatcher, to_chunks(noise[0], 2))
    assert torch.equal(ours.transpose(0, 1), from_chunks(latents))


NEVER = [
    Uniform(interval=1),
    TeaCache(threshold=0.0, fit="none", signal="patch_embedding", warmup=1),
    Blocks(interval=1),
    Blocks(interval=1, kind="attention"),
    Blocks(interval=1, kind="feed_forward"),
    Scope(tau_cache=0, tau_predict=0, selective="none", signal="patch_embedding"),
    Scope(tau_cache=0, tau_predict=0, selective="none", signal="patch_embedding", decide_per="unit"),
    Scope(tau_cache=9, tau_predict=9, max_skip=0, selective="none", signal="time_projection", decide_per="unit"),
]


@pytest.mark.parametrize("model, method", list(_pairs(NEVER, briefly=(3, 6))), indirect=["model"])
def test_methods_that_never_skip_are_the_original_bit_for_bit(model, original, method):
    method.check(model)
    assert torch.equal(_video(model, method), original)


SKIPPING = [
    Uniform(interval=3),
    Scope(tau_cache=0.05, tau_predict=0.4, selective="none", signal="patch_embedding"),
    Scope(tau_cache=0.05, tau_predict=0.4, selective="none", signal="patch_embedding", decide_per="unit"),
    TeaCache(threshold=0.2, fit="none", signal="patch_embedding", warmup=2),
    Blocks(),
    Blocks(kind="attention"),
    Blocks(kind="feed_forward"),
]


@pytest.mark.parametrize("model, method", list(_pairs(SKIPPING, briefly=(2, 4))), indirect=["model"])
def test_methods_that_skip_leave_nothing_for_the_next_video(model, original, method):
    ledger = []
    first = _video(model, method, ledger=ledger)
    other = _video(model, method, prompt="a cat", seed=1)
    assert torch.equal(_video(model, method), first) and not torch.allclose(first, other)
    assert any(entry.mode is not Mode.RECOMPUTE for entry in ledger)
    assert torch.isfinite(first).all() and not torch.equal(first, original)
    refreshing = {f.index for f in model.plan.forwards if f.refresh is not None}
    assert all(entry.mode is Mode.RECOMPUTE for entry in ledger if entry.iteration in refreshing)
    assert flops(ledger, model.price)[0] < flops(plan(model.schedule()), model.price)[0]


def test_a_chunk_that_is_skipped_costs_nothing_and_the_others_are_computed(distilled):
    class OneInTwo(Method):
        grain = "unit"

        def reset(self):
            self.past = {}

        def sites(self, depth, row):
            return (VELOCITY,)

        def decide(self, part, probe, branch=""):
            chunk, step = part.slots.start // part.unit, part.step[0]
            return Decision(Mode.CACHE if (chunk + step) % 2 and part.slots in self.past else Mode.RECOMPUTE)

        def keep(self, site, part, x, out):
            self.past[part.slots] = out

        def fill(self, site, part, mode, x):
            return self.past[part.slots]

    ledger = []
    video = _video(distilled, OneInTwo(), ledger=ledger)
    assert torch.isfinite(video).all()
    for iteration, group in groupby(ledger, key=lambda e: e.iteration):
        entries, forward = list(group), distilled.plan.forwards[iteration]
        assert [e.slots[0] // 2 for e in entries] == list(forward.chunks)
        if forward.refresh is None and all(e.mode is Mode.CACHE for e in entries):
            assert distilled.price(entries) == (0.0, 0.0)


def test_rows_are_the_forwards_and_a_refresh_is_forced(distilled):
    rows = distilled.schedule()
    assert len(rows) == len(distilled.plan.forwards) and [row.last for row in rows][-2:] == [False, True]
    for row, forward in zip(rows, distilled.plan.forwards, strict=True):
        assert row.slots == range(forward.chunks.start * 2, forward.chunks.stop * 2)
        assert row.sigma[::2] == forward.times and row.sigma_next[::2] == forward.times_next
        assert (row.forced == "clean refresh") == (forward.refresh is not None)
        assert [part.slots.start // 2 for part in row.units()] == list(forward.chunks)


@pytest.mark.parametrize(
    "name, shape",
    [
        ("patch_embedding", (6, 32)),
        ("latent", (16, 4, 6)),
        ("time_embedding", (8,)),
        ("time_projection", (2, 32)),
    ],
)
def test_signals_have_a_value_per_slot_and_leave_the_latents_alone(distilled, name, shape):
    text = distilled.conditioning("a fox", distilled.texts(["a fox"]))
    row = next(r for r in distilled.schedule() if len(r.slots) == 6)
    with torch.no_grad():
        latents = distilled.open(distilled.start(text, 0), row)
        before = latents.clone()
        signal = distilled.probe(name, latents, row)
    assert signal.shape == (6, *shape) and signal.dtype == torch.float32
    assert torch.equal(latents, before)
    if name == "patch_embedding":
        patches = distilled.transformer.patches(to_chunks(latents[:6].transpose(0, 1), 2))
        assert torch.equal(signal[3], patches[1, 6:])
    with pytest.raises(ValueError, match="offers latent, patch_embedding"):
        distilled.probe("loss", latents, row)


def test_the_published_run_costs_80_98_petaflop():
    model = Magi1Backbone(Magi1(weights="random", architecture={"num_layers": 34}), torch.device("cpu"))
    ledger = plan(model.schedule())
    dense, masked = flops(ledger, model.price)
    assert dense == masked == video_flops(model.config, model.settings.runtime, model.plan, 40)
    assert dense / 1e15 == pytest.approx(80.98, abs=0.05)
    assert forwards(ledger, len(model.branches)) == len(model.schedule()) == 208
    assert model.plan_counts() == {"chunk_steps": 640, "chunk_passes": 809}
    assert model.parameters == 4_459_898_128
    short = Magi1Backbone(replace(model.settings, kv_range=[5, 4, 3, 2]), torch.device("cpu"))
    assert flops(ledger, short.price)[0] / 1e15 == pytest.approx(61.05, abs=0.05)


def test_a_video_is_decoded_to_the_frames_asked_for(distilled):
    frames = torch.cat(list(distilled.decode(_video(distilled, Original()))))
    assert frames.shape == (36, 32, 48, 3) and frames.dtype == torch.uint8
    assert distilled.frame_borders == [8, 16, 24, 32]  # chunks of two latents; the last holds one latent too many


def _clip(path, count, size=(48, 64), fps=8):
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264rgb", rate=fps, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = size[1], size[0], "rgb24"
        for i in range(count):
            picture = np.full((*size, 3), 20 * i, dtype=np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode())


def test_a_video_goes_on_from_given_frames(tmp_path):
    clip = tmp_path / "clip.mp4"
    _clip(clip, 12)
    given = read_prefix(clip, 12, 8, 32, 48)
    assert given.shape == (12, 32, 48, 3) and given[:, 0, 0, 0].tolist() == [20 * i for i in range(12)]
    assert read_prefix(clip, 6, 4, 32, 48)[:, 0, 0, 0].tolist() == [0, 40, 80, 120, 160, 200]
    with pytest.raises(ValueError, match="12 frames at 8 fps, want 16"):
        read_prefix(clip, 16, 8, 32, 48)
    with pytest.raises(ValueError, match="no prefix at"):
        read_prefix(tmp_path / "absent.mp4", 4, 8, 32, 48)
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(ValueError, match="not a readable image or video"):
        read_prefix(tmp_path / "text.mp4", 4, 8, 32, 48)
    model = _model(prefix=str(clip), prefix_frames=12)
    assert (model.plan.prefix, model.plan.given) == (3, 1)
    frames = torch.cat(list(model.decode(_video(model, Original()))))
    assert frames.shape[0] == 36
    image = _model(prefix=str(clip), prefix_frames=1)
    assert torch.cat(list(image.decode(_video(image, Original())))).shape[0] == 36
    skipping = _video(model, Uniform(interval=3))
    assert torch.isfinite(skipping).all()


@pytest.mark.parametrize(
    "change, told",
    [
        ({"frames": 38}, "nearest: 40"),
        ({"steps": 10}, "multiple of window_size"),
        ({"height": 40}, "multiple of 16"),
        ({"precision": "8"}, "fp32, bf16"),
        ({"prefix": "x.mp4", "prefix_frames": 30}, "multiple of 4"),
        ({"window": 0}, "at least 1"),
        ({"shortcut": "8"}, "shortcut is one of"),
    ],
)
def test_settings_that_cannot_work_are_refused(change, told):
    with pytest.raises(ValueError, match=told):
        replace(TINY, **change)


def test_selective_computation_is_refused_with_the_reason(distilled):
    with pytest.raises(ValueError, match="every chunk in MAGI-1's window is active"):
        Scope(tau_cache=0.1, tau_predict=0.2, selective="hull").check(distilled)


def test_missing_weights_say_what_to_download(tmp_path):
    absent = Magi1Backbone(Magi1(checkpoint=str(tmp_path / "no")), torch.device("cpu"))
    with pytest.raises(CheckpointError, match="hf download sand-ai/MAGI-1"):
        _ = absent.weights_id
    empty = Magi1Backbone(Magi1(checkpoint=str(tmp_path)), torch.device("cpu"))
    with pytest.raises(CheckpointError, match="no distilled MAGI-1 weights"):
        empty.load()
    assert asdict(TINY)["weights"] == "random"
