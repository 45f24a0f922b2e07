"""Training of the small MAGI-1: its windows are the pipeline's forwards, and its folder is one the backbone reads."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from safetensors.torch import load_file

from models import train_magi1, train_magi1_card, train_magi1_flow, train_magi1_vae
from models.magi1.backbone import Magi1Backbone
from models.magi1.checkpoint import random_dit
from models.magi1.chunk_forward import Dispatcher
from models.magi1.config import ModelConfig, RuntimeConfig
from models.magi1.dit import Magi1DiT
from models.magi1.schedule import schedule
from models.magi1.settings import Magi1
from models.magi1.vae import WEIGHTS, VaeConfig, ViTVAE, load_vae
from models.shapes import sample

CONFIGS = Path(__file__).parent.parent / "conf" / "train"
RUNTIME = RuntimeConfig(
    noise2clean_kvrange=(), num_frames=40, video_size_h=32, video_size_w=32, chunk_width=2, num_steps=8
)  # five chunks
PLAN = schedule(RUNTIME)
TILE = {"video_size": 32, "video_length": 8, "embed_dim": 768, "depth": 1, "num_heads": 12, "mlp_ratio": 0.1}


@pytest.fixture(scope="module")
def model() -> Magi1DiT:
    return random_dit(
        ModelConfig(
            num_layers=2,
            hidden_size=32,
            ffn_hidden_size=64,
            num_attention_heads=4,
            num_query_groups=2,
            kv_channels=8,
            caption_channels=12,
            caption_max_length=60,
            params_dtype="float32",
        ),
        seed=1,
    )


def _window(model: Magi1DiT, forward, video, noise, text):
    return train_magi1_flow.window_of(forward, video, noise, text, model.y_embedder.null_text, RUNTIME.clean_t)


@torch.no_grad()
def test_a_batch_of_windows_gives_what_the_dispatcher_gives_video_by_video(model: Magi1DiT) -> None:
    generator = torch.Generator().manual_seed(0)
    rand = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    stages = (7, 0, 4, 3)  # three chunks finished, none, one with four in flight, the nearly clean without a past
    forwards = [PLAN.forwards[2 * stage] for stage in stages]
    videos, noises = rand(4, 5, 16, 2, 4, 4), rand(4, 5, 16, 2, 4, 4)
    texts = [rand(3 + b, 12) for b in range(4)]
    windows = [_window(model, f, v, n, text) for f, v, n, text in zip(forwards, videos, noises, texts, strict=True)]
    found = train_magi1_flow.velocities(model, windows, forwards[0].step_length)
    first = 0
    for forward, video, text, window in zip(forwards, videos, texts, windows, strict=True):
        theirs = Dispatcher(model, RUNTIME, PLAN, [text] * 5)
        theirs.begin()
        latents = video.clone()
        for k in range(forward.chunks.start):  # read every finished chunk once, as the refreshes did
            refreshing = next(f for f in PLAN.forwards if f.refresh == k)
            theirs.velocity(latents, refreshing, [])
        for chunk in forward.chunks:
            latents[chunk] = window.latents[chunk]
        expected = theirs.velocity(latents, replace(forward, refresh=None))
        ours = found[first : first + len(window.times)]
        inside = ours[forward.chunks.start : forward.chunks.stop].clone()
        if forward.duplicate:
            inside[0] = 0.7 * inside[0] + 0.3 * ours[-1]
        torch.testing.assert_close(inside, expected, atol=1e-5, rtol=1e-5)
        first += len(window.times)


@torch.no_grad()
def test_a_window_holds_finished_chunks_clean_and_the_others_as_noisy_as_its_forward_says(model: Magi1DiT) -> None:
    forward = next(f for f in PLAN.forwards if len(f.chunks) == 4 and f.refresh is not None)
    video, noise = torch.full((5, 16, 2, 4, 4), 2.0), torch.full((5, 16, 2, 4, 4), -1.0)
    window = _window(model, forward, video, noise, torch.ones(3, 12))
    assert window.times == [RUNTIME.clean_t, *forward.times, forward.times[0]]
    levels = [2.0, *(3 * t - 1 for t in forward.times), 3 * forward.times[0] - 1]
    assert window.latents.mean((1, 2, 3, 4)).tolist() == pytest.approx(levels, abs=1e-6)
    assert window.learned == [False, True, True, True, True, True]
    assert window.visible[:5] == [(0, k + 1) for k in range(5)] and window.slots[5] is None
    assert len(window.text[0]) == 50 and len(window.text[1]) == 3
    assert torch.equal(window.target, torch.full_like(window.target, 3.0))


def test_the_loss_counts_only_what_is_learned(model: Magi1DiT) -> None:
    forward = next(f for f in PLAN.forwards if f.refresh == 0)
    window = _window(model, forward, torch.randn(5, 16, 2, 4, 4), torch.randn(5, 16, 2, 4, 4), torch.ones(3, 12))
    found = window.target.clone()
    found[0] += 100.0
    assert train_magi1_flow.flow_loss(found, [window]) == 0.0
    found[1] += 2.0
    assert train_magi1_flow.flow_loss(found, [window]).item() == pytest.approx(4.0 / 5, rel=1e-5)
    push = torch.zeros_like(found)
    push[1] = 2.0
    assert train_magi1_flow.flow_loss(found, [window], push) == 0.0


def test_a_batch_holds_every_stage_of_the_pipeline() -> None:
    forwards = train_magi1_flow.draw_forwards(PLAN, 8, torch.Generator().manual_seed(3))
    assert sorted(forward.stage for forward in forwards) == list(range(8))


@torch.no_grad()
def test_the_autoencoder_starts_as_principal_components() -> None:
    torch.manual_seed(0)
    vae = ViTVAE(VaeConfig(**TILE))
    mean, directions, deviations = train_magi1_vae.principal(vae.config, 32, 7)
    assert torch.allclose(directions @ directions.T, torch.eye(16), atol=1e-5)
    train_magi1_vae.start_as_components(vae, mean, directions, deviations)
    video, _ = train_magi1_vae.tile_of([100, 101], 32)
    patches = train_magi1_vae.patches_of(video, vae.config).flatten(1) - mean
    exact = (patches - patches @ directions.T @ directions).square().mean()
    found = (vae.decode(vae.encode(video)) - video)[..., 2:-2, 2:-2].square().mean()  # zeros lie around the frame
    assert found < 2.5 * exact + 0.003
    train_magi1_vae.standardise(vae, 32)
    again = (vae.decode(vae.encode(video)) - video)[..., 2:-2, 2:-2].square().mean()
    assert again.item() == pytest.approx(found.item(), rel=1e-3)


def test_the_start_as_components_refuses_another_width() -> None:
    vae = ViTVAE(VaeConfig(**{**TILE, "embed_dim": 256, "num_heads": 4}))
    with pytest.raises(ValueError, match="set embed_dim=768"):
        train_magi1_vae.start_as_components(vae, torch.zeros(768), torch.zeros(16, 768), torch.ones(16))


def _config(tmp_path: Path, *changes: str) -> DictConfig:
    small = [
        f"work={tmp_path / 'work'}",
        f"out={tmp_path / 'out'}",
        "checkpoint_every=2",
        "size=32",
        "vae.steps=2",
        "vae.batch=1",
        "vae.architecture.video_size=32",
        "latents.videos=2",
        "transformer.num_layers=1",
        "transformer.hidden_size=32",
        "transformer.ffn_hidden_size=32",
        "transformer.num_attention_heads=2",
        "transformer.num_query_groups=1",
        "transformer.kv_channels=16",
        "runtime.num_frames=48",
        "flow.batch=2",
        "decoder.steps=1",
        "decoder.batch=1",
    ]
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("magi1_tiny", [*small, *changes])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("magi1")
    config = _config(path, "flow.steps=2", "flow.guided_from=1")
    train_magi1.build(config, path / "work", path / "out")
    return path


@pytest.mark.slow
def test_the_backbone_reads_the_trained_folder_and_makes_a_video(trained: Path) -> None:
    settings = Magi1(
        checkpoint=str(trained / "out"),
        frames=48,
        height=32,
        width=32,
        steps=8,
        chunk=6,
        scale_factor=1.0,
        special_tokens=[],
        precision="fp32",
    )
    backbone = Magi1Backbone(settings, torch.device("cpu"))
    backbone.load()
    prompt = "a red circle moving left over a dusk background"
    text = backbone.texts([prompt])[prompt]
    assert text.shape == (10, 64)  # nine words and an end mark
    backbone.start(text, 0)
    latents = backbone.open(torch.zeros(12, 16, 4, 4), backbone.rows[0])
    frames = torch.cat(list(backbone.decode(latents)))
    assert frames.shape == (48, 32, 32, 3) and frames.dtype == torch.uint8


@pytest.mark.slow
def test_a_resumed_training_goes_on_where_it_stopped(trained: Path, tmp_path: Path) -> None:
    saved = torch.load(trained / "work" / "flow.ckpt", weights_only=True)["losses"]
    train_magi1.build(_config(trained, "flow.steps=4"), trained / "work", tmp_path / "more")
    assert torch.load(trained / "work" / "flow.ckpt", weights_only=True)["losses"][:2] == saved
    assert (trained / "work" / "flow.csv").read_text().count("\n") == 5


def test_the_card_tells_what_was_trained(trained: Path) -> None:
    train_magi1_card.write_card(_config(trained, "notes='Stopped early.'"), trained / "work", trained / "out")
    card = (trained / "out" / "README.md").read_text()
    assert "| vae | 2 | 1 tiles of 12 frames |" in card and "Seed 1. Stopped early." in card
    assert "Not measured yet" in card and "216 of 288" in card
    assert (trained / "out" / "losses.csv").read_text().startswith("stage,step,loss\nvae,0,")


@pytest.mark.slow
def test_a_trained_folder_is_trained_on_and_its_card_goes_on_counting(trained: Path, tmp_path: Path) -> None:
    first = _config(trained, "flow.steps=2")
    train_magi1_card.write_card(first, trained / "work", trained / "out")
    config = _config(tmp_path, "flow.steps=3", "decoder.steps=0", f"start={trained / 'out'}")
    train_magi1.build(config, tmp_path / "work", tmp_path / "more")
    before, after = (load_file(folder / "model.safetensors") for folder in (trained / "out", tmp_path / "more"))
    moved = max(float((after[name].float() - before[name].float()).abs().max()) for name in before)
    assert 0 < moved < 0.02, "a few small steps from where it stood, not from fresh weights"
    same = [load_file(folder / "vae" / WEIGHTS) for folder in (trained / "out", tmp_path / "more")]
    assert all(torch.equal(same[0][name], same[1][name]) for name in same[0]), "decoder.steps=0 leaves it alone"
    train_magi1_card.write_card(config, tmp_path / "work", tmp_path / "more")
    earlier = (trained / "out" / "losses.csv").read_text().splitlines()
    later = (tmp_path / "more" / "losses.csv").read_text().splitlines()
    assert len(later) == len(earlier) + 3 and set(earlier) <= set(later)
    assert "| vae | 2 |" in (tmp_path / "more" / "README.md").read_text()


@torch.no_grad()
def test_the_decoder_learns_to_hide_the_borders_of_patches(trained: Path, tmp_path: Path) -> None:
    """`edges` is the weight of wrong differences between neighbouring pixels; at 0 they cost nothing."""
    found = []
    for edges in (0.0, 20.0):
        vae = load_vae(trained / "out" / "vae", dtype=torch.float32)
        with torch.enable_grad():
            train_magi1_vae.refine_decoder(
                vae,
                steps=12,
                batch=1,
                lr=1e-3,
                jitter=0.4,
                edges=edges,
                bfloat16=False,
                seed=0,
                size=32,
                checkpoint_every=100,
                work=tmp_path / str(edges),
            )
        video, _ = train_magi1_vae.tile_of([7, 8, 9], 32)
        z = vae.encode(video) + 0.4 * torch.randn(3, 16, 3, 4, 4, generator=torch.Generator().manual_seed(0))
        error = vae.decode(z) - video
        found.append(float(error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()))
    assert found[1] < found[0]


def test_latents_are_those_of_the_two_halves_of_every_chunk(trained: Path) -> None:
    latents = torch.load(trained / "work" / "latents.pt", weights_only=True)["latents"]
    assert latents.shape == (2, 2, 16, 6, 4, 4)
    vae = load_vae(trained / "work" / "vae", dtype=torch.float32)
    video, _ = train_magi1_vae.render_batch([sample(1)], 48, 32)
    with torch.no_grad():
        tile = vae.encode(video.permute(0, 4, 1, 2, 3)[:, :, 36:48] * 2 - 1)
    assert (latents[1, 1, :, 3:].float() - tile[0]).abs().max() < 0.1  # bfloat16 and float16
