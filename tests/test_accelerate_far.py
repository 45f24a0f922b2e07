"""A method inside the stock pipeline of AnyFlow-FAR: the latents of run.py's own loop, and clean passes always run."""

from unittest import mock

import pytest
import torch
import torch.nn.functional as F

from baselines.budget import Budget
from baselines.easycache import EasyCache
from baselines.ramp import Ramp
from baselines.teacache import TeaCache
from baselines.uniform import Uniform
from benchmarks import stock_far
from conf.schema import ConfigError
from engine.row import Mode
from models.far.pipeline import CLEAN
from models.far.shape import Shape
from models.far.stock_price import StockPrice
from scope import accelerate, summary
from scope.method import Scope
from tests import far
from tests.counting import Counter

SHORT = {"steps": 5, "frames": 17}  # 5 latents in chunks of 1, 2, 2
SCOPE = {"tau_cache": 0.25, "tau_predict": 0.5, "predictor": "taylor1", "selective": "none"}
OFF = {"tau_cache": 0.0, "tau_predict": 0.0, "selective": "none"}
METHODS = {
    "scope": (Scope, SCOPE),
    "scope, per chunk": (Scope, {**SCOPE, "decide_per": "unit"}),
    "uniform": (Uniform, {"interval": 2, "order": 1}),
    "ramp": (Ramp, {"computed": [[0, 1, 2, 4], [0, 2, 4]], "retrace": False}),
    "budget": (Budget, {"computed": [[0, 1, 3, 4], [0, 2], [0, 1, 3]], "order": 0}),
    "easycache": (EasyCache, {"threshold": 9.0, "warmup": 1, "cooldown": 0}),
    "teacache": (TeaCache, {"threshold": 0.42, "fit": "none", "warmup": 1, "reuse": "velocity"}),
}


def call(pipe, model, seed=0, **more):
    texts = model.texts(["a fox"])
    return stock_far.call(pipe, model, texts["a fox"], texts.get(model.settings.negative_prompt), seed, **more)


@pytest.fixture(scope="module")
def model():
    return far.build(**SHORT, guidance=2.0)


@pytest.fixture(scope="module")
def untouched(model):
    return call(stock_far.pipeline(model), model)


@pytest.mark.parametrize("kind, settings", METHODS.values(), ids=METHODS)
def test_a_method_in_the_pipeline_gives_the_latents_of_our_own_loop(model, kind, settings):
    pipe, ledger = stock_far.pipeline(model), []
    wanted = far.video(model, kind(**settings), ledger=ledger)
    with accelerate(pipe, kind.__name__.lower(), **settings) as on:
        found = call(pipe, model)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)  # as for the other pipeline
    assert [(e.iteration, e.unit, e.mode, e.step, e.why) for e in on.hook.ledger] == [
        (e.iteration, e.unit, e.mode, e.step, e.why) for e in ledger
    ]
    told = summary(pipe)
    assert list(told.per_row) == [str(entry.mode) for entry in ledger if entry.why != CLEAN]
    assert told.decisions["recompute"] < len(told.per_row) == 15 and told.clean_passes == 2
    assert 0 < told.executed_flops < 1 and "and 2 clean passes;" in str(told)


@pytest.mark.parametrize(
    "changes",
    [
        {
            "steps": 3,
            "guidance": 1.0,
            "frames": 29,
        },  # 8 latents in 5 chunks, of which two are seen in compressed form at the end
        {"use_mean_velocity": False, "frames": 9},
        {"steps": 3, "shift": 1.0, "architecture": far.ARCHITECTURE | {"full_chunk_limit": 2}},
    ],
    ids=["no guidance", "one time", "other steps"],
)
def test_other_calls_give_the_latents_of_our_own_loop_too(changes):
    model = far.build(**{**SHORT, **changes})
    pipe = stock_far.pipeline(model)
    for name, kind, settings in (("scope", Scope, {**SCOPE, "max_skip": 1}), ("teacache", *METHODS["teacache"])):
        with accelerate(pipe, name, **settings):
            found = call(pipe, model)
        torch.testing.assert_close(found, far.video(model, kind(**settings)), atol=1e-5, rtol=1e-5)
        assert summary(pipe).decisions["recompute"] < len(summary(pipe).per_row)


def test_thresholds_of_zero_give_the_bits_of_the_stock_pipeline(model, untouched):
    pipe = stock_far.pipeline(model)
    with accelerate(pipe, "scope", **OFF):
        assert torch.equal(call(pipe, model), untouched)
    assert summary(pipe).executed_flops == 1.0 and summary(pipe).seconds_saved == 0.0


def test_every_clean_pass_runs_whatever_is_skipped(model):
    pipe, ran = stock_far.pipeline(model), []
    with accelerate(pipe, "uniform", interval=5) as on:
        stock = on.hook.fn_ref.original_forward
        on.hook.fn_ref.original_forward = lambda *a, **k: (
            ran.append(k["kv_cache_flag"]["is_cache_step"]) or stock(*a, **k)
        )
        call(pipe, model)
    assert ran == [False, True, False, True, False]  # one step of each chunk; the last one has no clean pass
    assert [entry.mode for entry in on.hook.ledger if entry.why == CLEAN] == [Mode.RECOMPUTE] * 2


def test_given_chunks_are_continued_and_only_the_others_have_steps(model):
    pipe = stock_far.pipeline(model)
    given = torch.randn(1, 3, 16, 4, 8, generator=torch.Generator().manual_seed(0))
    plain = call(pipe, model, video_latents=given)
    with accelerate(pipe, "scope", **OFF) as on:
        assert torch.equal(call(pipe, model, video_latents=given), plain)
    assert [(row.slots, row.forced) for row in on.hook.rows[:3]] == [
        (range(1), CLEAN),
        (range(1, 3), CLEAN),
        (range(3, 5), ""),
    ]
    assert {row.given for row in on.hook.rows} == {3} and summary(pipe).clean_passes == 2
    with accelerate(pipe, "budget", computed=[[0, 1], [0]]) as on:  # the first list is that of the first chunk to make
        call(pipe, model, video_latents=given)
    assert summary(pipe).per_row == ("recompute", "recompute", *["predict"] * 3)


def test_an_exception_in_the_middle_leaves_the_pipeline_usable(model, untouched):
    pipe, calls = stock_far.pipeline(model), []

    def stop(pipe, i, t, given):
        calls.append(i)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return given

    with accelerate(pipe, "scope", **SCOPE) as on:
        wanted = call(pipe, model)
        with pytest.raises(KeyboardInterrupt):
            call(pipe, model, callback_on_step_end=stop)
        assert torch.equal(call(pipe, model), wanted)
    assert torch.equal(call(pipe, model), untouched)
    assert not set(on.hook.wrapped) & set(vars(pipe))
    on.enable()
    assert torch.equal(call(pipe, model), wanted)
    on.disable()


def test_too_few_steps_and_what_needs_the_inside_are_refused_with_the_reason(model):
    pipe = stock_far.pipeline(model)
    for name, settings, reason in (
        ("scope", {**SCOPE, "selective": "prefix"}, r"needs narrow, .* \(for scope: selective=none\)"),
        ("teacache", {"threshold": 0.1}, "stands in for blocks"),
        ("taylorseer", {}, "inside the model's forward"),
    ):
        with pytest.raises(ConfigError, match=reason):
            accelerate(pipe, name, **settings)
    for name, settings in (("predit", {"tolerance": 1.0}), ("easycache", METHODS["easycache"][1])):
        with (
            accelerate(pipe, name, **settings) as on,
            pytest.raises(ValueError, match=f"at least {on.hook.method.least_steps} of them to skip one, and AnyFlow"),
        ):
            call(pipe, model, num_inference_steps=on.hook.method.least_steps - 1)
    with accelerate(pipe, "scope", "fast") as on:  # the point of `far`, which is this pipeline's model
        assert on.hook.method.selective == "none"


def test_noise_levels_that_do_not_fall_are_refused(model):
    pipe = stock_far.pipeline(model)
    for levels in ([1.0, 0.5, 0.5], [1.0, 0.2, 0.5], [1.0, float("nan"), 0.5]):
        with (
            accelerate(pipe, "scope", **SCOPE),
            pytest.raises(ValueError, match="FlowMapEulerDiscreteScheduler has noise levels that do not fall"),
        ):
            call(pipe, model, num_inference_steps=3, sigmas=levels)


def test_the_price_of_the_stock_pipelines_forwards_is_torchs_count():
    """Attention is counted in steps only: torch cannot count it under the mask of a clean pass."""
    model, counts = far.build(steps=1, guidance=2.0), []
    pipe, kernel = (
        stock_far.pipeline(model),
        "diffusers.models.transformers.transformer_anyflow_far.dispatch_attention_fn",
    )

    width = far.ARCHITECTURE["attention_head_dim"]

    def attention(q, k, v, attn_mask=None, **_):
        if attn_mask is not None:
            return torch.zeros_like(q)
        own = (x[..., :width].transpose(1, 2) for x in (q, k, v))  # heads narrower than 16 are filled up with zeros
        return F.pad(F.scaled_dot_product_attention(*own).transpose(1, 2), (0, q.shape[-1] - width))

    with accelerate(pipe, "uniform", interval=1) as on, Counter() as flop, mock.patch(kernel, attention):
        stock = on.hook.fn_ref.original_forward

        def counted(*args, **kwargs):
            before, out = flop.total, stock(*args, **kwargs)
            counts.append(flop.total - before)
            return out

        on.hook.fn_ref.original_forward = counted
        call(pipe, model)
    price = StockPrice(model.settings, Shape.of(model.settings))

    def uncounted(entry):
        parts = price._renewed(entry.unit, whole=True)[1] if entry.why == CLEAN else []
        return 2 * price.depth * price.shape.width * sum(4.0 * count * seen for count, seen in parts)

    prices = [price.both([entry])[0] - uncounted(entry) for entry in on.hook.ledger]
    assert prices == pytest.approx(counts, rel=0.005)
    assert len({round(cost) for cost in prices}) > 6
