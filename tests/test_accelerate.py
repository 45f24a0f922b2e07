"""A method inside a stock diffusers pipeline gives what run.py's own loop gives, and leaves the pipeline as it was."""

from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from diffusers import SkyReelsV2DiffusionForcingPipeline, UniPCMultistepScheduler

from baselines.teacache import TeaCache
from baselines.uniform import Uniform
from conf.schema import ConfigError
from engine.method import Method
from scope import accelerate, summary
from scope.method import Scope
from tests.tiny import ARCHITECTURE, LONG, SHORT, THREE, build, texts_of, video

SCOPE = {"tau_cache": 0.12, "tau_predict": 0.3, "predictor": "taylor1"}
TEACACHE = {"threshold": 0.3, "reuse": "velocity"}
CASES = {
    "synchronous": {"frames": SHORT, "ar_step": 0},
    "asynchronous": {"frames": SHORT},
    "two segments": {"frames": LONG},
    "three segments": {"frames": THREE},
    "no guidance": {"frames": LONG, "guidance": 1.0},
    "another frame rate": {"frames": SHORT, "fps": 16},
}


def pipeline(model):
    """diffusers' pipeline with the modules of a tiny model, block-causal attention as it ships."""
    pipe = SkyReelsV2DiffusionForcingPipeline(
        tokenizer=None,
        text_encoder=None,
        transformer=model.transformer,
        vae=model.vae,
        scheduler=UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=model.settings.shift
        ),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def call(pipe, model, seed=3, **more):
    s, texts = model.settings, texts_of(model, "a fox")
    made = pipe(
        prompt=None,
        prompt_embeds=texts["a fox"],
        negative_prompt_embeds=texts.get(s.negative_prompt),
        height=s.height,
        width=s.width,
        num_frames=s.frames,
        num_inference_steps=s.steps,
        guidance_scale=s.guidance,
        generator=torch.Generator().manual_seed(seed),
        output_type="latent",
        overlap_history=s.overlap if s.frames > s.base_frames else None,
        addnoise_condition=s.addnoise,
        base_num_frames=s.base_frames,
        ar_step=s.ar_step,
        causal_block_size=s.block,
        fps=s.fps,
        **more,
    )
    return made.frames[0].transpose(0, 1)


def causal(**case):
    return build(**case, attention="block_causal", addnoise=0)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize(
    "name, settings, ours",
    [
        ("scope", SCOPE, lambda: Scope(**SCOPE)),
        ("scope", {**SCOPE, "selective": "hull"}, lambda: Scope(**SCOPE, selective="hull")),
        ("uniform", {"interval": 2, "order": 1}, lambda: Uniform(interval=2, order=1)),
        ("teacache", TEACACHE, lambda: TeaCache(**TEACACHE)),
    ],
    ids=["scope", "scope hull", "uniform", "teacache"],
)
def test_a_method_in_the_pipeline_gives_the_latents_of_our_own_loop(case, name, settings, ours):
    model = causal(**case)
    pipe, ledger = pipeline(model), []
    wanted = video(model, ours(), seed=3, ledger=ledger)
    with accelerate(pipe, name, **settings):
        found = call(pipe, model)
    # the two forwards round differently, and extrapolation multiplies that: 1e-5 of a latent's own size on top
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert list(summary(pipe).per_row) == [str(entry.mode) for entry in ledger]
    assert summary(pipe).decisions["recompute"] < len(ledger)


@pytest.fixture(scope="module")
def model():
    return causal(frames=LONG)


@pytest.fixture(scope="module")
def untouched(model):
    return call(pipeline(model), model)


def test_thresholds_of_zero_give_the_bits_of_the_stock_pipeline(model, untouched):
    pipe = pipeline(model)
    with accelerate(pipe, "scope", tau_cache=0.0, tau_predict=0.0, selective="none"):
        assert torch.equal(call(pipe, model), untouched)
    assert summary(pipe).executed_flops == 1.0
    assert summary(pipe).seconds_saved == 0.0


def test_after_disable_the_pipeline_is_the_stock_one(model, untouched):
    pipe = pipeline(model)
    on = accelerate(pipe, "scope", **SCOPE)
    assert not torch.equal(call(pipe, model), untouched)
    assert 0 < summary(pipe).executed_flops < 1
    on.disable()
    on.disable()  # twice does no harm
    assert torch.equal(call(pipe, model), untouched)
    assert not {"check_inputs", "generate_timestep_matrix"} & set(vars(pipe))
    on.enable()
    assert not torch.equal(call(pipe, model), untouched)
    on.disable()


def test_an_exception_in_the_middle_leaves_the_pipeline_usable(model, untouched):
    pipe, calls = pipeline(model), []

    def stop(pipe, i, t, given):
        calls.append(i)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return given

    with accelerate(pipe, "scope", **SCOPE):
        wanted = call(pipe, model)
        with pytest.raises(KeyboardInterrupt):
            call(pipe, model, callback_on_step_end=stop)
        assert torch.equal(call(pipe, model), wanted)  # nothing is left over from the call that ended early
    with pytest.raises(ZeroDivisionError), accelerate(pipe, "scope", **SCOPE):
        1 / 0  # noqa: B018
    assert torch.equal(call(pipe, model), untouched)


def test_callbacks_and_a_batch_of_two_work():
    """The stock forward takes a batch only where the model is not told of the frame rate."""
    model = causal(architecture={**ARCHITECTURE, "inject_sample_info": False})
    pipe, seen = pipeline(model), []
    texts = texts_of(model, "a fox")
    with accelerate(pipe, "scope", **SCOPE):
        made = pipe(
            prompt=None,
            prompt_embeds=texts["a fox"].repeat(2, 1, 1),
            negative_prompt_embeds=texts[""].repeat(2, 1, 1),
            height=32,
            width=48,
            num_frames=SHORT,
            num_inference_steps=6,
            guidance_scale=4.0,
            generator=[torch.Generator().manual_seed(3) for _ in range(2)],
            output_type="latent",
            base_num_frames=SHORT,
            ar_step=2,
            causal_block_size=2,
            callback_on_step_end=lambda pipe, i, t, given: seen.append(i) or given,
        )
    torch.testing.assert_close(made.frames[0], made.frames[1], atol=1e-5, rtol=0)
    assert len(seen) == len(summary(pipe).per_row)


def test_what_cannot_be_done_from_outside_is_refused_with_the_reason(model):
    pipe = pipeline(model)
    for name, settings, reason in (
        ("teacache", {"threshold": 0.1, "reuse": "residual"}, "stands in for blocks"),
        ("scope", {**SCOPE, "selective": "exact"}, "needs settled"),
        ("scope", {**SCOPE, "decide_per": "unit", "selective": "none"}, "needs partial"),
        ("pab", {}, "inside the model's forward"),
    ):
        with pytest.raises(ConfigError, match=reason):
            accelerate(pipe, name, **settings)
    with pytest.raises(ConfigError, match=r"'scop' is not on the menu.*scope"):
        accelerate(pipe, "scop")
    with pytest.raises(ConfigError, match="tau_cash"):
        accelerate(pipe, "scope", tau_cash=0.1)
    with pytest.raises(ConfigError, match="no operating point 'quick' for skyreels; there are: fast, "):
        accelerate(pipe, "scope", "quick")
    with pytest.raises(TypeError, match="SimpleNamespace cannot be accelerated; want SkyReelsV2DiffusionForcing"):
        accelerate(SimpleNamespace())
    assert "_diffusers_hook" not in vars(pipe.transformer) or not pipe.transformer._diffusers_hook.hooks


def test_a_pipeline_is_accelerated_once(model):
    pipe = pipeline(model)
    with pytest.raises(ValueError, match="nothing was generated"):
        summary(pipe)
    with (
        accelerate(pipe, "scope", **SCOPE),
        pytest.raises(ValueError, match=r"accelerated already, by Scope; call disable\(\)"),
    ):
        accelerate(pipe, "uniform", interval=2)


def test_noise_levels_that_do_not_fall_are_refused(model):
    pipe = pipeline(model)
    pipe.scheduler.set_timesteps(6)
    levels = pipe.scheduler.sigmas.flip(0)
    with (
        accelerate(pipe, "scope", **SCOPE),
        mock.patch.object(pipe.scheduler, "set_timesteps", lambda *a, **k: setattr(pipe.scheduler, "sigmas", levels)),
        pytest.raises(ValueError, match="UniPCMultistepScheduler has noise levels that do not fall at every step"),
    ):
        call(pipe, model)


def test_an_operating_point_is_one_file(model, tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("method:\n  tau_cache: 0.12\n  tau_predict: 0.3\n  predictor: taylor1\n")
    pipe = pipeline(model)
    with accelerate(pipe, "scope", point=mine) as on:
        assert (on.hook.method.tau_cache, on.hook.method.predictor) == (0.12, "taylor1")
    with accelerate(pipe, "scope", "fast") as on:
        assert isinstance(on.hook.method, Method) and on.hook.method.tau_predict > 0
