"""A plan of an accelerated method counts what a video will execute, and says how that is known."""

import pytest

from engine.ledger import flops, forwards, plan
from engine.loop import generate
from engine.method import Original
from sweep import api
from sweep.replay import EXACT, NOTHING, WHOLE, ledger, own
from tests import tiny
from tests.menu import MENU, make
from tests.test_magi1_backbone import _model
from tests.test_menu_identities import SMALL

FIXED = ("budget", "cfg_cache", "delta_dit", "magcache", "pab", "ramp", "taylorseer", "uniform")


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
    assert own(model, made, bound, [], 1.0).basis == NOTHING
    published = own(model, made, bound, [], 0.25)
    assert published.dense == pytest.approx(0.25 * bound[0]) and published.basis.startswith("estimated: 25%")
    stored = own(model, made, bound, [0.2 * bound[0], 0.4 * bound[0]], 0.25)
    assert stored.dense == pytest.approx(0.3 * bound[0]) and stored.basis == "estimated from 2 videos in the store"
    assert not stored.exact and not published.exact
    assert own(model, Original(), bound, [], 0.25).basis == WHOLE


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
