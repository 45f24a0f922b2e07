"""A method inside a stock diffusers pipeline gives what run.py's own loop gives, and leaves the pipeline as it was."""

from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from diffusers import SkyReelsV2DiffusionForcingImageToVideoPipeline as ImageToVideo
from diffusers import SkyReelsV2DiffusionForcingVideoToVideoPipeline as VideoToVideo
from PIL import Image

from baselines.budget import Budget
from baselines.ramp import Ramp
from baselines.teacache import TeaCache
from baselines.uniform import Uniform
from benchmarks import pipeline_hook
from benchmarks.stock import call as stock_call
from benchmarks.stock import pipeline
from conf.schema import ConfigError
from engine.method import Method
from scope import accelerate, summary
from scope.method import Scope
from tests.marks import some
from tests.tiny import ARCHITECTURE, LONG, SHORT, THREE, build, texts_of, video

SCOPE = {"tau_cache": 0.12, "tau_predict": 0.3, "predictor": "taylor1"}
TEACACHE = {"threshold": 0.3, "reuse": "velocity"}
CASES = {
    "synchronous": {"frames": SHORT, "ar_step": 0},
    "asynchronous": {"frames": SHORT},
    "three segments": {"frames": THREE},
    "no guidance": {"frames": LONG, "guidance": 1.0},
    "another frame rate": {"frames": SHORT, "fps": 16},
}


def call(pipe, model, seed=3, **more):
    texts = texts_of(model, "a fox")
    return stock_call(pipe, model, texts["a fox"], texts.get(model.settings.negative_prompt), seed, **more)[0]


def causal(**case):
    return build(**case, attention="block_causal", addnoise=0)


@pytest.mark.parametrize("case", some(CASES, lambda name: name not in ("no guidance", "another frame rate")))
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
    # The two forwards round differently, by another amount on every kind of CPU, and extrapolation multiplies that.
    # So a single value may be 2e-5 apart, where the largest is 4.8, and all together 2e-6 of their norm.
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-5)
    assert float((found - wanted).norm() / wanted.norm()) < 2e-6
    assert list(summary(pipe).per_row) == [str(entry.mode) for entry in ledger]
    assert summary(pipe).decisions["recompute"] < len(ledger)


MORE = [[0, 1, 2, 3, 4], [0, 2, 4]]  # in odd steps the first unit alone: its neighbours are not computed
SCHEDULES = {
    "ramp": ("asynchronous", Ramp, {"computed": MORE, "retrace": False}),
    "ramp prefix, three segments": (
        "three segments",
        Ramp,
        {"computed": MORE, "selective": "prefix", "retrace": False},
    ),
    "budget, synchronous": ("synchronous", Budget, {"computed": [[0, 1, 2, 4, 5], [0, 2, 5]]}),
}


@pytest.mark.parametrize("case, kind, settings", SCHEDULES.values(), ids=SCHEDULES)
def test_a_schedule_per_unit_computes_the_first_units_of_a_row_and_gives_the_latents_of_our_own_loop(
    case, kind, settings
):
    model, ledger = causal(**CASES[case]), []
    pipe = pipeline(model)
    wanted = video(model, kind(**settings), seed=3, ledger=ledger)
    with accelerate(pipe, kind.__name__.lower(), **settings) as on:
        found = call(pipe, model)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert [(e.iteration, e.unit, e.mode) for e in on.hook.ledger] == [(e.iteration, e.unit, e.mode) for e in ledger]
    modes = {n: {e.mode for e in ledger if e.iteration == n} for n in {e.iteration for e in ledger}}
    mixed = [n for n, found in modes.items() if len(found) > 1]
    assert mixed and {summary(pipe).per_row[n] for n in mixed} == {"recompute"}
    assert summary(pipe).executed_flops < 0.75


def test_a_schedule_that_skips_a_unit_before_a_computed_one_is_refused_before_the_first_forward(model):
    pipe = pipeline(model)
    told = r"at iteration 3 Budget computes unit 1 and skips unit 0, whose keys and values the stock forward does not"
    with accelerate(pipe, "budget", computed=[[0, 2, 4], [0, 1, 3, 5]]) as on, pytest.raises(ValueError, match=told):
        call(pipe, model)
    assert not on.hook.seconds
    full = pipeline(causal(frames=SHORT, ar_step=0, block=1))
    told = "with full attention the units of a row are computed together, so give all one list"
    with accelerate(full, "budget", computed=[[0, 1, 2], [0, 2]]), pytest.raises(ValueError, match=told):
        call(full, model, num_frames=SHORT, base_num_frames=SHORT, ar_step=0, causal_block_size=1, overlap_history=None)


def test_a_method_that_integrates_units_again_is_refused_since_the_sampler_is_the_pipelines(model):
    pipe = pipeline(model)
    told = r"ramp cannot run in a stock pipeline: it needs retrace.* For ramp set retrace=False"
    with pytest.raises(ConfigError, match=told), accelerate(pipe, "ramp", computed=MORE):
        pass


def test_a_schedule_made_for_another_call_is_refused(model):
    pipe, made_for = pipeline(model), {"name": "mine", "frames": LONG, "steps": 6, "block": 2, "ar_step": 2}
    for name, wrong in (("mine", {"attention": "full"}), ("mine", {"frames": 99}), ("other", {})):
        settings = {"computed": MORE, "made_for": {**made_for, **wrong}, "retrace": False}
        with (
            mock.patch("scope.pipeline.build", lambda *_, given=settings: Ramp(**given)),
            accelerate(pipe, "ramp", model=name),
            pytest.raises(
                ValueError, match=r"this schedule was made for name=mine, .* here (attention=block|frames=|name=)"
            ),
        ):
            call(pipe, model)


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
    """The stock forward accepts a batch only if the model has no input for the frame rate."""
    model = causal(architecture={**ARCHITECTURE, "inject_sample_info": False})
    pipe, seen, texts = pipeline(model), [], texts_of(model, "a fox")
    with accelerate(pipe, "scope", **SCOPE):
        made = stock_call(
            pipe,
            model,
            texts["a fox"].repeat(2, 1, 1),
            texts[""].repeat(2, 1, 1),
            3,
            generator=[torch.Generator().manual_seed(3) for _ in range(2)],
            callback_on_step_end=lambda pipe, i, t, given: seen.append(i) or given,
        )
    torch.testing.assert_close(made[0], made[1], atol=1e-5, rtol=0)
    assert len(seen) == len(summary(pipe).per_row)


def test_group_offloading_gives_the_same_bits(model):
    """Its hooks are in the same registry as ours. Here both devices are the CPU, so this tests only the order."""
    plain, moved = (pipeline(causal(frames=SHORT)) for _ in range(2))
    cpu = torch.device("cpu")
    moved.transformer.enable_group_offload(onload_device=cpu, offload_device=cpu, offload_type="leaf_level")
    made = []
    for pipe in (plain, moved):
        with accelerate(pipe, "scope", **SCOPE):
            made.append(call(pipe, model))
        assert summary(pipe).decisions["predict"] > 0
    assert torch.equal(*made)


def offload_layers(pipe):
    """What `enable_sequential_cpu_offload` does; between forwards the weights are meta tensors."""
    for part in (pipe.vae, pipe.transformer):
        cpu_offload(part, execution_device=torch.device("cpu"))


@pytest.mark.parametrize(
    "offload",
    [
        pytest.param(offload_layers, id="layers", marks=pytest.mark.slow),
        pytest.param(lambda pipe: pipe.enable_model_cpu_offload(device="cpu"), id="models"),
    ],
)
def test_cpu_offloading_gives_the_same_bits(offload):
    """Both devices are the CPU. Signals are computed outside the forward, where offloaded weights are elsewhere."""
    plain, moved = (pipeline(causal(frames=SHORT)) for _ in range(2))
    model = causal(frames=SHORT)
    offload(moved)
    for signal in ("time_projection", "patch_embedding"):
        made = []
        for pipe in (plain, moved):
            with accelerate(pipe, "scope", **SCOPE, signal=signal):
                made.append(call(pipe, model))
            assert summary(pipe).decisions["predict"] > 0
        assert torch.equal(*made)
    assert torch.equal(call(moved, model), call(plain, model))


def add_lora(transformer, rank=2, scale=0.5):
    """An adapter as LoRA adds it, scale x A B beside each layer of queries and values, without the package peft."""
    draw = torch.Generator().manual_seed(0)
    for block in transformer.blocks:
        for layer in (block.attn1.to_q, block.attn1.to_v, block.attn2.to_q):
            a = torch.randn(layer.in_features, rank, generator=draw) / layer.in_features**0.5
            b = torch.randn(rank, layer.out_features, generator=draw)
            layer.register_forward_hook(lambda _, given, out, a=a, b=b: out + scale * given[0] @ a @ b)


def test_a_lora_adapter_keeps_working(untouched):
    model = causal(frames=LONG)
    pipe = pipeline(model)
    add_lora(model.transformer)
    adapted = call(pipe, model)
    assert (adapted - untouched).abs().max() > 0.01
    with accelerate(pipe, "scope", **SCOPE):
        found = call(pipe, model)
    torch.testing.assert_close(found, video(model, Scope(**SCOPE), seed=3), atol=1e-5, rtol=1e-5)
    assert torch.equal(call(pipe, model), adapted)


def test_no_weight_changes_its_precision():
    model = causal(frames=SHORT)
    model.transformer.to(torch.bfloat16)
    pipe = pipeline(model)
    plain = call(pipe, model)
    with accelerate(pipe, "scope", **SCOPE):
        call(pipe, model)
    assert {p.dtype for p in model.transformer.parameters()} == {torch.bfloat16}
    assert torch.equal(call(pipe, model), plain)


def picture(seed):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (32, 48, 3), dtype=np.uint8))


SIBLINGS = {
    "from an image": (ImageToVideo, {"image": picture(0), "num_frames": 33}),
    "between two images": (ImageToVideo, {"image": picture(0), "last_image": picture(1), "num_frames": 33}),
    "from an image, long": (ImageToVideo, {"image": picture(0), "overlap_history": 13}),
    "from a video": (VideoToVideo, {"video": [picture(n) for n in range(13)], "overlap_history": 13}),
}


@pytest.mark.parametrize(
    "kind, given",
    [
        pytest.param(*sibling, id=name, marks=[pytest.mark.slow] if name == "from an image, long" else [])
        for name, sibling in SIBLINGS.items()
    ],
)
def test_the_pipelines_that_begin_from_pictures_work(kind, given):
    """Given frames are never updated, so a method keeps values only of the other frames."""
    model = causal(block=1, frames=LONG) if kind is ImageToVideo else causal(frames=LONG)  # one image is one slot
    pipe = pipeline(model, kind)
    plain = call(pipe, model, **given)
    with accelerate(pipe, "scope", tau_cache=0.0, tau_predict=0.0, selective="none"):
        assert torch.equal(call(pipe, model, **given), plain)
    with accelerate(pipe, "scope", **SCOPE) as on:
        found = call(pipe, model, **given)
    told = summary(pipe)
    assert torch.isfinite(found).all() and 0 < told.decisions["recompute"] < len(told.per_row)
    finished = {slot: sum(slot in row.updating for row in on.hook.rows) for row in on.hook.rows for slot in row.slots}
    assert set(finished.values()) == {0, model.settings.steps}
    assert finished[0] == 0 and (finished[max(finished)] == 0) == ("last_image" in given)


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


def test_the_benchmark_times_the_hook_alone_and_leaves_the_pipeline_as_it_was():
    model = causal(frames=SHORT)
    pipe = pipeline(model)
    untouched = call(pipe, model)
    found = pipeline_hook.overhead(pipe, lambda: call(pipe, model), 1, torch.device("cpu"))
    assert found["identical"] and found["rows"] == len(summary(pipe).per_row)
    assert 0 < found["own"] < 10  # a share of the stock forward, which is tiny here
    assert torch.equal(call(pipe, model), untouched)


def test_ours_and_cache_dit_compute_as_many_rows():
    pytest.importorskip("cache_dit", reason="the extra `external` is not installed")
    model = causal(frames=SHORT)
    pipe = pipeline(model)
    found = pipeline_hook.against(model, lambda: call(pipe, model), pipe, "scope", SCOPE, 1)
    assert 0 < found["ours"]["computed"] == found["theirs"]["computed"] < found["rows"]
    assert found["ours"]["latent_error"] > 0 and found["theirs"]["latent_error"] > 0
