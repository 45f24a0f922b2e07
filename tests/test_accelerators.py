"""Checks for every method: it can equal the Original, it frees its memory, and its cost equals that of its ledger."""

from dataclasses import dataclass, field

import pytest
import torch

from baselines.adacache import AdaCache
from baselines.bwcache import BWCache
from baselines.cfg_cache import CfgCache
from baselines.delta_dit import DeltaDiT
from baselines.easycache import EasyCache
from baselines.first_block_cache import FirstBlockCache
from baselines.magcache import MagCache
from baselines.pab import PAB
from baselines.predit import PrediT
from baselines.taylorseer import TaylorSeer
from engine.ledger import flops, plan
from engine.method import Method, Original
from engine.row import Mode
from tests.tiny import ARCHITECTURE, TINY, build, video

DEPTH, STEPS = 4, 12
TOKENS = 6 * 24 * 4  # bytes of one slot's hidden state: 6 tokens, width 24, float32
LATENT = 16 * 4 * 6 * 4  # bytes of one slot's latent
RATIOS = [1.0, 0.95, 0.93, 0.92, 0.9]


@dataclass
class Case:
    never: Method  # a setting that skips nothing
    skips: Method
    hidden: int = 0  # hidden tensors that it holds, all guidance branches together
    latents: int = 0  # of all slots
    moving: int = 0  # latents of the updating slots only
    floats: int = 0  # numbers per updating slot beside those
    saves: set[str] = field(default_factory=set)  # kinds of site


CASES = {
    "delta_dit": Case(DeltaDiT(interval=1), DeltaDiT(interval=3), hidden=2 * 2, saves={"blocks"}),
    "delta_dit, no block": Case(DeltaDiT(interval=3, blocks=0), DeltaDiT(2, boundary=1), hidden=2, saves={"blocks"}),
    "taylorseer": Case(
        TaylorSeer(interval=1),
        TaylorSeer(3),
        hidden=2 * 2 * 3 * DEPTH,
        saves={"attention", "cross_attention", "feed_forward"},
    ),
    "taylorseer lite": Case(
        TaylorSeer(1, variant="lite"), TaylorSeer(3, order=2, variant="lite"), hidden=2 * 3, saves={"blocks"}
    ),
    "taylorseer, one counter": Case(
        TaylorSeer(1, counter="segment"), TaylorSeer(3, 0, "lite", "segment"), hidden=2, saves={"blocks"}
    ),
    "easycache": Case(EasyCache(0, warmup=1), EasyCache(0.3, warmup=1), moving=3, floats=1, saves={"velocity"}),
    "magcache": Case(MagCache(0, RATIOS), MagCache(0.3, RATIOS), hidden=2, saves={"blocks"}),
    "magcache, no skip": Case(
        MagCache(9, RATIOS, max_skip=0), MagCache(0.3, RATIOS, RATIOS), hidden=2, saves={"blocks"}
    ),
    "first_block_cache": Case(FirstBlockCache(0), FirstBlockCache(0.1), hidden=4, saves={"blocks"}),
    "dbcache": Case(
        FirstBlockCache(9, max_skip=0), FirstBlockCache(0.1, 2, 1, 2, 2, 2, "slot"), hidden=4, saves={"blocks"}
    ),
    "pab": Case(PAB(1, 1, 1), PAB(), hidden=2 * 2 * DEPTH, saves={"attention", "cross_attention"}),
    "pab, empty window": Case(
        PAB(begin=500, end=500),
        PAB(3, 5, 2),
        hidden=2 * 3 * DEPTH,
        saves={"attention", "cross_attention", "feed_forward"},
    ),
    "predit": Case(PrediT(0), PrediT(2.0, 3), moving=3, floats=1, saves={"velocity"}),
    "bwcache": Case(BWCache(0), BWCache(9, 0.3), hidden=2 * (DEPTH + 1), saves={"blocks"}),
    "cfg_cache": Case(CfgCache(1), CfgCache(3), latents=2, saves={"guidance"}),
    "adacache": Case(
        AdaCache(scale=0), AdaCache(), hidden=2 * 3 * DEPTH, saves={"attention", "cross_attention", "feed_forward"}
    ),
    "adacache, one rate": Case(
        AdaCache([], [1]),
        AdaCache([], [3], motion=2.0),
        hidden=2 * 3 * DEPTH,
        saves={"attention", "cross_attention", "feed_forward"},
    ),
}


@pytest.fixture(scope="module")
def model():
    return build(architecture={**ARCHITECTURE, "num_layers": DEPTH}, steps=STEPS, frames=61)


@pytest.fixture(scope="module")
def original(model):
    return video(model, Original())


@pytest.fixture(
    params=[  # a method's own line; its variants, after a comma or a space, are slow tests
        pytest.param(case, id=name, marks=[pytest.mark.slow] if " " in name else []) for name, case in CASES.items()
    ]
)
def case(request):
    return request.param


@pytest.mark.slow
def test_a_setting_that_never_skips_is_the_original_bit_for_bit(model, original, case):
    case.never.check(model)
    ledger = []
    assert torch.equal(video(model, case.never, ledger=ledger), original)
    assert {entry.mode for entry in ledger} == {Mode.RECOMPUTE} and not any(entry.sites for entry in ledger)
    assert flops(ledger, model.price) == flops(plan(model.schedule()), model.price)


def test_a_setting_that_skips_changes_the_video_leaves_nothing_behind_and_costs_less(model, original, case):
    case.skips.check(model)
    ledger = []
    first = video(model, case.skips, ledger=ledger)
    assert torch.isfinite(first).all() and not torch.equal(first, original)
    held = sum(tensor.numel() * tensor.element_size() for tensor in case.skips.state())
    slots, updating = 10, 6  # of the last segment
    bytes_held = slots * (case.hidden * TOKENS + case.latents * LATENT)
    assert held == bytes_held + updating * (case.moving * LATENT + case.floats * 4)
    skipped = [entry for entry in ledger if entry.mode is not Mode.RECOMPUTE]
    assert {site.split(" ")[0] for entry in skipped for site in entry.sites} == case.saves
    dense, masked = flops(ledger, model.price)
    whole = flops(plan(model.schedule()), model.price)
    assert dense < whole[0] and masked < whole[1]
    other = video(model, case.skips, prompt="a cat", seed=1)
    assert torch.equal(video(model, case.skips), first) and not torch.equal(first, other)


@pytest.mark.parametrize(
    "make, told",
    [
        (lambda: DeltaDiT(0), "interval must lie in"),
        (lambda: DeltaDiT(3, blocks=1.5), "blocks must lie in"),
        (lambda: DeltaDiT(3, decide_per="slot"), "row, unit, got 'slot'"),
        (lambda: TaylorSeer(3, order=4), "order must lie"),
        (lambda: TaylorSeer(3, variant="half"), "full, lite"),
        (lambda: TaylorSeer(3, formula="fourier"), "newton"),
        (lambda: TaylorSeer(3, counter="segment", decide_per="unit"), "set decide_per=row or counter=slot"),
        (lambda: EasyCache(-1), "threshold must lie"),
        (lambda: MagCache(0.1, []), "calibrate_magcache"),
        (lambda: MagCache(0.1, [1.0, 0.0]), "must be positive"),
        (lambda: FirstBlockCache(0.1, front=0), "front must lie"),
        (lambda: FirstBlockCache(float("nan")), "threshold must lie"),
        (lambda: PAB(attention=0), "attention must lie"),
        (lambda: PAB(begin=100, end=850), "end must lie"),
        (lambda: PrediT(1.0, corrector=2), "corrector must lie"),
        (lambda: BWCache(0.1, reuse=-1), "reuse must lie"),
        (lambda: CfgCache(0), "interval must lie"),
        (lambda: AdaCache([0.1], [2]), "one rate more than bounds"),
        (lambda: AdaCache([0.2, 0.1], [3, 2, 1]), "must rise"),
        (lambda: AdaCache([], [0]), "the least of rates"),
    ],
)
def test_a_parameter_that_makes_no_sense_is_refused_with_its_name(make, told):
    with pytest.raises(ValueError, match=told):
        make()


@pytest.mark.parametrize(
    "method, changes, told",
    [
        (FirstBlockCache(0.1, front=3, back=1), {}, "leave none of tiny's 4 blocks"),
        (CfgCache(), {"guidance": 1.0}, "runs without guidance"),
    ],
)
def test_a_method_on_a_model_that_lacks_what_it_needs_is_refused(method, changes, told):
    model = build(architecture={**ARCHITECTURE, "num_layers": DEPTH}, **changes)
    with pytest.raises(ValueError, match=told):
        method.check(model)


def test_a_block_costs_its_three_branches_and_a_guidance_branch_its_whole_forward():
    prices = build().prices.of(10, 0)
    tokens, width, text, ffn = 60, 24, TINY.text_length, 32
    assert prices.feed_forward == 2 * 2 * tokens * width * ffn
    assert prices.attention == 2 * (4 * tokens * width**2 + 2 * tokens**2 * width)
    assert prices.cross_attention == 2 * (2 * tokens * width**2 + 2 * text * width**2 + 2 * tokens * text * width)
    assert prices.block == prices.attention + prices.cross_attention + prices.feed_forward < prices.whole
