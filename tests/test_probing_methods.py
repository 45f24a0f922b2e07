"""Methods whose decision needs a look: first-block cache and MagCache against diffusers' hooks, others by hand."""

import pytest
import torch
from diffusers.hooks import FirstBlockCacheConfig, MagCacheConfig, apply_first_block_cache, apply_mag_cache
from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
from diffusers.models.cache_utils import CacheMixin
from torch import nn

from baselines.adacache import AdaCache
from baselines.bwcache import BWCache
from baselines.easycache import EasyCache
from baselines.first_block_cache import FirstBlockCache
from baselines.magcache import MagCache, nearest
from baselines.predit import PrediT
from engine.forecast import adams_bashforth
from engine.row import Mode
from tests.by_hand import modes, numbers, row_at, through, velocities


class Block(nn.Module):
    """A residual block with the calling convention of Wan's."""

    def __init__(self, width, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.linear = nn.Linear(width, width)
        self.calls = 0

    def forward(self, hidden_states, encoder_hidden_states=None, temb=None, rotary_emb=None):
        self.calls += 1
        return hidden_states + 0.3 * torch.tanh(self.linear(hidden_states))


class Wanlike(CacheMixin, nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(Block(8, seed) for seed in range(4))

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


@pytest.fixture(autouse=True)
def registered():
    TransformerBlockRegistry.register(
        Block, TransformerBlockMetadata(return_hidden_states_index=0, return_encoder_hidden_states_index=None)
    )


@pytest.fixture
def walk():
    """Latents that change fast, then slowly, then fast: (slots 2, tokens 3, width 8) at 20 steps."""
    torch.manual_seed(9)
    speed = [0.5] * 5 + [0.05] * 10 + [0.5] * 5
    x, found = torch.randn(2, 3, 8), []
    for s in speed:
        x = x + s * torch.randn(2, 3, 8)
        found.append(x)
    return found


def theirs(model, inputs):
    """diffusers' outputs, and whether each step ran the last block."""
    outputs, computed = [], []
    with torch.no_grad(), model.cache_context("cond"):
        for x in inputs:
            before = model.blocks[-1].calls
            outputs.append(model(x.flatten(0, 1)[None])[0].unflatten(0, (2, 3)))
            computed.append(model.blocks[-1].calls > before)
    return outputs, "".join("r" if ran else "c" for ran in computed)


@torch.no_grad()
def ours(method, inputs):
    outputs, ledger = through(method, Wanlike().blocks, inputs)
    return outputs, modes(ledger)


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.6])
def test_first_block_cache_is_diffusers_hook(walk, threshold):
    model = Wanlike()
    apply_first_block_cache(model, FirstBlockCacheConfig(threshold=threshold))
    (expected, decided), (found, own) = theirs(model, walk), ours(FirstBlockCache(threshold), walk)
    assert own == decided and {0.05: "rrrr", 0.3: "cr", 0.6: "ccc"}[threshold] in own
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("threshold, k", [(0.06, 3), (0.3, 3), (0.3, 1)])
def test_magcache_is_diffusers_hook(walk, threshold, k):
    ratios = [1.0, 0.8, 0.97, 0.98, 0.99, 1.01, 0.98, 0.95, 0.9, 0.75]
    model = Wanlike()
    apply_mag_cache(model, MagCacheConfig(threshold, k, 0.2, 20, torch.tensor(ratios)))
    (expected, decided), (found, own) = theirs(model, walk), ours(MagCache(threshold, ratios, [], k, 0.2), walk)
    assert own == decided and "c" in own[4:] and own[:4] == "rrrr"
    torch.testing.assert_close(found, expected)


def test_magcache_by_hand():
    """gamma 0.9: g 0.9, 0.81, 0.729; e 0.1, 0.29, 0.561; the threshold 0.3 is crossed at every third step."""
    inputs = [torch.ones(1, 1, 1)] * 10
    method = MagCache(0.3, [0.9], retention=0.2)
    _, ledger = through(method, [lambda x: 2 * x], inputs)
    assert modes(ledger) == "rrccrccrcc"
    assert [round(e.score, 3) for e in ledger[2:5]] == [0.1, 0.29, 0.561]
    assert [nearest([1.0, 0.9, 0.5], k, 5) for k in range(5)] == [1.0, 1.0, 0.9, 0.5, 0.5]


@pytest.mark.parametrize(
    "threshold, ratios, expected",
    [
        (0.5, [1.0, 0.5, 1.0], "rrc"),
        (0.5001, [1.0, 0.5, 1.0], "rcr"),
        (0.0, [1.0, 1.0, 1.0], "rrr"),
        (0.25, [1.0, 1.25, 1.0, 0.75], "rrcr"),
    ],
)
def test_magcache_computes_where_the_error_equals_the_threshold(threshold, ratios, expected):
    """[1, 0.5, 1] and 0.5: at step 1 g = 0.5 and e = 0.5, which is not less; at step 2 g = 1 and e = 0."""
    method = MagCache(threshold, ratios, retention=0.0)
    _, ledger = through(method, [lambda x: 2 * x], [torch.ones(1, 1, 1)] * len(ratios))
    assert modes(ledger) == expected


def test_first_block_cache_adds_what_the_tail_added_last():
    """Block x -> 2 x: the probe's residual is x itself, so the change is that of x. The tail of x doubles it twice."""
    inputs = [torch.full((1, 1, 1), value) for value in (1.0, 1.05, 1.2, 1.25)]
    outputs, ledger = through(FirstBlockCache(0.1), [lambda x: 2 * x] * 3, inputs)
    assert modes(ledger) == "rcrc"
    assert [e.score for e in ledger] == [None, 0.05, 0.2, pytest.approx(0.05 / 1.2, abs=1e-6)]
    assert [float(out) for out in outputs] == pytest.approx([8, 2 * 1.05 + 6, 9.6, 2 * 1.25 + 7.2])
    assert [e.sites for e in ledger] == [(), ("blocks 1:3",), (), ("blocks 1:3",)]


def test_last_blocks_run_on_top_of_what_is_reused():
    """back=1: the tail contains only the middle block; the last block doubles its output."""
    inputs = [torch.full((1, 1, 1), value) for value in (1.0, 1.05)]
    outputs, ledger = through(FirstBlockCache(0.1, front=1, back=1), [lambda x: 2 * x] * 3, inputs)
    assert float(outputs[1]) == pytest.approx(2 * (2 * 1.05 + 2)) and ledger[1].sites == ("blocks 1:2",)


def test_one_frame_that_moves_recomputes_under_slot_pooling_only():
    still = torch.ones(4, 1, 1)
    moved = torch.tensor([1.0, 1.0, 1.0, 1.3]).view(4, 1, 1)
    for pool, expected in (("row", "rc"), ("slot", "rr")):
        _, ledger = through(FirstBlockCache(0.1, pool=pool), [lambda x: 2 * x] * 2, [still, moved])
        assert modes(ledger) == expected


def test_easycache_by_hand():
    """v = 2 x: the gain k is 2. From x = 1.1, v = 2.2 on, a move of d is estimated to change v by 2 d / 2.2."""
    inputs = numbers(1.0, 1.1, 1.15, 1.20, 1.31, 1.32)
    outputs, ledger = velocities(EasyCache(0.1, warmup=0, cooldown=0), lambda x, k: 2 * x, inputs)
    assert modes(ledger) == "rrccrc"
    assert [e.score for e in ledger[2:]] == pytest.approx([0.1 / 2.2, 0.2 / 2.2, 0.42 / 2.2, 0.02 / 2.62], abs=1e-5)
    assert [float(v) for v in outputs] == pytest.approx([2.0, 2.2, 1.15 + 1.1, 1.20 + 1.1, 2.62, 1.32 + 1.31])


@pytest.mark.parametrize("corrector", [0.0, 0.5, 1.0])
def test_predit_without_corrector_is_adams_bashforth_and_with_it_meets_a_straight_line(corrector):
    rows = [row_at(k, 10, sigma=(s,)) for k, s in enumerate((1.0, 0.9, 0.7, 0.6, 0.55))]

    def line(x, k):
        return torch.full_like(x, 3 - 2 * rows[k].sigma[0])

    outputs, ledger = velocities(PrediT(9.0, 3, corrector, 0.0, 3, 0), line, numbers(*[0] * 5), rows)
    assert modes(ledger) == "rrrpp"
    assert [float(v) for v in outputs[3:]] == pytest.approx([3 - 1.2, 3 - 1.1], abs=1e-5)

    def curve(x, k):
        return torch.full_like(x, rows[k].sigma[0] ** 2)

    outputs, _ = velocities(PrediT(9.0, 3, corrector, 0.0, 3, 0), curve, numbers(*[0] * 5), rows)
    points = [(s, s * s) for s in (1.0, 0.9, 0.7)]
    plain = [adams_bashforth(points, s) for s in (0.6, 0.55)]
    errors = [abs(float(v) - s * s) for v, s in zip(outputs[3:], (0.6, 0.55), strict=True)]
    if corrector == 0:
        # slopes 1.9 and 1.6 belong to the middles of their gaps; the rule places them at the ends, as the formula does
        assert [float(v) for v in outputs[3:]] == pytest.approx(plain, abs=1e-5)
    else:
        assert all(e < abs(p - s * s) for e, p, s in zip(errors, plain, (0.6, 0.55), strict=True))


def test_predits_horizon_is_the_tolerance_over_the_cube_root_of_the_change_and_at_most_eight():
    """p = 2. tau 0.6: changes of 0.2^3 and 0.3^3 allow 0.6 / 0.2 = 3 and 2 steps, one above 0.6^3 = 0.216 none."""
    method = PrediT(0.6)
    changes = (0.0, 1e-4, 0.2**3, 0.3**3, 0.028, 0.6**3, 0.22, 9.0, float("inf"), float("nan"))
    assert [method.horizon(r) for r in changes] == [8, 8, 3, 2, 1, 1, 0, 0, 0, 0]
    assert PrediT(0.6, 2).horizon(0.0) == 2 and PrediT(0.0).horizon(0.0) == 0 == PrediT(0.6, 0).horizon(0.0)


def test_predit_predicts_as_many_steps_as_the_last_change_allows():
    """tau 1: a change of 0.1 allows 1 / 0.1^(1/3) = 2 steps, one of 1.2 none, one of 0 all four of `max_horizon`."""
    values = [1.0, 1.1, 0.0, 0.0, 2.42, 2.42, 0.0, 0.0, 0.0, 0.0, 2.42]
    _, ledger = velocities(
        PrediT(1.0, 4, warmup=2, cooldown=0), lambda x, k: torch.full_like(x, values[k]), numbers(*[0] * 11)
    )
    assert modes(ledger) == "rrpprrppppr"
    assert [e.score for e in ledger[2:7]] == pytest.approx([0.1, 0.1, 0.1, 1.2, 0.0], abs=1e-5)


def test_predit_corrects_only_where_the_velocity_changes_fast():
    """Slopes per row 0.1 and 0.3, changes 0.1 and 0.27: from dynamics 0.2 on the second slope becomes 0.3 + 0.2."""
    values, found = [1.0, 1.1, 1.4, 0.0], {}
    for dynamics in (0.0, 0.2, 0.3):
        method = PrediT(9.0, 3, 1.0, dynamics, 3, 0)
        outputs, _ = velocities(method, lambda x, k: torch.full_like(x, values[k]), numbers(*[0] * 4))
        found[dynamics] = float(outputs[3])
    assert found[0.0] == found[0.2] == pytest.approx(1.4 + 1.5 * 0.5 - 0.5 * 0.1, abs=1e-5)
    assert found[0.3] == pytest.approx(1.4 + 1.5 * 0.3 - 0.5 * 0.1, abs=1e-5)


def bwcache_run(method, path):
    inputs = [torch.full((1, 1, 1), value) for value in path]
    outputs, ledger = through(method, [lambda x: 2 * x] * 2, inputs)
    return [float(out) for out in outputs], ledger


def test_bwcache_triggers_once_and_then_repeats_a_fixed_pattern_until_the_last_half_k_steps():
    """20 steps, moves of 0.5 up to step 3, 0.01 at step 4 (k = 4), and then large again: R = 2, last 2 computed."""
    path = [1.0, 1.5, 2.25, 3.375, 3.38] + [4.0 * 1.5**i for i in range(15)]
    outputs, ledger = bwcache_run(BWCache(0.1, reuse=0.1), path)
    assert modes(ledger) == "rrrrr" + "ccr" * 4 + "c" + "rr"
    assert ledger[4].score == pytest.approx(0.5) and ledger[5].score == pytest.approx(0.005 / 3.375, abs=1e-6)
    assert ledger[6].score is None, "measured until the trigger only"
    assert outputs[5] == pytest.approx(path[5] + 3 * path[4]), "the stack's residual on today's input"
    assert ledger[5].sites == ("blocks 0:2",)


@pytest.mark.parametrize(
    "threshold, reuse, expected",
    [
        (0.0, 0.1, "r" * 20),
        (0.1, 0.0, "r" * 20),
        (9.0, 0.1, "rr" + "ccr" * 6),
        (9.0, 1.0, "rr" + "c" * 18),
    ],
)
def test_bwcache_at_its_limits(threshold, reuse, expected):
    assert modes(bwcache_run(BWCache(threshold, reuse), [1.0] * 20)[1]) == expected


def test_bwcache_that_triggers_late_computes_half_as_many_last_steps():
    path = [1.5**i for i in range(11)] + [1.5**10] * 9
    assert modes(bwcache_run(BWCache(0.1), path)[1]) == "r" * 12 + "cc" + "r" + "r" * 5


def adacache_run(method, features, depth=28):
    """Rows in which it computes; `features(k, block)` is the output of a block's branches at step k."""
    computed, x = [], torch.ones(1, 1, 1)
    steps = 30
    for k in range(steps):
        row = row_at(k, steps)
        sites = method.sites(depth, row)
        decision = method.decide(row, lambda name: torch.ones(1, 1, 1))
        method.settle(row, decision)
        if decision.mode is Mode.RECOMPUTE:
            computed.append(k)
            for site in sites:
                method.keep(site, row, x, x * features(k, site.span.start))
    return computed


def test_adacache_computes_8_of_30_steps_where_features_hardly_change_the_last_two_among_them():
    assert adacache_run(AdaCache(), lambda k, block: 1 + 1e-3 * k) == [0, 1, 7, 13, 19, 25, 28, 29]
    assert adacache_run(AdaCache(cooldown=0), lambda k, block: 1.0) == [0, 1, 7, 13, 19, 25]
    assert adacache_run(AdaCache(), lambda k, block: 3.0**k) == list(range(30))


@pytest.mark.parametrize("depth, block", [(28, 13), (14, 13), (4, 3), (1, 0)])
def test_adacache_measures_one_block(depth, block):
    restless = adacache_run(AdaCache(), lambda k, i: 3.0**k if i == block else 1.0, depth)
    calm = adacache_run(AdaCache(), lambda k, i: 3.0**k if i != block else 1.0, depth)
    assert len(restless) == 30 and len(calm) == 8


def test_adacaches_codebook():
    method = AdaCache()
    assert [method.rate(c) for c in (0.0, 0.079, 0.08, 0.2, 0.39, 0.4, 9.0)] == [6, 6, 5, 4, 2, 1, 1]
    assert AdaCache(scale=2.0).rate(0.15) == 6 and AdaCache(scale=0).rate(0.0) == 1
    assert method.rate(float("nan")) == 1, "a measure that is no number computes"
