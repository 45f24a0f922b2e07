"""Bit-exact identities for every method: switched off it equals the Original, and no state leaks."""

import math

import pytest
import torch

from baselines.reduced_steps import ReducedSteps
from baselines.teacache import TeaCache
from baselines.uniform import Uniform
from engine.loop import generate
from engine.method import Original
from scope.method import Scope
from tests.tiny import LONG, build, texts_of, video

OFF = {  # settings that leave nothing to skip
    "original again": lambda: Original(),
    "scope, thresholds 0": lambda: Scope(0, 0, selective="none"),
    "scope, max_skip 0": lambda: Scope(9, 9, max_skip=0, selective="none"),
    "scope, warm-up only": lambda: Scope(9, 9, warmup=99, selective="none"),
    "scope, by content": lambda: Scope(0, 0, selective="none", signal="latent"),
    "scope, auto": lambda: Scope(0, 0, selective="none", predictor="auto"),
    "scope, against the last recompute": lambda: Scope(0, 0, selective="none", reference="recompute"),
    "teacache, threshold 0": lambda: TeaCache(0),
    "teacache, threshold 0, wan": lambda: TeaCache(0, fit="wan", signal="time_embedding", warmup=1, cooldown=1),
    "teacache, threshold 0, per slot": lambda: TeaCache(0, pool="slot"),
    "teacache, threshold 0, per branch": lambda: TeaCache(0, per_branch=True),
    "uniform, interval 1": lambda: Uniform(1),
    "uniform, interval 1, order 2": lambda: Uniform(1, order=2),
    "reduced steps, all of them": lambda: ReducedSteps(1.0),
}
ON = {  # settings that skip, in every way there is
    "scope, cache": lambda: Scope(9, 9, max_skip=3, selective="none"),
    "scope, newton2": lambda: Scope(0, 9, max_skip=2, predictor="newton2"),
    "scope, taylor2 and bounds": lambda: Scope(0, 9, predictor="taylor2", reject=5.0, amplitude=0.5),
    "scope, momentum on the hull": lambda: Scope(0.1, 9, max_skip=2, predictor="momentum", selective="hull"),
    "scope, spectrum and the blend": lambda: Scope(0, 9, max_skip=2, predictor="spectrum", risk=0.3),
    "scope, auto": lambda: Scope(0.01, 9, max_skip=2, predictor="auto", signal="patch_embedding"),
    "scope, from the recompute": lambda: Scope(0.05, 0.2, reference="recompute", signal="latent"),
    "teacache": lambda: TeaCache(0.3, fit="none", warmup=1),
    "teacache, per slot": lambda: TeaCache(0.3, fit="none", warmup=1, pool="slot"),
    "teacache, per branch": lambda: TeaCache(0.3, fit="none", warmup=1, per_branch=True),
    "uniform": lambda: Uniform(2.5),
    "uniform, order 2": lambda: Uniform(3, order=2),
}


@pytest.fixture(scope="module", params=[pytest.param("full", marks=pytest.mark.slow), "block_causal"])
def model(request):
    return build(frames=LONG, attention=request.param, steps=8)


@pytest.fixture(scope="module")
def original(model):
    return video(model, Original())


@pytest.fixture(scope="module")
def full():
    return build(frames=LONG, steps=8)


@pytest.mark.parametrize("make", OFF.values(), ids=OFF)
def test_switched_off_every_method_is_the_original(make, model, original):
    method = make()
    assert method.reschedule(model.settings) == model.settings
    ledger = []
    assert torch.equal(video(model, method, ledger=ledger), original)
    assert {entry.mode for entry in ledger} == {"recompute"}


@pytest.mark.parametrize("make", ON.values(), ids=ON)
def test_a_prompt_gives_the_same_video_whatever_was_made_before_it(make, full):
    """A, B, A with one model and one method object; and again with fresh ones."""
    method, ledger = make(), []
    first, other = video(full, method, "a", ledger=ledger), video(full, method, "b")
    assert torch.equal(video(full, method, "a"), first) and not torch.equal(first, other)
    assert torch.equal(video(build(frames=LONG, steps=8), make(), "a"), first)
    assert len({entry.mode for entry in ledger}) > 1  # it does skip


@pytest.mark.parametrize("make", ON.values(), ids=ON)
def test_nothing_is_remembered_from_one_segment_to_the_next(make, full):
    """NaN replaces all state at the end of the first segment. The second segment must not change."""
    method = make()
    clean = video(full, method)

    def poison(row):
        if row.last and row.segment == 0:
            held = list(method.state())
            assert held
            for tensor in held:
                tensor.fill_(math.nan)

    text = full.conditioning("a fox", texts_of(full, "a fox"))
    assert torch.equal(generate(full, method, text, 0, [], poison), clean)


@pytest.mark.parametrize("make", ON.values(), ids=ON)
def test_a_method_never_writes_to_what_it_is_shown(make, full):
    """Every tensor that keep, fill and decide get is compared with itself afterwards."""
    method, broken = make(), []

    def watched(name, call):
        def wrapper(*arguments):
            shown = [a for a in arguments if torch.is_tensor(a)]
            before = [a.clone() for a in shown]
            result = call(*arguments)
            broken.extend(name for a, b in zip(shown, before, strict=True) if not torch.equal(a, b))
            return result

        return wrapper

    for name in ("keep", "fill"):
        setattr(method, name, watched(name, getattr(method, name)))
    probe_values = []
    probe = full.probe

    def listening(name, latents, row):
        value = probe(name, latents, row)
        probe_values.append((value, value.clone()))
        return value

    full.probe = listening
    try:
        text = full.conditioning("a fox", texts_of(full, "a fox"))
        generate(full, method, text, 0, [])
    finally:
        del full.probe
    assert broken == [] and all(value.equal(copy) for value, copy in probe_values)


def test_another_seed_or_prompt_is_another_video(full):
    videos = [video(full, Original(), prompt, seed) for prompt, seed in (("a", 0), ("a", 1), ("b", 0))]
    assert not any(torch.equal(x, y) for x, y in (videos[:2], videos[1:], videos[::2]))


def test_methods_compared_share_their_noise(full):
    """The first row's input, and the noise on the overlap, are those of the Original."""
    starts = []
    for method in (Original(), Scope(9, 9), TeaCache(9, fit="none")):
        seen = []
        open_ = full.open

        def opened(latents, row, open_=open_, seen=seen):
            latents = open_(latents, row)
            seen.append(latents[row.slots.start : row.slots.stop][row.step.count(row.steps) :].clone())
            return latents

        full.open = opened
        try:
            video(full, method)
        finally:
            del full.open
        starts.append(seen)
    assert all(torch.equal(a, b) for other in starts[1:] for a, b in zip(starts[0], other, strict=True))
