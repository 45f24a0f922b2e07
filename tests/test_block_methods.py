"""Methods of a fixed rhythm, by hand and, for TaylorSeer, against diffusers: Delta-DiT, PAB, CFG cache, forecasters."""

import math
from dataclasses import replace

import pytest
import torch
from diffusers.hooks.taylorseer_cache import TaylorSeerState

from baselines.cfg_cache import CfgCache, low_frequencies
from baselines.delta_dit import DeltaDiT
from baselines.pab import PAB
from baselines.taylorseer import TaylorSeer
from engine.forecast import FORECASTERS, adams_bashforth, foca, hicache, newton, taylorseer, weights
from engine.row import Decision, Mode, Site
from scope.method import Scope
from scope.predictors import ORDER
from tests.by_hand import modes, row_at, through
from tests.tiny import build, ledger_of, video

LAST = Site("blocks", range(2), "cond")


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_taylorseer_is_diffusers_recursion(order):
    """Full steps at unequal gaps; both forecast the steps in between."""
    torch.manual_seed(0)
    method, state = TaylorSeer(5, order, "lite", "segment"), TaylorSeerState(torch.float32, order)
    for k in range(16):
        state.current_step += 1
        row = row_at(k, 16, 3)
        if k in (0, 1, 4, 6, 11):
            features = torch.randn(3, 2, 4)
            state.update((features,))
            method.keep(LAST, row, features, features)
        else:
            found = method.fill(LAST, row, Mode.PREDICT, torch.zeros(3, 2, 4))
            torch.testing.assert_close(found, state.predict()[0], rtol=1e-4, atol=1e-4)


def test_taylorseer_by_hand():
    """One block that adds k^2 at step k, interval 3, order 1: 0, 1 are full, 2 and 3 on the line through them."""
    inputs = [torch.full((1, 1, 1), float(k * k)) for k in range(7)]
    outputs, ledger = through(TaylorSeer(3, 1, "lite", warmup=2), [lambda x: x], inputs)
    assert modes(ledger) == "rrpprpp"
    assert [float(out) for out in outputs] == pytest.approx([0, 1, 2, 3, 16, 16 + 5, 16 + 10], rel=1e-6)
    assert [e.why for e in ledger[:5]] == ["no history", "warm-up", "", "", "interval"]


@pytest.mark.parametrize("counter", ["slot", "segment"])
@pytest.mark.parametrize(
    "warmup, order, values, expected",
    [
        (3, 2, [0, 1, 4], 7),
        (3, 1, [0, 1, 4], 7),
        (3, 0, [0, 1, 4], 4),
        (4, 2, [5, 0, 1, 4], 7),
        (2, 2, [0, 1], 2),
        (1, 2, [3], 3),
    ],
)
def test_taylorseer_takes_differences_from_the_last_step_of_the_warm_up_on(counter, warmup, order, values, expected):
    """y = 0, 1, 4 and order 2: step 2 has the difference 4 - 1 and nothing to subtract from it, so 4 + 3, not 8."""
    inputs = [torch.full((1, 1, 1), float(value)) for value in [*values, 99, 99]]
    outputs, ledger = through(TaylorSeer(9, order, "lite", counter, warmup), [lambda x: x], inputs)
    assert [entry.mode for entry in ledger[:warmup]] == [Mode.RECOMPUTE] * warmup
    assert ledger[warmup].mode is (Mode.PREDICT if order else Mode.CACHE)
    assert float(outputs[warmup]) == pytest.approx(expected)


def test_taylorseer_gains_an_order_with_each_full_step_after_the_warm_up():
    """Warm-up 3, interval 2, y = k^2: full at 0, 1, 2, 4, 6; F at 4 is (16, 6, (6 - 3) / 2), at 6 (36, 10, 2)."""
    inputs = [torch.full((1, 1, 1), float(k * k)) for k in range(8)]
    outputs, ledger = through(TaylorSeer(2, 2, "lite", warmup=3), [lambda x: x], inputs)
    assert modes(ledger) == "rrrprprp"
    assert [float(outputs[k]) for k in (3, 5, 7)] == pytest.approx([7, 16 + 6 + 0.75, 36 + 10 + 1])


def test_an_order_that_the_warm_up_does_not_feed_is_refused():
    model = build(steps=6, guidance=1.0)
    with pytest.raises(ValueError, match="order=3 needs 4 computed steps"):
        TaylorSeer(3, 3, "lite", warmup=4).check(model)
    TaylorSeer(1, 3, "lite", warmup=4).check(model)


@pytest.mark.parametrize(
    "interval, expected",
    [
        (2.5, "r..r.r..r.r.."),
        (1.5, "r.rr.rr.rr.r"),
        (2.0, "r." * 6),
        (3.0, "r.." * 4),
    ],
)
def test_an_interval_that_is_no_whole_number_is_the_mean_of_the_gaps(interval, expected):
    inputs = [torch.full((1, 1, 1), float(k)) for k in range(len(expected))]
    _, ledger = through(TaylorSeer(interval, 0, "lite"), [lambda x: x], inputs)
    assert modes(ledger).replace("c", ".") == expected


def test_steps_that_are_full_for_another_reason_lengthen_no_gap():
    inputs = [torch.full((1, 1, 1), float(k)) for k in range(12)]
    _, ledger = through(TaylorSeer(2.5, 0, "lite", warmup=4), [lambda x: x], inputs)
    assert modes(ledger) == "rrrrccrcrccr"


def test_a_slot_is_forecast_from_its_own_denoising_or_from_its_noise_too():
    """Two units; the second begins at row 3. With one counter its forecast at row 4 uses values from before it
    began."""
    rows = [
        row_at(
            k, 8, 2, unit=1, step=(k, max(k - 3, 0)), sigma=(1 - k / 8, 1 - max(k - 3, 0) / 8), active=(True, k >= 3)
        )
        for k in range(6)
    ]
    inputs = [torch.tensor([1.0, 5.0 if k < 3 else 9.0]).view(2, 1, 1) for k in range(6)]
    found = {}
    for counter in ("slot", "segment"):
        outputs, ledger = through(TaylorSeer(3, 1, "lite", counter, warmup=1), [lambda x: x], inputs, rows)
        found[counter] = modes(ledger), [float(out[1]) for out in outputs]
    assert found["slot"] == ("rpprpp", [5, 5, 5, 9, 9, 9]), "computed as it begins, and then constant: one anchor"
    slope = (9 - 5) / 3
    assert found["segment"][0] == "rpprpp"
    assert found["segment"][1] == pytest.approx([5, 5, 5, 9, 9 + slope, 9 + 2 * slope])


def test_delta_dit_adds_what_the_range_added_to_the_input_of_now():
    """Blocks x2, x3, x5, x7 and a range of 2. Outline: x2 and x3 run on x, the rear's delta (6 x 34) is added."""
    blocks = [lambda x, f=f: f * x for f in (2, 3, 5, 7)]
    inputs = [torch.full((1, 1, 1), value) for value in (1.0, 1.1, 1.2, 1.3, 2.0, 3.0)]
    outputs, ledger = through(DeltaDiT(2, blocks=0.5, boundary=0.5), blocks, inputs)
    assert modes(ledger) == "rcrrcr"
    rear, front = (35 - 1) * 6, 6 - 1
    expected = [210, 6 * 1.1 + rear * 1.0, 252, 273, 35 * (2.0 + front * 1.3), 630]
    assert [float(out) for out in outputs] == pytest.approx(expected, rel=1e-5)
    assert [e.sites for e in ledger if e.sites] == [("blocks 2:4",), ("blocks 0:2",)]
    assert ledger[3].why == "no history", "a new stage begins with a full step, for its range was never measured"


def test_a_new_unit_begins_with_a_full_step():
    ledger = ledger_of(build(steps=6, guidance=1.0), DeltaDiT(9, blocks=1.0, boundary=1.0))
    begins = {entry.iteration for entry in ledger if entry.why == "warm-up"}
    assert begins == {2, 4, 6, 8}, "units 1 to 4 lag by 2 rows each; unit 0 has no history at its first"


def _pab_rows(method, timesteps, rising=False):
    """The kinds that each row skips, one letter per kind. The noise level of a row is its timestep / 1000."""
    levels = [(1 - t / 1000) if rising else t / 1000 for t in [*timesteps, 0]]
    rows = [row_at(k, len(timesteps), sigma=(levels[k],), sigma_next=(levels[k + 1],)) for k in range(len(timesteps))]
    left_out, one = [], torch.ones(1, 1, 1)
    for row in rows:
        decision = method.decide(row, lambda name: one)
        skipped = ""
        for site in method.sites(1, row):
            if decision.mode is Mode.RECOMPUTE or method.revise(site, row, decision).mode is Mode.RECOMPUTE:
                method.keep(site, row, one, one)
            else:
                skipped += site.kind[0]
        left_out.append(skipped)
    return left_out


SKYREELS_GRID = [1000 * 8 * t / (1 + 7 * t) for t in (1 - k / 50 for k in range(50))]  # shift 8, 50 steps


@pytest.mark.parametrize("window, first, last", [((850, 100), 30, 49), ((930, 450), 19, 45)])
@pytest.mark.parametrize("rising", [False, True], ids=["to 0", "to 1"])
def test_pabs_windows_are_the_authors_timesteps(window, first, last, rising):
    """[100, 850] are steps 30 to 49 of SkyReels-V2's grid and [450, 930] steps 19 to 45, for rising and falling
    levels."""
    found = _pab_rows(PAB(2, 6, begin=window[0], end=window[1]), SKYREELS_GRID, rising)
    expected = [("a" if k % 2 else "") + ("c" if k % 6 else "") if first <= k <= last else "" for k in range(50)]
    assert found == expected


def test_pab_computes_at_the_edge_of_its_window_and_its_defaults_are_the_authors():
    method = PAB()
    assert (method.attention, method.cross_attention, method.begin, method.end) == (2, 6, 850, 100)
    assert _pab_rows(PAB(2, 6), [900, 850, 849, 101, 100, 99]) == ["", "", "c", "ac", "", ""]
    assert _pab_rows(PAB(2, 6, begin=500, end=500), [900, 500, 499]) == ["", "", ""]


def test_pab_broadcasts_in_a_row_only_where_every_updating_slot_is_inside():
    row = row_at(1, 8, 2, sigma=(0.5, 0.9), sigma_next=(0.4, 0.8), active=(True, True))
    for active, mode in (((True, True), Mode.RECOMPUTE), ((True, False), Mode.CACHE)):
        method, one = PAB(2, 6), torch.ones(2, 1, 1)
        for k, now in enumerate((row_at(0, 8, 2), replace(row, active=active))):
            found = method.decide(now, lambda name: torch.ones(2, 1, 1))
            if k == 0:
                for site in method.sites(1, now):
                    method.keep(site, now, one, one)
        assert found.mode is mode


def test_low_frequencies_are_a_projection_that_keeps_constants():
    torch.manual_seed(1)
    x = torch.randn(2, 3, 8, 12)
    low = low_frequencies(x, 0.2)
    torch.testing.assert_close(low_frequencies(low, 0.2), low)
    torch.testing.assert_close(low.mean((-2, -1)), x.mean((-2, -1)))
    torch.testing.assert_close(low_frequencies(x, 2.0), x)
    stripes = torch.cos(math.pi * torch.arange(12.0)).expand(1, 1, 8, 12)
    assert low_frequencies(stripes, 0.2).abs().max() < 1e-6


@pytest.mark.parametrize("cycles, kept", [(0, True), (13, True), (14, False), (60, False)])
@pytest.mark.parametrize("along", ["width", "height"])
def test_the_low_band_is_a_circle_of_a_fifth_of_the_shorter_side_in_indices(cycles, kept, along):
    """68 x 120: the radius is 13 cycles in both directions."""
    size = 120 if along == "width" else 68
    wave = torch.cos(2 * math.pi * min(cycles, size // 2) * torch.arange(float(size)) / size)
    wave = wave.expand(68, 120) if along == "width" else wave[:, None].expand(68, 120)
    torch.testing.assert_close(low_frequencies(wave), wave if kept else 0 * wave, rtol=1e-4, atol=1e-4)


def cfg_run(method, steps, low=1.0, high=0.0):
    """The factor on D of every row that reuses it. D is a constant, or stripes of the highest frequency."""
    cond, stripes = torch.zeros(1, 1, 8, 8), torch.cos(math.pi * torch.arange(8.0)).expand(1, 1, 8, 8)
    uncond, found = low + high * stripes, {}
    for k in range(steps):
        row = row_at(k, steps)
        plan = {b: method.decide(row, lambda name: cond, b) for b in ("cond", "uncond")}
        for branch, decision in plan.items():
            method.settle(row, decision, branch)
        method.keep(Site("guidance", branch="cond"), row, cond, cond)
        if plan["uncond"].mode is Mode.RECOMPUTE:
            method.keep(Site("guidance", branch="uncond"), row, uncond, uncond)
        else:
            filled = method.fill(Site("guidance", branch="uncond"), row, Mode.CACHE, cond)
            found[k] = round(float(filled[0, 0, 0, 0]), 4)
    return found


def test_the_boost_compounds_until_both_branches_are_computed_again():
    found = cfg_run(CfgCache(), 50)
    assert [found[k] for k in (21, 22, 23, 24)] == [1.1, 1.21, 1.331, 1.4641]
    assert sorted(found) == [k for k in range(17, 50) if k % 5], "calls 20, 25, ... compute"


def test_low_frequencies_are_boosted_until_step_40_and_high_ones_from_step_30_on():
    low, high = cfg_run(CfgCache(), 50, low=1.0, high=0.0), cfg_run(CfgCache(), 50, low=0.0, high=1.0)
    assert [low[k] for k in (17, 31, 39, 41, 44)] == [1.1, 1.1, 1.4641, 1.0, 1.0]
    assert [high[k] for k in (17, 29, 31, 34, 41, 44)] == [1.0, 1.0, 1.1, 1.4641, 1.1, 1.4641]
    odd = CfgCache(interval=50, begin=0.0)
    assert cfg_run(odd, 50)[40] == pytest.approx(1.1**40, abs=1e-2) == cfg_run(odd, 50)[49], "40 is the last"
    assert set(cfg_run(CfgCache(boost=0.0), 50).values()) == {1.0}


def test_only_the_unconditional_forward_is_saved():
    model = build(steps=12, frames=5, base_frames=5, overlap=0)
    ledger = ledger_of(model, CfgCache(3, begin=0.25))
    assert modes([e for e in ledger if e.branch == "cond"]) == "r" * 12
    assert modes([e for e in ledger if e.branch == "uncond"]) == "rrr" + "rcc" * 3
    assert model.price([ledger[6]]) == model.price([ledger[7]]) != (0.0, 0.0) == model.price([ledger[9]])


# --- forecasters ------------------------------------------------------------------------------------------------------

PARABOLA = [(0.0, 0.0), (1.0, 1.0), (2.0, 4.0)]


@pytest.mark.parametrize("name", FORECASTERS)
def test_every_forecaster_hands_back_constants_and_its_only_point(name):
    formula = FORECASTERS[name]
    assert formula([(1.0, 4.0)], 7.0) == 4.0
    assert formula([(0.0, 4.0), (1.0, 4.0), (2.0, 4.0)], 9.0) == pytest.approx(4.0)
    assert sum(weights(formula, (0.0, 1.0, 2.5), 4.0)) == pytest.approx(1)


@pytest.mark.parametrize("formula", [foca, adams_bashforth])
def test_these_follow_a_straight_line_at_any_spacing(formula):
    points = [(s, 3 - 2 * s) for s in (1.0, 0.7, 0.6)]
    assert formula(points, 0.35) == pytest.approx(3 - 0.7)


def test_adams_bashforth_at_uniform_spacing_has_the_textbook_weights():
    assert weights(adams_bashforth, (0.0, 1.0, 2.0), 3.0) == pytest.approx([0.5, -2.0, 2.5])


def test_hicache_is_taylorseer_with_hermite_polynomials():
    """F = (4, 3, 2) at 2; H_1(x) = 2x, H_2(x) = 4x^2 - 2 at x = scale d."""
    for scale in (0.3, 0.5, math.sqrt(0.5)):
        x = scale * 3.0
        expected = 4 + 3 * scale * 2 * x + 2 * scale**2 * (4 * x * x - 2) / 2
        assert hicache(PARABOLA, 5.0, scale) == pytest.approx(expected)
    line = [(0.0, 1.0), (1.0, 3.0)]
    assert hicache(line, 4.0, math.sqrt(0.5)) == pytest.approx(taylorseer(line, 4.0)), "equal slopes at this scale"


@pytest.mark.parametrize(
    "points, at, expected",
    [
        (PARABOLA, 3.0, 7.0),
        ([(0.0, 0.0), (3.0, 9.0), (6.0, 36.0)], 8.0, 54.0),
        (PARABOLA, 2.0, 4.0),
        ([(0.0, 9.0), (1.0, 1.0), (3.0, 9.0)], 4.0, 13.0),
        ([(3.0, 9.0), (2.0, 4.0)], 0.0, -6.0),
        ([(2.0, 5.0)], 9.0, 5.0),
    ],
)
def test_foca_is_the_line_that_its_equations_reduce_to(points, at, expected):
    """y = s^2 at 0, 1, 2: the slope at 2 is 3, BDF2 gives 16/3 - 1/3 + 2/3 x 3 = 7, Heun 4 + (3 + 3) / 2 = 7."""
    assert foca(points, at) == pytest.approx(expected)
    assert newton(PARABOLA, 3.0) == 9.0


def test_scope_asks_for_two_anchors_for_foca():
    assert ORDER["foca"] == 1


@pytest.mark.parametrize("predictor", ["hicache", "foca", "spectrum"])
def test_scope_predicts_with_them(predictor):
    model = build(steps=12)
    with_it, with_newton = (
        Scope(0.05, 0.9, predictor=name, selective="none", max_skip=2) for name in (predictor, "newton2")
    )
    ledger = []
    found = video(model, with_it, ledger=ledger)
    assert torch.isfinite(found).all() and any(entry.mode is Mode.PREDICT for entry in ledger)
    assert not torch.equal(found, video(model, with_newton))


@pytest.mark.parametrize("formula", FORECASTERS)
def test_taylorseer_forecasts_with_any_of_them(formula):
    method = TaylorSeer(3, 2, "lite", formula=formula)
    for k, value in ((0, 1.0), (3, 2.0), (6, 4.0)):
        method.keep(LAST, row_at(k, 12), *[torch.full((1, 1, 1), value)] * 2)
    found = method.fill(LAST, row_at(8, 12), Mode.PREDICT, torch.zeros(1, 1, 1))
    assert float(found) == pytest.approx(FORECASTERS[formula]([(0.0, 1.0), (3.0, 2.0), (6.0, 4.0)], 8.0), rel=1e-5)


def test_a_joint_decision_may_not_differ_between_guidance_branches():
    class Lopsided(TaylorSeer):
        def revise(self, site, part, decision):
            return Decision(Mode.RECOMPUTE) if site.branch == "uncond" else decision

    with pytest.raises(RuntimeError, match="want the same sites in each branch, or a method with branchwise = True"):
        ledger_of(build(steps=6), Lopsided(3, 1, "lite"))
