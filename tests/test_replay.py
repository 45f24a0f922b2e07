"""A plan of an accelerated method counts what a video will execute, and says how that is known."""

import pytest
import torch

from benchmarks.common import composed
from engine.ledger import flops, forwards, plan
from engine.loop import generate
from engine.method import TIME_SIGNALS, Original
from engine.row import Mode
from sweep import api
from sweep.replay import EXACT, NOTHING, UNKNOWN, WHOLE, ledger, own
from tests import tiny
from tests.menu import MENU, make
from tests.test_magi1_backbone import _model
from tests.test_menu_identities import SMALL

FIXED = ("budget", "cfg_cache", "delta_dit", "magcache", "meancache", "pab", "ramp", "taylorseer", "uniform")


@pytest.fixture(scope="module")
def models():
    return {"skyreels": tiny.build(**SMALL), "magi1": _model()}


@pytest.mark.parametrize("name", ["skyreels", "magi1"])
@pytest.mark.parametrize("method", FIXED)
def test_a_fixed_rhythm_is_replayed_as_it_runs(models, name, method):
    line, model = MENU[method], models[name]
    if name == "magi1" and line.refused:
        return
    made = make(method, dict(line.on) | ((line.magi1 or {}) if name == "magi1" else {}))
    assert made.decided_by == "schedule"
    ran = []
    texts = model.texts(["a fox", ""])
    generate(model, made, model.conditioning("a fox", texts), 0, ran)
    thought = ledger(model, made)
    assert [(e.iteration, e.slots, e.branch, e.mode, e.why) for e in thought] == [
        (e.iteration, e.slots, e.branch, e.mode, e.why) for e in ran
    ]
    assert flops(thought, model.price) == flops(ran, model.price)
    assert forwards(thought, len(model.branches)) == forwards(ran, len(model.branches))
    assert flops(thought, model.price) < flops(plan(model.schedule()), model.price)


@pytest.mark.parametrize("method", ["scope", "adacache", "teacache", "easycache"])
def test_a_method_that_looks_at_content_is_estimated_and_says_from_what(models, method):
    model, made = models["skyreels"], make(method, MENU[method].on)
    bound = (*flops(plan(model.schedule()), model.price), 100)
    mark = UNKNOWN if made.requires & TIME_SIGNALS else ""  # the weights are random
    assert own(model, made, bound, [], 1.0).basis == NOTHING + mark
    published = own(model, made, bound, [], 0.25)
    assert published.dense == pytest.approx(0.25 * bound[0]) and published.basis.startswith("estimated: 25%")
    stored = own(model, made, bound, [0.2 * bound[0], 0.4 * bound[0]], 0.25)
    assert (
        stored.dense == pytest.approx(0.3 * bound[0]) and stored.basis == "estimated from 2 videos in the store" + mark
    )
    assert not stored.exact and not published.exact
    assert own(model, Original(), bound, [], 0.25).basis == WHOLE


SHORT = {
    "skyreels_tiny": ["model.frames=37", "model.steps=8"],
    "magi1_tiny": ["model.frames=48", "model.steps=8"],
    "far_tiny": ["model.frames=37", "model.steps=8"],
}
BY_TIMES = [  # settings with which a method asks for nothing but times
    "method=scope method.tau_cache=0.5 method.tau_predict=2 method.selective=none method.signal=time_projection",
    "method=scope method.tau_cache=0.5 method.tau_predict=2 method.selective=none method.signal=time_embedding "
    "method.predictor=momentum method.clip=inf method.risk=0.3 method.decide_per=row",
    "method=teacache method.threshold=2 method.fit=none method.signal=time_embedding method.warmup=1",
    "method=teacache method.threshold=9 method.fit=none method.signal=time_projection method.reuse=velocity "
    "method.pool=slot method.warmup=1",
]
BY_CONTENT = [
    "method.predictor=auto method.max_skip=1",  # its errors at past recomputes choose the predictor, and so the order
    "method.reject=0.5",
    "method.signal=latent",
    "method.signal=patch_embedding",
]


@pytest.fixture(scope="module", params=SHORT)
def trained(request):
    """A short video of a trained model: (its words, the model with its weights, the text)."""
    words = [f"model={request.param}", "device=cpu", *SHORT[request.param]]
    _, model, _ = composed([*words, "method=original"])
    model.load()
    texts = model.texts(["a red ball", ""])
    yield words, model, model.conditioning("a red ball", texts)
    model.unload()


def _method(words, setting):
    return api.cell_of(*words, *setting.split()).method


@pytest.mark.parametrize("setting", BY_TIMES)
def test_a_method_that_looks_at_times_alone_is_replayed_as_it_runs(trained, setting, monkeypatch, tmp_path):
    monkeypatch.setenv("SCOPE_CACHE", str(tmp_path))
    words, model, text = trained
    method, ran = _method(words, setting), []
    generate(model, method, text, 0, ran)
    thought = ledger(model, method, model.time_signals())
    assert thought == ran
    assert {entry.mode for entry in ran} > {Mode.RECOMPUTE}, "nothing was skipped, so nothing was shown"
    told = own(model, method, (*flops(plan(model.schedule()), model.price), 100), [], 0.5)
    assert told.basis == EXACT and (told.dense, told.masked) == flops(ran, model.price)
    assert told.forwards == forwards(ran, len(model.branches))


@pytest.mark.parametrize(
    "setting",
    [
        "speed=slow model.frames=37",
        pytest.param(  # two segments
            "speed=fast model.frames=57 model.base_frames=37 model.overlap=17 model.steps=16", marks=pytest.mark.slow
        ),
    ],
)
def test_flowcaches_points_cost_in_real_videos_what_the_plan_says(setting, monkeypatch, tmp_path):
    """Chunks decide separately, and finished ones are left out."""
    monkeypatch.setenv("SCOPE_CACHE", str(tmp_path))
    _, model, method = composed(["model=skyreels_tiny", "device=cpu", "method=flowcache", *setting.split()])
    model.load()
    told = own(model, method, (*flops(plan(model.schedule()), model.price), 100), [], 1.0)
    thought = ledger(model, method, model.time_signals())
    for prompt in ("a red ball", "a blue square moves left"):
        ran = []
        generate(model, method, model.conditioning(prompt, model.texts([prompt, ""])), 0, ran)
        assert thought == ran
        assert {Mode.CACHE, Mode.RECOMPUTE} == {entry.mode for entry in ran}
        assert told.basis == EXACT and (told.dense, told.masked) == flops(ran, model.price)
        assert told.forwards == forwards(ran, len(model.branches))


@pytest.mark.parametrize("setting", BY_CONTENT)
def test_a_setting_that_looks_at_content_is_never_called_exact(trained, setting, monkeypatch, tmp_path):
    monkeypatch.setenv("SCOPE_CACHE", str(tmp_path))
    words, model, _ = trained
    told = own(model, _method(words, f"{BY_TIMES[0]} {setting}"), (2.0, 2.0, 100), [], 1.0)
    assert told.basis == NOTHING


def test_without_the_checkpoint_the_plan_says_that_the_embedding_is_lacking(tmp_path):
    for lacking in ("model.weights=random", f"model.checkpoint={tmp_path / 'none'}"):
        cell = api.cell_of("model=skyreels", "device=cpu", *BY_TIMES[0].split(), lacking)
        told = own(cell.model, cell.method, (2.0, 2.0, 100), [], 0.25)
        assert told.basis.startswith("estimated: 25%") and told.basis.endswith(UNKNOWN) and not told.exact


def test_signals_of_times_without_the_denoiser_are_those_of_the_run(trained):
    _, whole, text = trained
    latents, given = whole.start(text, 0), whole.time_signals()
    for row in whole.schedule():
        latents = whole.open(latents, row) if row.iteration == 0 else latents
        for name in TIME_SIGNALS if row.updating else ():
            assert torch.equal(given(name, row), whole.probe(name, latents, row))


@pytest.mark.parametrize(
    ("method", "printed"), [("scope", {"slow": 53.87, "fast": 46.45}), ("delta_dit", {"fast": 201.6})]
)
def test_a_dry_run_counts_the_methods_own_flops(method, printed, tmp_path):
    for speed, pflop in printed.items():
        words = ("model=skyreels", f"method={method}", f"speed={speed}", "device=cpu", "model.weights=random")
        found = api.plan(*words, results=tmp_path / "none")
        assert found["planned_pf"]["dense"] == pytest.approx(pflop, rel=0.02)
        assert found["flops_pf"]["dense"] > found["planned_pf"]["dense"]
        assert (found["planned_from"] == EXACT) == (method == "delta_dit")
        assert found["gpu_hours"] > 0
