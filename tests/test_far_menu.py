"""Every method of the menu on AnyFlow-FAR: off it is the Original, on it skips, or it is refused with the reason."""

import pytest
import torch

from baselines.pab import PAB
from baselines.shared.cadence import Cadence
from engine.ledger import flops, plan
from engine.method import Original
from engine.row import Mode
from tests import far
from tests.menu import MENU, SENSITIVE, make

SETTINGS = {"steps": 8, "guidance": 2.0, "frames": 5, "chunk_partition": [1, 1], "padding": "masked"}  # two chunks
REFUSED = {  # what the model does itself, or what a library must know
    "arcache": "its units are denoised one after the other",
    "lossless": "none can be left out",
    "motioncache": "only SkyReels-V2 forwards single tokens",
    **{name: "use our method of the same name" for name in MENU if name.startswith("external_")},
}
ON = {  # where the values of the other models skip nothing, or too much, on random weights of few chunks
    "adacache": {"scale": 100.0, "cooldown": 0},
    "dicache": {"threshold": 9.0},
    "first_block_cache": {"threshold": 9.0},
    "easycache": {"threshold": 9.0, "warmup": 1, "cooldown": 0},
    "predit": {"tolerance": 9.0, "warmup": 2, "cooldown": 0},
    "sencache": {"threshold": 9.0, "early": 9.0, **SENSITIVE},
}


@pytest.fixture(scope="module")
def model():
    return far.build(**SETTINGS)


@pytest.fixture(scope="module")
def original(model):
    return far.video(model, Original())


def offered(field):
    return [name for name, line in MENU.items() if getattr(line, field) is not None and name not in REFUSED]


@pytest.mark.parametrize("name", offered("off"))
def test_a_method_that_is_left_nothing_to_skip_is_the_original_bit_for_bit(model, original, name):
    method, ledger = make(name, {"prefix_kv": "shared"} if name == "ca2vdm" else MENU[name].off), []
    method.check(model)
    assert torch.equal(far.video(model, method, ledger=ledger), original)
    assert {entry.mode for entry in ledger} == {Mode.RECOMPUTE}


@pytest.mark.parametrize("name", offered("on"))
def test_a_method_skips_steps_but_no_clean_pass_and_leaves_nothing_for_the_next_video(model, original, name):
    method, ledger = make(name, ON.get(name, MENU[name].on)), []
    method.check(model)
    first = far.video(model, method, ledger=ledger)
    assert torch.isfinite(first).all() and not torch.equal(first, original)
    assert torch.equal(far.video(model, method), first)
    assert flops(ledger, model.price)[0] < flops(plan(model.schedule()), model.price)[0]
    passes = [entry for entry in ledger if entry.why == "clean pass"]
    assert len(passes) == 1 and {entry.mode for entry in passes} == {Mode.RECOMPUTE}


@pytest.mark.parametrize("name", REFUSED)
def test_a_method_that_this_model_cannot_serve_is_refused_with_the_reason(model, name):
    changes = MENU[name].off or {}
    with pytest.raises(ValueError, match=f"which far does not offer .*{REFUSED[name]}"):
        make(name, changes).check(model)


EAGER = {  # settings that skip as soon as a method can
    "adacache": {"scale": 1e9, "warmup": 0, "cooldown": 0},
    "bwcache": {"threshold": 1e9, "reuse": 0.5, "warmup": 0, "cooldown": 0},
    "dicache": {"threshold": 1e9, "cooldown": 0},
    "dsa_proxy": {"threshold": 1e9, "least": 0.0},
    "easycache": {"threshold": 1e9, "warmup": 0, "cooldown": 0},
    "first_block_cache": {"threshold": 1e9, "warmup": 0, "cooldown": 0},
    "flowcache": {"threshold": 1e9, "function": "stock", "warmup": 0},
    "magcache": {"threshold": 9.0, "ratios": [1.0] * 8},
    "sencache": {"threshold": 1e9, "early": 1e9, **SENSITIVE},
    "predit": {"tolerance": 1e9, "warmup": 0, "cooldown": 0},
    "teacache": {"threshold": 1e9, "fit": "none", "warmup": 1},
}


@pytest.mark.parametrize("name", EAGER)
def test_a_method_that_compares_steps_says_how_many_it_needs_and_skips_with_so_many(name):
    method = make(name, EAGER[name])
    least, ledger = method.least_steps, []
    with pytest.raises(ValueError, match=f"at least {least} of them to skip one, and far has {least - 1}; set"):
        method.check(far.plan(steps=least - 1))
    enough = far.build(steps=least, frames=9)
    method.check(enough)
    far.video(enough, method, ledger=ledger)
    assert any(entry.mode is not Mode.RECOMPUTE for entry in ledger)


@pytest.mark.parametrize(
    "name,changes,told",
    [
        ("scope", MENU["scope"].on, "choose a predictor of a lower order, or at least 4 steps"),
        ("taylorseer", {}, "lower it, or give at least 5 steps"),
        ("budget", {"computed": [[0]]}, "needs at least 2 of them to skip one, and far has 1"),
    ],
)
def test_history_that_the_steps_do_not_give_is_refused_with_the_least_number(name, changes, told):
    with pytest.raises(ValueError, match=told):
        make(name, changes).check(far.plan(steps=1))


def test_x_cache_skips_at_a_single_step_because_it_compares_chunks():
    model, ledger = far.build(steps=1, frames=17), []
    method = make("xcache", MENU["xcache"].on)
    method.check(model)
    far.video(model, method, ledger=ledger)
    assert [entry.mode for entry in ledger if entry.unit == 2] == [Mode.CACHE]


def test_the_prefix_computed_anew_at_every_step_gives_the_same_video_at_a_cost_that_grows_faster():
    model = far.build(steps=2, guidance=2.0)
    made = {}
    for kind in ("shared", "recompute"):
        method, ledger = make("ca2vdm", {"prefix_kv": kind}), []
        method.check(model)
        made[kind] = far.video(model, method, ledger=ledger)
        assert flops(ledger, model.price) == flops(plan(map(method.narrow, model.schedule())), model.price)
    assert torch.equal(made["shared"], far.video(model, Original()))
    torch.testing.assert_close(made["recompute"], made["shared"], atol=1e-5, rtol=0)


def test_the_cost_of_a_kept_prefix_grows_in_proportion_to_the_length_and_of_a_recomputed_one_faster():
    """The second half of 31 chunks costs as much as the first where keys are kept, but for attention to more keys."""

    def halves(kind):
        model, method = far.plan(chunks=31, chunk_partition=[1, 2], steps=4), make("ca2vdm", {"prefix_kv": kind})
        method.check(model)
        costs = [model.price([entry])[0] for entry in plan(map(method.narrow, model.schedule()))]
        return sum(costs[len(costs) // 2 :]) / sum(costs[: len(costs) // 2])

    assert halves("shared") < 1.4 and halves("recompute") > 2


def test_the_cadence_of_a_method_does_not_count_clean_passes():
    """Every second row is computed: rows 0, 2, ... of those that denoise, whatever stands between them."""
    cadence, model = Cadence(), far.plan(steps=3)
    rows = [row for row in model.schedule() if row.updating]
    assert [cadence.call(row) for row in rows] == list(range(len(rows)))
    assert len(rows) < len(model.schedule()) and rows[-1].iteration >= len(rows)
    method = PAB(attention=2, begin=1000.0, end=0.0)
    due = [bool(method.due) for row in rows if method.decide(row, None)]
    assert due == [n % 2 == 0 for n in range(len(rows))]
