"""FlowCache on SkyReels-V2: its own function and the stock one, pruning, chunks that differ, and the published cost."""

import math

import pytest
import torch
from omegaconf import OmegaConf

from baselines.flowcache import FlowCache
from conf.schema import CONF
from engine.ledger import flops, plan
from engine.loop import generate
from engine.method import Original
from engine.row import Decision, Mode
from engine.visit import Visit
from models.skyreels.backbone import SkyReelsV2
from models.skyreels.settings import SkyReels
from tests.tiny import LONG, build, ledger_of, texts_of, video

OWN = {"reuse": "residual", "signal": "time_projection", "warmup": 2, "cooldown": 1}  # as released on this model
STOCK = {"function": "stock", "prune": False}
ON = {
    "released": {},
    "without pruning": {"prune": False},
    "stock function": STOCK,
    "pruned stock function": {"function": "stock"},
    "velocity": {"reuse": "velocity"},
    "by content": {"signal": "latent"},
}


def flowcache(threshold, **changes):
    return FlowCache(threshold, **{**OWN, **changes})


@pytest.fixture(scope="module")
def models():
    return {kind: build(steps=8, attention=kind) for kind in ("full", "block_causal")}


@pytest.fixture(scope="module")
def originals(models):
    return {kind: video(model, Original()) for kind, model in models.items()}


@pytest.fixture
def of(models):
    """The model with the settings that the method asks for."""
    return lambda method: models[method.reschedule(models["full"].settings).attention]


@pytest.mark.parametrize("changes", [{"fit": "wan_retention"}, {"reuse": "velocity"}], ids=str)
def test_on_the_stock_function_a_threshold_of_0_is_the_original_bit_for_bit(models, originals, changes):
    method = flowcache(0, **STOCK, **changes)
    method.check(models["full"])
    assert method.reschedule(models["full"].settings) == models["full"].settings
    for kind, model in models.items():
        assert torch.equal(video(model, method), originals[kind])


def test_released_but_for_pruning_a_threshold_of_0_is_the_block_causal_original(models, originals, of):
    method = flowcache(0, prune=False)
    assert of(method) is models["block_causal"]
    ours = video(of(method), method)
    assert torch.equal(ours, originals["block_causal"])
    assert not torch.allclose(ours, originals["full"], atol=1e-3)


def test_pruning_is_exact_until_a_chunk_finishes_and_an_approximation_after(models):
    """No chunk attends to waiting chunks. Finished chunks keep the keys and values of their last noisy step."""
    model, seen = models["block_causal"], {}
    for method in (flowcache(0), Original()):
        copies = seen[type(method)] = []
        on_row = lambda row, copies=copies: copies.append((row, model.latents.clone()))  # noqa: E731
        _watched(model, method, on_row)
    pairs = list(zip(seen[FlowCache], seen[Original], strict=True))
    first = next(i for i, (_, (row, _)) in enumerate(pairs) if max(row.step) == row.steps)
    apart = [float((ours - theirs).abs().max()) for (_, ours), (_, theirs) in pairs]
    assert max(apart[:first]) <= 1e-5 < apart[-1]


def _watched(model, method, on_row):
    advance = model.advance

    def watching(latents, row, velocity):
        model.latents = advance(latents, row, velocity)
        return model.latents

    model.advance = watching
    try:
        return generate(model, method, model.conditioning("a fox", texts_of(model, "a fox")), 0, [], on_row)
    finally:
        del model.advance


@pytest.mark.parametrize("changes", ON.values(), ids=ON)
def test_it_saves_flops_by_chunk_and_leaves_nothing_behind(models, of, changes):
    method = flowcache(0.3, **changes)
    model = of(method)
    ledger = []
    first, other = (video(model, method, prompt) for prompt in ("a", "b"))
    again = video(model, method, "a", ledger=ledger)
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert flops(ledger, model.price)[0] < flops(plan(model.schedule()), model.price)[0]
    together = {}
    for entry in ledger:
        together.setdefault(entry.iteration, set()).add(entry.mode)
    assert any(len(modes) == 2 for modes in together.values())  # chunks of one row differ


def test_nothing_is_remembered_from_one_segment_to_the_next():
    method, model = flowcache(0.3), build(frames=LONG, attention="block_causal")
    clean = video(model, method)

    def poison(row):
        if row.last and row.segment == 0:
            held = list(method.state())
            assert held
            for tensor in held:
                tensor.fill_(math.nan)

    text = model.conditioning("a fox", texts_of(model, "a fox"))
    assert torch.equal(generate(model, method, text, 0, [], poison), clean)


def test_a_chunk_is_measured_by_itself_and_warms_up_by_its_own_steps(of):
    method = flowcache(math.inf)
    ledger = ledger_of(of(method), method)
    assert {e.mode for e in ledger if e.step < 2 or e.step >= 7} == {Mode.RECOMPUTE}
    assert {e.mode for e in ledger if 2 <= e.step < 7 and e.why != "cool-down"} == {Mode.CACHE}
    scores = {}
    for entry in ledger:
        if entry.mode is Mode.CACHE:
            scores.setdefault(entry.step, set()).add(entry.score)
    assert all(len(each) == 1 for each in scores.values())  # at one noise level chunks have changed alike
    assert [min(scores[k]) for k in sorted(scores)] == sorted(min(each) for each in scores.values())


def test_without_a_hit_the_published_video_costs_what_the_released_code_does():
    """257 frames: 117.26 PFLOP in the authors' table, which counts the keys of the text once per chunk."""
    settings = dict(OmegaConf.to_container(OmegaConf.load(CONF / "model" / "skyreels.yaml")))
    settings.pop("_target_")
    method = FlowCache(0, **{**OWN, "warmup": 5})
    model = SkyReelsV2(method.reschedule(SkyReels(**settings)), torch.device("cpu"))
    ledger = []
    for row in model.schedule():
        row = method.narrow(row)
        ledger += Visit(method, row, model.depth, {"": [(u, Decision(Mode.RECOMPUTE)) for u in row.units()]}).entries()
    assert flops(ledger, model.price)[1] / 1e15 == pytest.approx(117.26, rel=0.005)
