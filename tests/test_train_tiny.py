"""Training of the small model: the batched forward is diffusers' own, the noise is the schedules', a run can resume."""

from pathlib import Path

import pytest
import torch
from diffusers import SkyReelsV2DiffusionForcingPipeline, SkyReelsV2Transformer3DModel
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from torch import nn

from models import train_card, train_flow, train_loop, train_tiny, train_vae
from models.shapes import render_batch, sample

CONFIGS = Path(__file__).parent.parent / "conf" / "train"


@pytest.fixture(scope="module")
def transformer() -> SkyReelsV2Transformer3DModel:
    torch.manual_seed(0)
    model = train_tiny.new_transformer(heads=2, head_dim=16, layers=2, ffn_dim=48, text_dim=16)
    for parameter in model.parameters():  # gates and output start at zero, which would hide differences
        nn.init.normal_(parameter, std=0.2)
    return model


@pytest.mark.parametrize("causal_block", [1, 5])
@torch.no_grad()
def test_the_batched_forward_equals_diffusers_sample_by_sample(
    transformer: SkyReelsV2Transformer3DModel, causal_block: int
) -> None:
    torch.manual_seed(1)
    latents, timestep = torch.randn(3, 16, 10, 4, 6), torch.randint(0, 1000, (3, 10))
    text = torch.randn(3, 7, 16)
    ours = train_flow.velocity(transformer, latents, timestep, text, None, causal_block)
    transformer._set_ar_attention(causal_block)
    for i in range(3):
        one = slice(i, i + 1)
        theirs = transformer(
            latents[one], timestep[one], text[one], enable_diffusion_forcing=True, fps=[1], return_dict=False
        )[0]
        assert torch.allclose(ours[one], theirs, atol=2e-5)
    transformer._set_ar_attention(1)


@torch.no_grad()
def test_one_weighted_padding_token_stands_for_all_of_them(transformer: SkyReelsV2Transformer3DModel) -> None:
    tokenizer = train_tiny.new_tokenizer()
    torch.manual_seed(2)
    encoder = train_tiny.new_text_encoder(16, len(tokenizer)).eval()
    latents, timestep = torch.randn(2, 16, 5, 4, 4), torch.randint(0, 1000, (2, 5))
    prompts = ["a red circle moving left", ""]
    short, bias = train_flow.embed_prompts(tokenizer, encoder, prompts)
    ours = train_flow.velocity(transformer, latents, timestep, short, bias)
    for i, prompt in enumerate(prompts):
        tokens = tokenizer([prompt], padding="max_length", max_length=512, return_tensors="pt")
        hidden = encoder(tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state
        hidden = hidden * tokens.attention_mask[..., None]  # as the pipeline does: padding is zero, and attended to
        theirs = train_flow.velocity(transformer, latents[i : i + 1], timestep[i : i + 1], hidden)
        assert torch.allclose(ours[i : i + 1], theirs, atol=2e-5)


def test_noise_follows_the_schedules() -> None:
    noise = train_flow.draw_noise(4000, 5, torch.Generator().manual_seed(0))
    blocks = noise.sigma[:, ::5]
    assert noise.sigma.shape == (4000, 25) and torch.equal(noise.sigma[:, 4], noise.sigma[:, 0])
    assert ((noise.sigma >= 0) & (noise.sigma <= 1)).all()
    assert ((noise.timestep >= 0) & (noise.timestep <= 999)).all()
    going_on = noise.prefix
    assert 0.3 < going_on.float().mean() < 0.4
    assert (noise.weight[going_on][:, :5] == 0).all()  # the prefix is given, not learned
    assert set(noise.timestep[going_on][:, 0].tolist()) == {0, 20}
    rising = (blocks[:, 1:] >= blocks[:, :-1]).all(1).float().mean()
    assert rising > 0.75  # all but most of the independent fifth
    learned = noise.weight.bool() & ~going_on[:, None]
    assert (noise.sigma[learned] * 1000 - noise.timestep[learned]).abs().max() <= 1.001


def test_a_window_that_goes_on_starts_later_than_its_video() -> None:
    latents = torch.arange(27.0).view(1, 1, 27, 1, 1).expand(6, 16, 27, 2, 2)
    noise = train_flow.draw_noise(64, 5, torch.Generator().manual_seed(0))
    windows, chosen = train_flow.draw_windows(latents, 25, noise, torch.Generator().manual_seed(0))
    first = windows[:, 0, 0, 0, 0]
    assert windows.shape == (64, 16, 25, 2, 2) and set(chosen) == set(range(6))
    assert torch.equal(first > 0, noise.prefix) and (windows[:, 0, -1, 0, 0] == first + 24).all()


@torch.no_grad()
def test_encoding_and_decoding_at_once_equal_diffusers_frame_by_frame() -> None:
    torch.manual_seed(0)
    vae = train_vae.new_vae(4)
    video = train_vae.to_input(render_batch([sample(0), sample(1)], 13)[0])
    ours = train_vae.encode(vae, video)
    assert torch.allclose(ours, vae.encode(video).latent_dist.parameters, atol=1e-5)
    decoded = train_vae.decode(vae, ours[:, :16]).clamp(-1, 1)
    assert torch.allclose(decoded, vae.decode(ours[:, :16]).sample, atol=1e-5)


def test_an_interrupted_training_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    def train(folder: str, stops: tuple[int, ...]) -> list[float]:
        for stop in stops:
            torch.manual_seed(3)
            layer = nn.Linear(4, 1)

            def loss_of(step: int, layer: nn.Linear = layer, stop: int = stop) -> torch.Tensor:
                if step == stop:
                    raise KeyboardInterrupt
                x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
                return (layer(x) - x.sum(1, keepdim=True)).square().mean()

            try:
                train_loop.fit(
                    "toy",
                    {"layer": layer},
                    loss_of,
                    steps=20,
                    lr=0.05,
                    warmup=2,
                    decay=0.9,
                    weight_decay=0.0,
                    checkpoint_every=5,
                    work=tmp_path / folder,
                )
            except KeyboardInterrupt:
                continue
        return [*layer.weight.flatten().tolist(), *layer.bias.tolist()]

    assert train("interrupted", (7, 13, -1)) == train("straight", (-1,))
    assert (tmp_path / "interrupted" / "toy.csv").read_text() == (tmp_path / "straight" / "toy.csv").read_text()
    assert not list(tmp_path.glob("*/*.partial"))


def test_a_loss_that_is_not_a_number_stops_the_training(tmp_path: Path) -> None:
    layer = nn.Linear(1, 1)
    with pytest.raises(FloatingPointError, match="lower lr"):
        train_loop.fit(
            "toy",
            {"layer": layer},
            lambda step: layer.weight.sum() * float("nan"),
            steps=2,
            lr=0.1,
            warmup=1,
            decay=0.9,
            weight_decay=0.0,
            checkpoint_every=1,
            work=tmp_path,
        )


def test_training_the_decoder_alone_leaves_the_latents_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    vae = train_vae.new_vae(4)
    video = train_vae.to_input(render_batch([sample(0)], 5, 32)[0])
    before, drawn = train_vae.encode(vae, video), train_vae.decode(vae, torch.ones(1, 16, 2, 4, 4))
    train_vae.refine_decoder(
        vae, steps=2, batch=1, frames=5, lr=0.01, jitter=0.1, seed=0, size=32, checkpoint_every=5, work=tmp_path
    )
    assert train_vae.encode(vae, video).equal(before)
    assert not train_vae.decode(vae, torch.ones(1, 16, 2, 4, 4)).equal(drawn)


def small_config(tmp_path: Path) -> DictConfig:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        overrides = ["vae.base_dim=4", "vae.image_steps=2", "vae.image_batch=1", "vae.video_steps=1", "vae.frames=5"]
        overrides += ["decoder.steps=1", "decoder.batch=1", "decoder.frames=5"]
        overrides += ["vae.video_batch=1", "latents.videos=2", "latents.workers=1", "latents.frames=41"]
        overrides += ["flow.frames=10", "flow.steps=2", "flow.batch=2"]
        overrides += ["transformer.layers=1", "transformer.heads=2", "transformer.ffn_dim=32"]
        overrides += ["size=32", f"work={tmp_path}/work", f"out={tmp_path}/model"]
        return compose("skyreels_tiny", overrides)


@pytest.mark.slow
def test_training_writes_a_folder_that_the_stock_pipeline_runs(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    train_tiny.write_folder(train_tiny.build(config, Path(config.work)), Path(config.out))
    train_card.write_card(config, Path(config.work), Path(config.out))
    pipeline = SkyReelsV2DiffusionForcingPipeline.from_pretrained(config.out)
    pipeline.set_progress_bar_config(disable=True)
    frames = pipeline(
        "a red circle 'moving' left 🙂",
        height=32,
        width=32,
        num_frames=9,
        base_num_frames=9,
        num_inference_steps=2,
        output_type="np",
        generator=torch.Generator().manual_seed(0),
    ).frames
    assert frames.shape == (1, 9, 32, 32, 3)
    assert pipeline.transformer.config.num_frame_per_block == 1
    assert pipeline.scheduler.config.prediction_type == "flow_prediction"
    assert (Path(config.out) / "losses.csv").read_text().count("\n") == 1 + 3 + 1 + 2
    card = (Path(config.out) / "README.md").read_text()
    assert "| flow | 2 | 2 windows |" in card and "Not measured yet" in card
    resumed = OmegaConf.merge(config, {"start": config.out, "work": f"{tmp_path}/again", "flow": {"steps": 0}})
    again = train_tiny.build(resumed, Path(resumed.work))
    for part in ("transformer", "text_encoder", "vae"):
        theirs = getattr(pipeline, part).state_dict()
        assert all(value.equal(theirs[key]) for key, value in getattr(again, part).state_dict().items()), part
