"""Training of the small AnyFlow-FAR model: the class's own forward, the start, both stages, and the folder."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import AnyFlowFARTransformer3DModel, SkyReelsV2Transformer3DModel
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn.attention import flex_attention

from engine.confidence_head import NAMES, read_about, read_weights
from models import (
    train_far,
    train_far_card,
    train_far_confidence,
    train_far_dsa,
    train_far_dsa_card,
    train_far_flow,
    train_far_forward,
    train_flow,
    train_tiny,
    train_vae,
)
from models.far.plan import FarPlan
from models.far.settings import Far
from models.shapes import sample

CONFIGS = Path(__file__).parent.parent / "conf" / "train"
TRAINING = {"steps": 4, "lr": 1e-3, "warmup": 1, "decay": 0.9, "checkpoint_every": 2}


@pytest.fixture(scope="module")
def small() -> SkyReelsV2Transformer3DModel:
    torch.manual_seed(0)
    model = train_tiny.new_transformer(heads=2, head_dim=16, layers=1, ffn_dim=32, text_dim=16)
    for parameter in model.parameters():  # gates and output start at zero, which would hide differences
        nn.init.normal_(parameter, std=0.1)
    return model.eval()


@pytest.fixture
def model(small: SkyReelsV2Transformer3DModel) -> AnyFlowFARTransformer3DModel:
    return train_far.new_transformer(small, {"full_chunk_limit": 3})


@pytest.fixture(scope="module")
def source() -> train_far_flow.Source:
    torch.manual_seed(1)
    tokenizer = train_tiny.new_tokenizer()
    encoder = train_tiny.new_text_encoder(16, len(tokenizer)).eval()
    specs = [sample(i) for i in range(6)]
    return train_far_flow.Source(torch.randn(6, 16, 13, 4, 4), specs, tokenizer, encoder, 2, 0.1, 0.1)


def _window(source: train_far_flow.Source, chunks: tuple[int, ...], prompts: list[str]) -> train_far_forward.Window:
    clean = source.latents[: len(prompts), :, : sum(chunks)].transpose(1, 2)
    return train_far_forward.Window(clean, chunks, *source.embed(prompts))


@torch.no_grad()
def test_the_trained_forward_is_the_class_with_its_own_attention_and_padded_prompts(
    model: AnyFlowFARTransformer3DModel, source: train_far_flow.Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flex_attention, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)  # else tracing takes seconds
    prompts, chunks = ["a red circle moving left", ""], (1, 3, 3, 2)  # the first chunk is compressed
    window = _window(source, chunks, prompts)
    noisy, t = torch.randn(2, 8, 16, 4, 4), torch.rand(2, 8)
    r = t * torch.rand(2, 8)
    padded = torch.zeros(2, train_flow.TEXT_LENGTH, 16)
    padded[:, : window.text.shape[1]] = window.text
    told = [torch.cat([torch.zeros(2, 1), 1000 * level], 1) for level in (t, r)]
    theirs = model(
        hidden_states=torch.cat([window.clean[:, :1], noisy], 1),
        timestep=told[0],
        r_timestep=told[1],
        encoder_hidden_states=padded,
        chunk_partition=list(chunks),
        clean_hidden_states=window.clean[:, 1:],
        clean_timestep=torch.zeros(2, 8),
        attention_mask=model.build_attention_mask(
            chunk_partition=list(chunks), height=4, width=4, has_clean_context=True, device=torch.device("cpu")
        ),
        return_dict=False,
    )[0]
    ours = train_far_forward.Trainee(model).velocity(window, noisy, t, r)
    assert torch.allclose(ours, theirs, atol=2e-5)


@torch.no_grad()
def test_the_start_computes_what_the_small_skyreels_computes(
    small: SkyReelsV2Transformer3DModel, model: AnyFlowFARTransformer3DModel, source: train_far_flow.Source
) -> None:
    window = _window(source, (3,), ["a red circle moving left", "a blue square moving up"])
    noisy, t = torch.randn(2, 3, 16, 4, 4), torch.tensor([[0.5] * 3, [0.125] * 3])
    ours = train_far_forward.Trainee(model).velocity(window, noisy, t, t)
    told = (1000 * t).long()
    theirs = train_flow.velocity(small, noisy.transpose(1, 2), told, window.text, window.text_bias)
    assert torch.allclose(ours, theirs.transpose(1, 2), atol=2e-5)
    even = torch.ones(1, 16, 1, 4, 4)
    assert torch.allclose(model.far_patch_embedding(even)[..., 0, 0], model.patch_embedding(even)[..., 0, 0], atol=1e-5)


def test_a_start_without_a_frame_rate_term_is_refused() -> None:
    other = SkyReelsV2Transformer3DModel(num_attention_heads=1, attention_head_dim=12, num_layers=0, ffn_dim=4)
    with pytest.raises(ValueError, match="inject_sample_info=False"):
        train_far.starting_weights(other, (1, 4, 4))


@torch.no_grad()
def test_a_noisy_chunk_sees_the_clean_past_and_no_other_noisy_chunk(
    model: AnyFlowFARTransformer3DModel, source: train_far_flow.Source
) -> None:
    trainee = train_far_forward.Trainee(model)
    window, t = _window(source, (1, 3, 3, 2), ["a red circle moving left"]), torch.full((1, 8), 0.7)
    noisy = torch.randn(1, 8, 16, 4, 4)
    before = trainee.velocity(window, noisy, t, t)
    other = noisy.clone()
    other[:, 3:6] += 1.0  # the second of the three learned chunks
    moved = (trainee.velocity(window, other, t, t) - before).abs().amax((0, 2, 3, 4)) > 1e-6
    assert moved.tolist() == [False] * 3 + [True] * 3 + [False] * 2
    for frame, first in ((0, 0), (1, 3), (6, 6), (8, 8)):  # a change of a clean frame reaches only later chunks
        window.clean[:, frame] += 1.0
        moved = (trainee.velocity(window, noisy, t, t) - before).abs().amax((0, 2, 3, 4)) > 1e-6
        assert moved.tolist() == [False] * first + [True] * (8 - first), frame
        window.clean[:, frame] -= 1.0


def test_windows_have_the_chunks_of_the_model() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = [train_far_flow.draw_chunks(25, generator) for _ in range(300)]
    assert {len(chunks) for chunks in drawn} == set(range(1, 10)) and max(map(sum, drawn)) <= 25
    assert all(chunks[0] == 1 and set(chunks[1:-1]) <= {3} and chunks[-1] in (1, 2, 3) for chunks in drawn)
    assert {train_far_flow.draw_chunks(4, generator) for _ in range(50)} == {(1,), (1, 2), (1, 3)}


def test_every_chunk_counts_the_same() -> None:
    found = torch.zeros(1, 4, 1, 1, 1)
    target = torch.tensor([2.0, 0.0, 0.0, 0.0]).view(1, 4, 1, 1, 1)
    assert train_far_flow.chunk_error(found, target, (1, 3)).item() == pytest.approx(2.0)


class Field(nn.Module):
    """A teacher whose exact path is known: z(t) = end + t² c, so that its velocity is 2 t c."""

    def learned(self, chunks: tuple[int, ...]) -> tuple[int, ...]:
        return chunks

    def velocity(self, window: object, noisy: Tensor, t: Tensor, r: Tensor) -> Tensor:
        return (t + r)[..., None, None, None].expand_as(noisy) * 3.0


def test_the_targets_of_the_second_stage_are_the_mean_velocities_of_the_path(source: train_far_flow.Source) -> None:
    window, field = _window(source, (1, 3), ["a red circle moving left"]), Field()
    generator = torch.Generator().manual_seed(0)
    times = train_far_flow.path_times(16, 1, 2, 3.0, generator)
    path = train_far_flow.follow(field, window, torch.ones(1, 4, 16, 4, 4), times)
    assert times[0].eq(1).all() and times[-1].eq(0).all() and (times.diff(dim=0) < 0).all()
    exact = 1 - 3 * (1 - train_far_flow.by_frame(times, (1, 3)).square())[..., None, None, None]
    assert (path.states - exact).abs().max() < 0.05  # the first step, Euler's, has an error; the others have none
    losses = [float(train_far_flow.map_loss(field, path, generator)) for _ in range(20)]  # mean velocity: 3 (t + r)
    assert max(losses) < 0.15


def test_intervals_are_those_of_the_samplers_and_points() -> None:
    start, end = train_far_flow.draw_intervals(16, (4000, 2), torch.Generator().manual_seed(0))
    assert (start >= 0).all() and (start <= end).all() and (end <= 16).all()
    for n in (1, 2, 4, 8, 16):
        on_grid = (end - start == 16 // n) & (start % (16 // n) == 0)
        assert set(start[on_grid].tolist()) == set(range(0, 16, 16 // n))
    assert 0.15 < (start == end).float().mean() < 0.25


def test_a_few_steps_of_each_stage_lower_its_loss_on_a_fixed_batch(
    model: AnyFlowFARTransformer3DModel, source: train_far_flow.Source
) -> None:
    trainee = train_far_forward.Trainee(model)
    window = _window(source, (1, 3, 3), ["a red circle moving left", "a blue square moving up"])
    noise = torch.randn(2, 7, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    times = train_far_flow.path_times(4, 2, 3, 3.0, torch.Generator().manual_seed(0))
    path = train_far_flow.follow(trainee, window, noise, times)
    stages = (
        lambda g: train_far_flow.flow_loss(trainee, source, g, 2.0),
        lambda g: train_far_flow.map_loss(trainee, path, g),
    )
    for loss_of in stages:
        optimiser, losses = torch.optim.AdamW(trainee.parameters(), lr=2e-3), []
        for _ in range(5):
            loss = loss_of(torch.Generator().manual_seed(5))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        assert losses[-1] < 0.9 * losses[0]


class Reader(Field):
    """A model whose velocity is a number read from the prompt."""

    def velocity(self, window: train_far_forward.Window, noisy: Tensor, t: Tensor, r: Tensor) -> Tensor:
        return window.text.abs().sum((1, 2))[:, None, None, None, None].expand_as(noisy)


def test_guidance_pushes_away_from_the_velocity_without_a_prompt(source: train_far_flow.Source) -> None:
    def loss(drop_text: float, guidance: float) -> float:
        drawn = train_far_flow.Source(**{**vars(source), "drop_text": drop_text})
        return float(train_far_flow.flow_loss(Reader(), drawn, torch.Generator().manual_seed(2), guidance))

    assert loss(0.0, 3.0) < 0.5 * loss(0.0, 1.0), "the target is moved towards what the prompt adds"
    assert loss(1.0, 3.0) == pytest.approx(loss(1.0, 1.0)), "an empty prompt adds nothing"


def test_an_interrupted_second_stage_goes_on_to_the_same_weights(
    small: SkyReelsV2Transformer3DModel,
    source: train_far_flow.Source,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exact = train_far_flow.map_loss

    def run(folder: str, stop: int) -> dict[str, Tensor]:
        calls = iter(range(100))

        def stopping(*arguments: object) -> Tensor:
            if next(calls) == stop:
                raise KeyboardInterrupt
            return exact(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(train_far_flow, "map_loss", stopping)
        student, teacher = (
            train_far_forward.Trainee(train_far.new_transformer(small, {"full_chunk_limit": 3})) for _ in range(2)
        )
        settings = {"path_steps": 2, "shift": 3.0, "reuse": 2, "kept": 2, "seed": 1}
        train_far_flow.train_map(student, teacher, source, **settings, **TRAINING, work=tmp_path / folder)  # type: ignore[arg-type]
        return student.state_dict()

    with pytest.raises(KeyboardInterrupt):
        run("interrupted", 3)
    again, straight = run("interrupted", -1), run("straight", -1)
    assert all(torch.equal(again[name], straight[name]) for name in straight)


def _config(tmp_path: Path, start: Path) -> DictConfig:
    small = [f"start={start}", f"work={tmp_path / 'work'}", f"out={tmp_path / 'out'}", "checkpoint_every=1"]
    small += ["latents.videos=2", "latents.frames=13", "size=32", "source.batch=1", "flow.steps=1", "map.steps=1"]
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("far_tiny", [*small, "map.path_steps=2", "transformer.chunk_partition=[1,3]"])


@pytest.fixture(scope="module")
def trained(small: SkyReelsV2Transformer3DModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("far")
    start, tokenizer = path / "start", train_tiny.new_tokenizer()
    small.save_pretrained(start / "transformer")
    tokenizer.save_pretrained(start / "tokenizer")
    train_tiny.new_text_encoder(16, len(tokenizer)).save_pretrained(start / "text_encoder")
    train_vae.new_vae(4).save_pretrained(start / "vae")
    config = _config(path, start)
    train_far.write_folder(train_far.build(config, path / "work"), start, config.shift, path / "out")
    return path


def test_the_folder_holds_the_kept_parts_and_a_transformer_that_diffusers_reads(trained: Path) -> None:
    for part in train_far.KEPT:
        for file in (trained / "start" / part).iterdir():
            assert file.read_bytes() == (trained / "out" / part / file.name).read_bytes()
    model = AnyFlowFARTransformer3DModel.from_pretrained(trained / "out" / "transformer", torch_dtype=torch.float32)
    average = torch.load(trained / "work" / "map.ckpt", weights_only=True)["average"]
    for name, value in model.state_dict().items():
        assert torch.allclose(value, average[f"transformer.{name}"], rtol=1e-3, atol=1e-4), name
    assert tuple(model.config.chunk_partition) == (1, 3)
    index = json.loads((trained / "out" / "model_index.json").read_text())
    assert index["_class_name"] == "AnyFlowFARPipeline" and index["transformer"][1] == "AnyFlowFARTransformer3DModel"


def test_the_card_tells_what_was_trained_and_draws_quality_against_steps(trained: Path) -> None:
    out, config = trained / "out", _config(trained, trained / "start")
    train_far_card.write_card(config, trained / "work", out)
    card = (out / "README.md").read_text()
    assert "| flow | 1 | 1 windows" in card and "| map | 1 |" in card and "Not measured yet" in card
    assert "13 frames in chunks of 1, 3 latents" in card and not (out / "quality.png").exists()
    shares = {"videos": 2, "colour": 1.0, "shape": 0.5, "direction": 1.0, "present": 1.0, "jumps": 0.0, "invalid": []}
    rows = [{"setting": f"13 frames, model=far_tiny, model.steps={n}", **shares} for n in (4, 1)]
    (out / "adherence.json").write_text(json.dumps(rows))
    train_far_card.write_card(config, trained / "work", out)
    assert "model.steps=4 | 2 | 100.0% | 50.0%" in (out / "README.md").read_text()
    assert (out / "quality.png").stat().st_size > 1000


# --- a head trained together with the generator -----------------------------------------------------------------------


def test_the_price_of_stopping_is_the_error_of_one_pass_to_the_end(source: train_far_flow.Source) -> None:
    """The field is 3 (t + r) whatever the state; a path that ends elsewhere by 0.5 everywhere costs 0.5 / size."""
    window, field, generator = _window(source, (1, 3), ["a red circle"]), Field(), torch.Generator().manual_seed(0)
    times = train_far_flow.path_times(16, 1, 2, 3.0, generator)
    by_frame = train_far_flow.expand(train_far_flow.by_frame(times, (1, 3)))
    exact = 5 + 3 * by_frame.square().expand(17, 1, 4, 16, 4, 4)  # u = 3 (t + r) is its mean velocity
    for moved in (0.5, 0.02):
        states = exact.clone()
        states[-1] -= moved
        path = train_far_flow.Path(window, (1, 3), times, states, torch.zeros(16, *states.shape[1:]))
        drawn = train_far_flow.draw_interval(path, generator)
        found = train_far_confidence.price_of_stopping(field, path, drawn)
        inner = drawn.r > 0
        assert found.shape == (1, 4)
        assert torch.allclose(10 ** found[inner], torch.tensor(moved / (5 - moved)), rtol=1e-2)


def test_the_head_sees_the_noisy_frames_and_its_error_reaches_both(
    model: AnyFlowFARTransformer3DModel, source: train_far_flow.Source
) -> None:
    watched = train_far_confidence.Watched(train_far_forward.Trainee(model))
    confidence = train_far_confidence.Confidence(2 * 32 + 2, 4, start=-1.0)
    nn.init.normal_(confidence.outer.weight)
    generator = torch.Generator().manual_seed(0)
    path = train_far_flow.path_maker(watched.trainee, source, 4, 5.0)(generator)
    drawn = train_far_flow.draw_interval(path, generator)
    _, features = watched.velocity(path, drawn)
    assert features.shape == (*drawn.t.shape, 66) and torch.equal(
        features[..., -2:], torch.stack([drawn.t, drawn.r], -1)
    )
    other = train_far_flow.Interval(drawn.t, drawn.r, drawn.before.clone(), drawn.after, drawn.target)
    other.before[:, -1] += 1.0
    moved = (watched.velocity(path, other)[1] - features).abs().amax(-1) > 1e-6
    assert moved[:, -1].all() and not moved[:, : -path.learned[-1]].any(), "a frame's features are those of its chunk"
    plain = [
        train_far_confidence.joint_loss(watched, confidence, path, torch.Generator().manual_seed(7), w) for w in (0, 1)
    ]
    same = train_far_flow.map_loss(watched.trainee, path, torch.Generator().manual_seed(7))
    assert plain[0].item() == pytest.approx(same.item()) and plain[1] > plain[0]
    (plain[1] - plain[0]).backward()
    assert confidence.inner.weight.grad.abs().sum() > 0 and model.patch_embedding.weight.grad.abs().sum() > 0


@pytest.fixture(scope="module")
def joint(trained: Path) -> DictConfig:
    path = trained / "dsa"
    small = [
        f"start={trained / 'out'}",
        f"work={path / 'work'}",
        f"out={path / 'out'}",
        "checkpoint_every=1",
        "hidden=4",
    ]
    small += [
        "latents.videos=2",
        "latents.frames=13",
        "size=32",
        "source.batch=1",
        "joint.steps=2",
        "joint.path_steps=4",
    ]
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose("far_tiny_dsa", small)
    model, confidence = train_far_dsa.build(config, path / "work")
    train_far.write_folder(model, trained / "out", config.shift, path / "out")
    train_far_dsa.write_head(confidence, config, path / "out")
    train_far_dsa_card.write_card(config, path / "work", path / "out", 66, [4])
    return config


def test_the_head_names_the_weights_and_the_steps_it_was_trained_for(joint: DictConfig) -> None:
    out = Path(joint.out)
    about = read_about(out / "head.safetensors")
    plan = FarPlan(Far(checkpoint=str(out), height=32, width=32), torch.device("cpu"))
    assert about == {"model": "out", "weights": plan.weights_id, "steps": [4]}
    assert set(read_weights(out / "head.safetensors", "x")) == set(NAMES)


def test_a_joint_training_that_is_run_again_changes_nothing(joint: DictConfig) -> None:
    before = read_weights(Path(joint.out) / "head.safetensors", "x")
    _, confidence = train_far_dsa.build(joint, Path(joint.work))
    for name, value in before.items():
        assert torch.equal(getattr(confidence.head, name), value), name


def test_the_card_of_the_head_tells_its_calibration(joint: DictConfig) -> None:
    out = Path(joint.out)
    assert "Not measured yet: `python -m benchmarks.check_dsa_head" in (out / "README.md").read_text()
    bins = [{"expected": 0.1, "measured": 0.2}] * 5
    row = {"steps": 8, "videos": 2, "passes": 60, "correlation": 0.9, "correlation_within_step": {"0": 0.5, "1": 0.7}}
    row |= {"r_squared": 0.8, "r_squared_of_the_step_alone": 0.6, "bins": bins}
    (out / "calibration.json").write_text(json.dumps([row]))
    train_far_dsa_card.write_card(joint, Path(joint.work), out, 66, [4])
    assert "| 8 | 2 | 60 | 0.90 | 0.60 | 0.80 | 0.60 |" in (out / "README.md").read_text()
