"""A measure that is no finite number computes, in every method that measures and in whichever slot it stands."""

import math

import pytest
import torch

from baselines.adacache import AdaCache
from baselines.bwcache import BWCache
from baselines.dsa_proxy import DSAProxy
from baselines.easycache import EasyCache
from baselines.first_block_cache import FirstBlockCache
from baselines.flowcache import FlowCache
from baselines.magcache import MagCache
from baselines.predit import PrediT
from baselines.teacache import TeaCache
from engine.row import Mode
from scope.method import Scope
from tests.by_hand import modes, row_at, through, velocities

STEPS, SLOTS, BAD = 12, 3, 5  # BAD: the step at which one slot is spoiled


def spoiled(value, slot, shape):
    """Inputs that change little, with `value` in one slot of step BAD (None: in no slot)."""
    inputs = [torch.full((SLOTS, *shape), 1 + 1e-3 * k) for k in range(STEPS)]
    if value is not None:
        inputs[BAD][slot] = value
    return inputs


def by_input(method, value, slot):
    """The signal of step BAD is not finite; the output of the model is."""
    compute = lambda x, k: torch.full_like(x, 2 + 2e-3 * k)  # noqa: E731
    return modes(velocities(method, compute, spoiled(value, slot, (1, 1, 1)))[1])


def by_output(method, value, slot):
    """The model's output at step 1 is not finite, and so is the change that the method measures there."""

    def compute(x, k):
        out = torch.full_like(x, 2 + 2e-3 * k)
        if k == 1 and value is not None:
            out[slot] = value
        return out

    return modes(velocities(method, compute, spoiled(None, slot, (1, 1, 1)))[1])


def by_blocks(method, value, slot):
    """The input of the blocks at step BAD is not finite."""
    return modes(through(method, [lambda x: 2 * x] * 2, spoiled(value, slot, (1, 1)))[1])


def by_early_blocks(method, value, slot):
    """The input of the blocks at step 1 is not finite, while the method still measures."""
    inputs = spoiled(None, slot, (1, 1))
    if value is not None:
        inputs[1][slot] = value
    return modes(through(method, [lambda x: 2 * x] * 2, inputs)[1])


def by_branches(method, value, slot):
    """The outputs of the branches at step 1 are not finite."""
    found = ""
    for k in range(STEPS):
        row, x = row_at(k, STEPS, SLOTS), torch.ones(SLOTS, 1, 1)
        sites, decision = method.sites(2, row), method.decide(row, lambda name: torch.ones(SLOTS, 1, 1))
        method.settle(row, decision)
        found += decision.mode[0]
        out = (1 + 1e-3 * k) * x
        if k == 1 and value is not None:
            out[slot] = value
        for site in sites if decision.mode is Mode.RECOMPUTE else ():
            method.keep(site, row, x, out)
    return found


SLOT = {"signal": "latent", "fit": "none", "warmup": 1, "reuse": "velocity"}
CASES = {  # method, how it is spoiled, the step that has to be computed, and which skips where nothing is spoiled
    "scope": (lambda: Scope(0.3, 0.9, signal="latent", selective="none", max_skip=99), by_input, BAD),
    "scope, nothing accumulated": (
        lambda: Scope(0.3, 0.9, signal="latent", selective="none", reference="recompute", max_skip=99),
        by_input,
        BAD,
    ),
    "teacache, per row": (lambda: TeaCache(0.3, **SLOT), by_input, BAD),
    "teacache, per slot": (lambda: TeaCache(0.3, pool="slot", **SLOT), by_input, BAD),
    "teacache, nonnegative": (lambda: TeaCache(0.3, pool="slot", nonnegative=True, **SLOT), by_input, BAD),
    "teacache, polynomial": (
        lambda: TeaCache(0.3, pool="slot", **{**SLOT, "fit": "own"}, coefficients=[-1.0, 1.0, 0.0]),
        by_input,
        BAD,
    ),
    "flowcache": (lambda: FlowCache(0.3, warmup=1, signal="latent", reuse="velocity"), by_input, BAD),
    "easycache": (lambda: EasyCache(0.3, warmup=1), by_input, BAD),
    "easycache, its gain": (lambda: EasyCache(0.3, warmup=1), by_output, 2),
    "predit": (lambda: PrediT(9.0, warmup=1), by_output, 2),
    "dsa_proxy": (lambda: DSAProxy(0.9, least=0.0), by_output, 2),
    "first_block_cache, per row": (lambda: FirstBlockCache(0.3), by_blocks, BAD),
    "first_block_cache, per slot": (lambda: FirstBlockCache(0.3, pool="slot"), by_blocks, BAD),
    "bwcache": (lambda: BWCache(0.3), by_early_blocks, 2),
    "adacache": (lambda: AdaCache(), by_branches, 2),
    "adacache, with motion": (lambda: AdaCache([0.9], [6, 1], motion=0.1), by_branches, 2),
    "adacache, one rate": (lambda: AdaCache([], [6]), by_branches, 2),
}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
@pytest.mark.parametrize("slot", range(SLOTS))
@pytest.mark.parametrize("case", CASES)
def test_a_measure_that_is_no_finite_number_computes(case, slot, value):
    make, run, step = CASES[case]
    assert run(make(), None, slot)[step] in "cp", "it would skip there"
    assert run(make(), value, slot)[step] == "r"


def test_a_score_of_minus_infinity_computes_and_starts_anew():
    """With p(r) = -r an infinite change gives -inf, which is below every threshold and would stay in the sum."""
    settings = {**SLOT, "fit": "own", "pool": "slot"}
    method = TeaCache(0.3, **settings, coefficients=[-1.0, 0.0])
    assert by_input(method, math.inf, 1)[BAD : BAD + 3] == "rrc"
    assert all(math.isfinite(score) for score in method.total.values())


def test_easycache_computes_where_the_latent_stands_still_and_its_gain_is_no_number():
    """Slot 0 changes evenly. Slot 1 does not change, so its gain is 0 / 0; the larger gain is that of slot 0."""
    inputs = [torch.tensor([1.0 + 0.01 * k, 1.0]).view(2, 1, 1, 1) for k in range(5)]
    _, ledger = velocities(EasyCache(9.0, warmup=0, cooldown=0), lambda x, k: 2 * x, inputs)
    assert modes(ledger) == "rrrrr" and ledger[2].why == "signal not finite"


@pytest.mark.parametrize(
    "make, told",
    [
        (lambda: MagCache(0.1, [1.0, math.nan]), "positive and finite"),
        (lambda: MagCache(0.1, [1.0], [math.inf]), "positive and finite"),
        (lambda: AdaCache([0.1, math.nan], [3, 2, 1]), "must rise"),
        (lambda: AdaCache([math.nan], [3, 1]), "must rise"),
        (lambda: EasyCache(math.nan), "threshold must lie"),
        (lambda: PrediT(math.nan), "tolerance must lie"),
    ],
)
def test_a_setting_that_is_no_number_is_refused(make, told):
    with pytest.raises(ValueError, match=told):
        make()
