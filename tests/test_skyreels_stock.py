"""Our SkyReels-V2 against diffusers' own classes at the same random weights: however it is run, it is the stock one."""

from types import SimpleNamespace
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan

from engine.discrepancy import relative_l1
from engine.method import Original
from models.skyreels.forward import condition, forward
from models.skyreels.overlap import noised_overlap
from models.skyreels.signals import Signals
from models.wan.blocks import read_text
from tests.marks import some
from tests.tiny import LONG, SHORT, THREE, build, stock, video

CASES = {
    "sync short": {"frames": SHORT, "ar_step": 0},
    "sync long": {"frames": LONG, "ar_step": 0},
    "async short": {"frames": SHORT},
    "async long": {"frames": THREE},
    "async long, last segment shorter": {"frames": 53},
    "lag longer than the steps": {"frames": SHORT, "ar_step": 9},
    "no guidance": {"frames": LONG, "guidance": 1.0},
    "another frame rate": {"frames": SHORT, "fps": 16},
}


@pytest.mark.parametrize("attention", ["full", "block_causal"])
@pytest.mark.parametrize(
    "case", some(CASES, lambda name: name not in ("sync short", "async long", "lag longer than the steps"))
)
def test_original_equals_the_stock_pipeline(case, attention):
    model = build(**case, attention=attention, addnoise=0)
    torch.testing.assert_close(video(model, Original(), seed=3), stock(model, seed=3), atol=1e-5, rtol=0)


def test_blocks_of_one_equal_the_stock_pipeline():
    """Only under full attention: a block of one slot means no mask to the stock model."""
    model = build(frames=LONG, block=1, ar_step=1, addnoise=0)
    torch.testing.assert_close(video(model, Original(), seed=3), stock(model, seed=3), atol=1e-5, rtol=0)


def test_the_attention_setting_changes_the_video():
    ways = [video(build(attention=attention), Original()) for attention in ("full", "block_causal")]
    assert (ways[0] - ways[1]).abs().max() > 1e-3


def test_original_equals_the_stock_pipeline_with_noise_on_the_overlap():
    """The stock pipeline draws this noise from the global generator at every row. Here it gets our noise instead."""
    model = build(frames=LONG, addnoise=20)
    drawn = []

    def listen(x, row, *noise):
        noised = noised_overlap(x, row, *noise)
        prefix = model.settings.segments[row.segment].prefix
        if prefix and row.slots.start != 0:
            noise = (noised[:prefix] - 0.98 * x[:prefix]) / 0.02
            drawn.append(noise.transpose(0, 1)[None])
        return noised

    with mock.patch("models.skyreels.backbone.noised_overlap", listen):
        ours = video(model, Original(), seed=3)
    assert len(drawn) == sum(row.segment == 1 for row in model.schedule())
    assert not torch.equal(drawn[0], drawn[1])
    with mock.patch.object(torch, "randn_like", lambda like: drawn.pop(0)):
        theirs = stock(model, seed=3)
    assert not drawn
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_noise_on_the_overlap_ignores_the_global_generator():
    model = build(frames=LONG)
    torch.manual_seed(1)
    first = video(model, Original())
    torch.manual_seed(2)
    assert torch.equal(video(model, Original()), first)
    assert not torch.equal(video(build(frames=LONG, addnoise=0), Original()), first)


@pytest.mark.parametrize("block", [1, 2, 5])
@pytest.mark.parametrize("fps", [16, 24])
@torch.inference_mode()
def test_forward_equals_the_stock_forward(block, fps):
    model = build().transformer
    x, text = torch.randn(10, 16, 4, 6), torch.randn(1, 8, 32)
    steps = torch.tensor([20, 0, 300, 300, 999, 999, 7, 512, 999, 140])
    when = condition(model, steps, fps, torch.float32)
    ours = forward(model, x, when, read_text(model, text), causal_block=block if block > 1 else 0)
    model._set_ar_attention(block)
    theirs = model(
        hidden_states=x.transpose(0, 1)[None],
        timestep=steps[None],
        encoder_hidden_states=text,
        enable_diffusion_forcing=True,
        fps=[0 if fps == 16 else 1],
    ).sample
    torch.testing.assert_close(ours, theirs[0].transpose(0, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("frames", [1, SHORT])
@torch.inference_mode()
def test_decoding_latent_by_latent_equals_decoding_the_whole(frames):
    model = build(frames=frames, block=1)
    latents = torch.randn(model.settings.latents, 16, 4, 6)
    stats = model.vae.config.latents_mean, model.vae.config.latents_std
    mean, std = (torch.tensor(values).view(1, -1, 1, 1, 1) for values in stats)
    whole = model.vae.decode(latents.transpose(0, 1)[None] * std + mean).sample[0].permute(1, 2, 3, 0)
    whole = ((whole / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    batches = list(model.decode(latents))
    assert [len(batch) for batch in batches] == [1] + [4] * (model.settings.latents - 1)
    assert torch.equal(torch.cat(batches), whole)
    assert whole.shape == (frames, 32, 48, 3)
    assert torch.equal(torch.cat(list(model.decode(latents))), whole)  # nothing is left over in the decoder


@torch.inference_mode()
def test_the_faster_decoder_on_a_cpu_gives_the_stock_decoders_values():
    model = build(frames=SHORT, block=1)
    stock = AutoencoderKLWan.from_config(model.vae.config).eval()
    stock.load_state_dict(model.vae.state_dict())
    changed = [m for m in model.vae.decoder.modules() if {"forward", "_conv_forward"} & set(vars(m))]
    assert len(changed) > 20 and not any({"forward", "_conv_forward"} & set(vars(m)) for m in stock.modules())
    latents = torch.randn(1, 16, 3, 4, 6)
    torch.testing.assert_close(model.vae.decode(latents).sample, stock.decode(latents).sample, atol=2e-5, rtol=0)


@pytest.mark.parametrize("told,fps,change", [(True, 24, 0.05), (True, 16, 0.1), (False, 24, 0.1)])
def test_the_time_projection_holds_the_term_of_the_frame_rate(monkeypatch, told, fps, change):
    """Modulation [1, 1] -> [1.1, 1.1] by hand, the frame rate's term [1, 1] at 24 fps and [0, 0] at 16."""
    weight = 0.1 / F.silu(torch.tensor(1.0))
    linear, rates = torch.nn.Linear(1, 12), torch.nn.Embedding.from_pretrained(torch.tensor([[0.0] * 12, [1.0] * 12]))
    linear.weight.data.fill_(weight), linear.bias.data.fill_(1.0)
    monkeypatch.setattr("models.skyreels.signals.embedded", lambda module, x: x)
    embedder = SimpleNamespace(timesteps_proj=lambda t: t[:, None], time_embedder=None, time_proj=linear)
    model = SimpleNamespace(
        condition_embedder=embedder,
        fps_embedding=rates,
        fps_projection=torch.nn.Identity(),
        config=SimpleNamespace(inject_sample_info=told),
    )
    signals = Signals(model, [0, 1], fps)
    before, now = (signals.of("time_projection", torch.zeros(1), [t]) for t in (0, 1))
    assert relative_l1(now, before, 0.0).item() == pytest.approx(change)


@torch.inference_mode()
def test_signals_are_what_the_forward_itself_computes_first():
    model = build(frames=LONG, addnoise=0)
    transformer, row = model.transformer, model.schedule()[17]
    latents = torch.randn(model.settings.latents, 16, 4, 6)
    when = condition(transformer, model._timesteps(row), 24, torch.float32)
    torch.testing.assert_close(model.probe("time_projection", latents, row), when.blocks)
    torch.testing.assert_close(model.probe("time_embedding", latents, row), when.time)
    window = latents[row.slots.start : row.slots.stop]
    patches = transformer.patch_embedding(window.transpose(0, 1)[None])[0].flatten(2).permute(1, 2, 0)
    torch.testing.assert_close(model.probe("patch_embedding", latents, row), patches)
    kept = model.probe("latent", latents, row)
    latents += 1
    assert torch.equal(kept + 1, latents[row.slots.start : row.slots.stop])  # a copy, not a view
    with pytest.raises(ValueError, match="unknown signal 'sound'; this backbone offers latent, patch_embedding"):
        model.probe("sound", latents, row)


def test_signals_are_float32_whatever_the_precision_so_that_neighbouring_steps_differ():
    model = build(precision="bf16", steps=50, ar_step=0)
    first, second = model.schedule()[0], model.schedule()[1]
    zero = torch.zeros(10, 16, 4, 6)
    signals = [model.probe("time_projection", zero, row) for row in (first, second)]
    assert signals[0].dtype == torch.float32 and (signals[0] - signals[1]).abs().min() > 0


def test_timesteps_of_waiting_finished_and_overlapping_slots():
    """999 before a slot's first step, 0 after its last, the noise level of the overlap on the prefix."""
    model = build(frames=LONG, addnoise=20)
    row = model.schedule()[16]
    assert row.segment == 1 and row.step == (6, 6, 6, 6, 2, 2, 0, 0, 0, 0)
    now, start = model.timesteps[2], model.timesteps[0]
    assert model._timesteps(row).tolist() == [20] * 4 + [now] * 2 + [start] * 2 + [999] * 2
    last = next(r for r in model.schedule() if r.segment == 0 and r.last)
    assert model._timesteps(last).tolist() == [0] * 8 + [model.timesteps[5]] * 2
