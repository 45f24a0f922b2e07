"""Several methods at once: each at its own site, told when it was not reached, refused where two stand at one place."""

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from baselines.cfg_cache import CfgCache
from baselines.composite import Composite
from baselines.first_block_cache import FirstBlockCache
from conf.schema import CONF, parse
from engine.fingerprint import code_of
from engine.ledger import flops
from engine.method import Original
from engine.row import Mode
from scope.method import Scope
from tests.tiny import ARCHITECTURE, build, video

SCOPE = {"_target_": "scope.method.Scope", "tau_cache": 0.3, "tau_predict": 0.9, "cooldown": 1}
CFG = {"_target_": "baselines.cfg_cache.CfgCache", "interval": 3}
FIRST = {"_target_": "baselines.first_block_cache.FirstBlockCache", "threshold": 0.1}
DELTA = {"_target_": "baselines.delta_dit.DeltaDiT", "interval": 3}
PAB = {"_target_": "baselines.pab.PAB"}
NEVER = {
    "scope": {**SCOPE, "tau_cache": 0, "tau_predict": 0, "selective": "none"},
    "cfg": {**CFG, "interval": 1},
    "first": {**FIRST, "threshold": 0},
    "pab": {**PAB, "attention": 1, "cross_attention": 1},
}


@pytest.fixture(scope="module")
def model():
    return build(architecture={**ARCHITECTURE, "num_layers": 4}, steps=12)


def run(model, method):
    ledger = []
    method.check(model)
    return video(model, method, ledger=ledger), ledger


def test_parts_that_never_skip_are_the_original_bit_for_bit(model):
    latents, ledger = run(model, Composite(NEVER))
    assert torch.equal(latents, video(model, Original()))
    assert {entry.mode for entry in ledger} == {Mode.RECOMPUTE}


def test_one_part_among_idle_ones_decides_as_it_does_alone(model):
    for name, part, alone in (("cfg", CFG, CfgCache(3)), ("first", FIRST, FirstBlockCache(0.1))):
        together, ledger = run(model, Composite({**NEVER, name: part}))
        by_itself, own = run(model, alone)
        assert torch.equal(together, by_itself)
        assert [(e.mode, e.sites, e.branch) for e in ledger] == [(e.mode, e.sites, e.branch) for e in own]


@pytest.mark.parametrize(
    "parts",
    [
        {"scope": SCOPE, "cfg": CFG},
        {"scope": SCOPE, "cfg": CFG, "first": FIRST},
        {"cfg": CFG, "delta": DELTA, "pab": PAB},
    ],
    ids=lambda parts: " + ".join(parts),
)
def test_parts_together_cost_less_than_each_alone_and_leave_nothing_behind(model, parts):
    method = Composite(parts)
    first, ledger = run(model, method)
    assert torch.isfinite(first).all() and torch.equal(video(model, method), first)
    cost = flops(ledger, model.price)[0]
    for name in parts:
        _, own = run(model, Composite(idle_but(parts, name)))
        assert cost < flops(own, model.price)[0], name
    assert sum(t.numel() for t in method.state()) == sum(
        t.numel() for part in method.methods.values() for t in part.state()
    )


def idle_but(parts, name):
    """The same parts in the same order; only one of them may skip."""
    idle = {**NEVER, "delta": {**DELTA, "interval": 1}}
    return {other: settings if other == name else idle[other] for other, settings in parts.items()}


def test_where_the_whole_step_is_cached_no_inner_site_is_stood_in_for(model):
    _, ledger = run(model, Composite({"scope": SCOPE, "cfg": CFG, "first": FIRST}))
    kinds = [{site.split(" ")[0] for site in entry.sites} for entry in ledger]
    assert {"velocity"} in kinds and {"guidance"} in kinds and {"blocks"} in kinds
    assert all(len(found) <= 1 for found in kinds)
    for entry, found in zip(ledger, kinds, strict=True):
        assert "guidance" not in found or entry.branch == "uncond"


@pytest.mark.parametrize(
    "parts, told",
    [
        ({"scope": SCOPE}, "needs at least two methods"),
        ({"a": SCOPE, "b": {"_target_": "os.path"}}, "want a dataclass derived"),
        ({"a": SCOPE, "b": {"_target_": "nowhere.Method"}}, "cannot be imported"),
        (
            {"a": SCOPE, "b": {**CFG, "intervall": 3}},
            "parts.b.intervall is no setting of CfgCache; there are: interval",
        ),
        ({"a": SCOPE, "b": {**CFG, "interval": 0}}, "parts.b: interval must lie in"),
        ({"a": CFG, "b": {**SCOPE, "tau_cache": "???"}}, "set method.parts.b.tau_cache"),
        ({"a": SCOPE, "b": {**SCOPE, "decide_per": "unit"}}, "all parts must decide per row, or all per unit"),
    ],
)
def test_parts_that_cannot_be_built_are_named(parts, told):
    with pytest.raises(ValueError, match=told):
        Composite(parts)


@pytest.mark.parametrize(
    "parts, told",
    [
        ({"a": FIRST, "b": DELTA}, "both use"),
        ({"a": SCOPE, "b": SCOPE}, "both use velocity"),
        ({"first": FIRST, "scope": SCOPE}, "the sites of part scope enclose those of first; put scope first"),
    ],
)
def test_parts_at_one_place_or_in_the_wrong_order_are_refused(model, parts, told):
    with pytest.raises(ValueError, match=told):
        Composite(parts).check(model)


def test_what_a_record_is_keyed_by_names_the_code_of_every_part():
    method = Composite({"scope": SCOPE, "cfg": CFG})
    assert {name: part["code"] for name, part in method.parts.items()} == {
        "scope": code_of(Scope),
        "cfg": code_of(CfgCache),
    }
    assert list(Composite(method.parts).methods) == ["scope", "cfg"], "and can be built again from its own settings"


def test_the_menu_combines_its_own_entries(model, tmp_path):
    """A user's YAML may compose parts from the menu, and the command line may change them."""
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "both.yaml").write_text(
        "# Both.\ndefaults: [scope@parts.scope, cfg_cache@parts.cfg_cache]\n_target_: baselines.composite.Composite\n"
    )
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        more = [f"hydra.searchpath=[file://{tmp_path}]", "method=both", "method.parts.scope.tau_predict=0.4"]
        *_, method = parse(compose("config", overrides=[*more, "method.parts.scope.tau_cache=0.1"]))
    assert list(method.methods) == ["scope", "cfg_cache"] and method.methods["scope"].tau_predict == 0.4
    method.check(model)
