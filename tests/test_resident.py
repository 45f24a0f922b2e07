"""Memory is freed after every video: peaks do not depend on the order, and running out of memory affects one video."""

from dataclasses import replace

import pytest

from baselines.flowcache import FlowCache
from baselines.taylorseer import TaylorSeer
from benchmarks.simulated_memory import SimulatedMemory
from engine.method import Original
from engine.produce import forget, produce
from engine.resident import Resident
from models.magi1.backbone import Magi1Backbone
from tests import tiny, tiny_menu
from tests.test_magi1_backbone import TINY as MAGI1
from tests.test_run import call, records
from tests.tiny import ARCHITECTURE, CPU, TINY

DEEP = {**ARCHITECTURE, "num_layers": 17}  # so that what TaylorSeer keeps at blocks outweighs all else


@pytest.fixture(scope="module")
def skyreels():
    model = tiny.build(architecture=DEEP)
    texts = tiny.texts_of(model, "a fox") | tiny.texts_of(model, "")
    return model, model.conditioning("a fox", texts)


def peak(memory, model, method, text):
    """(peak of one video minus the memory before it, memory after it minus that before it)."""
    before = memory.peak = memory.live
    produce(model, method, text, 0, lambda batches: None)
    highest = memory.peak - before
    forget(model, method)
    return highest, memory.live - before


@pytest.mark.slow
def test_the_peak_of_a_video_does_not_depend_on_what_ran_before(skyreels):
    model, text = skyreels
    with SimulatedMemory() as memory:
        peak(memory, model, Original(), text)  # tables that are made once
        alone, left = peak(memory, model, Original(), text)
        large, left_by_large = peak(memory, model, TaylorSeer(interval=2), text)
        after, _ = peak(memory, model, Original(), text)
    assert large > 1.5 * alone, "the method holds enough for a leak to show"
    assert left == 0 and left_by_large <= 4096, "a table of weights may stay, no state"
    assert after == pytest.approx(alone, rel=0.01)


@pytest.mark.slow
def test_an_out_of_memory_costs_one_video(tmp_path, skyreels):
    model, text = skyreels
    with SimulatedMemory() as memory:
        peak(memory, model, Original(), text)
        alone, _ = peak(memory, model, Original(), text)
    tiny_menu.write(tmp_path, architecture=DEEP)
    weights = sum(p.numel() * p.element_size() for p in (*model.transformer.parameters(), *model.vae.parameters()))
    with SimulatedMemory(limit=weights + 1.5 * alone):
        said = {
            method: call(
                "--config-dir",
                tmp_path,
                "model=tiny",
                f"method={method}",
                "method.interval=2",
                "isolate=false",
                "prompts.list=[a fox,a cat]",
                "prompts.file=''",
                f"results={tmp_path / 'r'}",
                "device=cpu",
                "score=false",
                "report=false",
            )
            for method in ("taylorseer", "uniform")
        }
    assert [said[method].status for method in said] == [1, 0], said
    failed = records(tmp_path / "r", "taylorseer")
    assert len(failed) == 2 and all("OutOfMemoryError" in record.run["reason"] for record in failed)
    for method in ("original", "uniform"):
        found = records(tmp_path / "r", method)
        assert len(found) == 2 and all(record.status == "ok" for record in found), method
    assert all(record.run["memory_before"] > 0 for record in found)


def test_two_settings_of_one_model_hold_its_modules_once():
    base, resident = Magi1Backbone(MAGI1, CPU), Resident()
    other = Magi1Backbone(FlowCache(threshold=0.1).reschedule(MAGI1), CPU)
    assert other.settings != base.settings, "FlowCache changes the function"
    resident.ready(base)
    resident.ready(other)
    assert other.transformer is base.transformer and other.vae is base.vae
    stranger = tiny.SkyReelsV2(TINY, CPU)
    resident.ready(stranger)
    assert stranger.loaded and not base.loaded and not other.loaded
    resident.release()
    assert not stranger.loaded


@pytest.mark.parametrize("change", [{"precision": "bf16"}, {"architecture": DEEP}, {"weights": "pretrained"}])
def test_modules_of_other_weights_are_not_shared(change):
    loaded, other = tiny.build(), tiny.SkyReelsV2(replace(TINY, **change), CPU)
    assert not other.adopt(loaded) and not other.loaded


def test_hooks_of_a_library_are_freed_with_their_segment(skyreels):
    import gc
    import weakref

    from baselines.library import Run
    from baselines.shared import diffusers_hooks as driver

    model, _ = skyreels
    driver.enable(
        model.transformer,
        "taylorseer",
        {"cache_interval": 2, "disable_cache_before_step": 0, "cache_identifiers": [r"blocks\.0\.ffn"]},
        Run(4, 2),
    )
    held = [hook for hook in driver.hooks(model.transformer) if any(name in vars(hook) for name in driver.STATES)]
    states = [weakref.ref(vars(hook)[name]) for hook in held for name in driver.STATES if name in vars(hook)]
    assert states
    gc.disable()
    try:
        driver.disable(model.transformer)
        assert all(state() is None for state in states), "freed at once, not when the collector comes"
    finally:
        gc.enable()
    assert not list(driver.hooks(model.transformer))
