"""Caches of libraries as methods: they skip the same as ours, and their hooks are removed."""

from importlib.util import find_spec

import pytest
import torch

from baselines.first_block_cache import FirstBlockCache
from baselines.library import External
from baselines.magcache import MagCache
from baselines.pab import PAB
from baselines.taylorseer import TaylorSeer
from engine.ledger import flops, plan
from engine.loop import generate
from engine.method import Original
from engine.row import Mode
from tests.test_magi1_backbone import _model as magi1
from tests.tiny import ARCHITECTURE, build, video

RATIOS = [1.0, 0.95, 0.97, 0.9, 0.98, 0.93, 0.95, 0.92, 0.97, 0.9, 0.95, 0.9]
EVERY_BRANCH = {"cache_identifiers": [r"blocks\.\d+\.(attn1|attn2|ffn)"]}
needs_cache_dit = pytest.mark.skipif(find_spec("cache_dit") is None, reason="the extra `external` is not installed")


def diffusers(technique, **options):
    return External("diffusers", technique, options)


def cache_dit(**options):
    return External("cache_dit", "dbcache", options)


SKIPPING = {
    "first_block_cache": diffusers("first_block_cache", threshold=0.1),
    "mag_cache": diffusers("mag_cache", threshold=0.3, mag_ratios=RATIOS),
    "taylorseer": diffusers("taylorseer", cache_interval=2, **EVERY_BRANCH),
    "taylorseer_lite": diffusers("taylorseer", cache_interval=2, use_lite_mode=True),
    "sea_cache": diffusers("sea_cache", threshold=0.5),
    "cache_dit": cache_dit(Fn_compute_blocks=1, max_warmup_steps=2, residual_diff_threshold=0.1),
}
EXTERNAL = [pytest.param(m, id=n, marks=needs_cache_dit if n == "cache_dit" else ()) for n, m in SKIPPING.items()]


@pytest.fixture(scope="module")
def model():
    return build(architecture={**ARCHITECTURE, "num_layers": 4}, steps=12, frames=61)


@pytest.fixture(scope="module")
def original(model):
    return video(model, Original())


@pytest.mark.parametrize("method", EXTERNAL)
def test_a_librarys_row_skips_tells_what_it_cost_and_leaves_the_model_as_it_was(model, original, method):
    method.check(model)
    ledger = []
    first = video(model, method, ledger=ledger)
    assert sum(tensor.numel() for tensor in method.state()) > 0
    assert torch.isfinite(first).all() and not torch.allclose(first, original, atol=1e-4)
    assert flops(ledger, model.price)[0] < flops(plan(model.schedule()), model.price)[0]
    assert {entry.mode for entry in ledger} > {Mode.RECOMPUTE}
    assert torch.equal(video(model, Original()), original), "no hook is left on the transformer"


def test_no_technique_is_the_models_own_forward_and_the_original_but_for_rounding(model, original):
    ledger = []
    found = video(model, External("diffusers", "none", {}), ledger=ledger)
    torch.testing.assert_close(found, original, rtol=1e-4, atol=1e-4)
    assert flops(ledger, model.price) == flops(plan(model.schedule()), model.price)


# --- ours against theirs, in one run, where both mean the same: all frames denoised together --------------------------


@pytest.fixture(scope="module", params=[4.0, 1.0], ids=["guided", "unguided"])
def together(request):
    architecture = {**ARCHITECTURE, "num_layers": 4}
    return build(architecture=architecture, steps=12, ar_step=0, frames=61, guidance=request.param)


PAIRS = {
    "first_block_cache": (diffusers("first_block_cache", threshold=0.1), FirstBlockCache(0.1)),
    "mag_cache": (
        diffusers("mag_cache", threshold=0.3, max_skip_steps=3, retention_ratio=0.25, mag_ratios=RATIOS),
        MagCache(0.3, RATIOS, RATIOS, max_skip=3, retention=0.25),
    ),
    "taylorseer": (
        diffusers(
            "taylorseer", cache_interval=2, disable_cache_before_step=3, taylor_factors_dtype="float32", **EVERY_BRANCH
        ),
        TaylorSeer(2, 1, warmup=3),
    ),
    "cache_dit": (
        cache_dit(
            Fn_compute_blocks=2,
            Bn_compute_blocks=1,
            max_warmup_steps=3,
            max_continuous_cached_steps=2,
            residual_diff_threshold=0.1,
        ),
        FirstBlockCache(0.1, front=2, back=1, warmup=3, max_skip=2),
    ),
}


@pytest.mark.parametrize(
    "theirs, ours",
    [pytest.param(*pair, id=n, marks=needs_cache_dit if n == "cache_dit" else ()) for n, pair in PAIRS.items()],
)
def test_ours_decides_and_computes_as_the_library_does(together, theirs, ours):
    expected, found = [], []
    reference = video(together, theirs, ledger=expected)
    torch.testing.assert_close(video(together, ours, ledger=found), reference, rtol=1e-3, atol=1e-4)
    assert steps(found, together) == steps(expected, together)
    assert any(entry.sites for entry in found)


def test_pab_is_diffusers_attention_broadcast(together):
    window = [1000 * (together.sigmas[k - 1] + together.sigmas[k]) / 2 for k in (9, 3)]  # steps 3 to 8 lie between
    theirs = diffusers(
        "pyramid_attention_broadcast",
        spatial_attention_block_skip_range=2,
        cross_attention_block_skip_range=2,
        spatial_attention_timestep_skip_range=window,
        cross_attention_timestep_skip_range=window,
    )
    if len(together.branches) > 1:
        with pytest.raises(ValueError, match="each branch would reuse the other's attention"):
            theirs.check(together)
        return
    theirs.check(together)
    expected, found = [], []
    reference = video(together, theirs, ledger=expected)
    mine = video(together, PAB(2, 2, 1, begin=window[1], end=window[0]), ledger=found)
    assert steps(found, together) == steps(expected, together)
    assert {site.split()[0] for entry in found for site in entry.sites} == {"attention", "cross_attention"}
    torch.testing.assert_close(mine, reference, rtol=1e-3, atol=1e-4)


def steps(ledger, model):
    """{(iteration, branch): skipped sites}; a decision for all branches counts for each."""
    whole = [f"{kind} 0:{model.depth}" for kind in ("attention", "cross_attention", "feed_forward")]
    return {
        (e.iteration, b): [f"blocks 0:{model.depth}"] if list(e.sites) == whole else list(e.sites)
        for e in ledger
        for b in ([e.branch] if e.branch else model.branches)
    }


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, told",
    [
        (
            lambda: External("paraattention", "fbcache", {}),
            "library is one of diffusers, cache_dit, got 'paraattention'",
        ),
        (
            lambda: diffusers("faster_cache"),
            "technique of diffusers is one of none, first_block_cache.*got 'faster_cache'",
        ),
    ],
)
def test_an_unknown_library_or_technique_is_refused_with_what_there_is(make, told):
    with pytest.raises(ValueError, match=told):
        make()


@pytest.mark.parametrize(
    "method, told",
    [
        (
            diffusers("first_block_cache", treshold=0.1),
            "treshold is no option of diffusers' first_block_cache; it has threshold",
        ),
        (diffusers("mag_cache", mag_ratios=None), "diffusers refuses these options of mag_cache: `mag_ratios` must be"),
        pytest.param(cache_dit(Fn=3), "options.Fn is no option of cache-dit's DBCache", marks=needs_cache_dit),
    ],
)
def test_options_that_the_library_does_not_have_are_refused(model, method, told):
    with pytest.raises(ValueError, match=told):
        method.check(model)


def test_a_library_that_hooks_nothing_is_an_error_and_not_an_unaccelerated_row(model):
    """diffusers' default patterns for TaylorSeer match no module of this transformer."""
    with pytest.raises(ValueError, match="taylorseer found no module to hook"):
        video(model, diffusers("taylorseer"))
    assert not model.transformer.is_cache_enabled


def test_a_model_that_the_libraries_do_not_know_is_refused():
    with pytest.raises(ValueError, match="External needs transformer, which magi1 does not offer"):
        diffusers("first_block_cache").check(magi1())


def test_cache_dit_that_is_not_installed_is_refused_with_the_extra(model, monkeypatch):
    monkeypatch.setattr("baselines.shared.cache_dit_hooks.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install -e .\[external\]"):
        cache_dit().check(model)


def test_hooks_come_off_when_a_video_fails(model, original):
    method = diffusers("first_block_cache", threshold=0.1)

    def stop(row):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(model, method, model.conditioning("a", model.texts(["a"])), 0, [], stop)
    assert torch.equal(video(model, Original()), original)
