"""SCOPE: decisions against sequences worked out by hand, predictors against the truth, its controls one by one."""

import itertools
import math
from collections import Counter
from dataclasses import replace

import pytest
import torch

from engine.loop import generate
from engine.row import VELOCITY, Mode, Row
from scope.method import Scope
from scope.predictors import ORDER, Guards, Predictor, usable_order
from tests.toy import Toy, modes, run

# One block, no lag: ten rows of all slots, a signal that grows by half at every step (a score of 0.5 each).
LINE = {"slots": 2, "block": 2, "lag": 0}
OPEN = {"signal": "clock", "selective": "none", "cooldown": 0, "max_skip": 99, "clip": math.inf, "rho_max": 99}


def scope(tau_cache, tau_predict, **changes):
    return Scope(tau_cache, tau_predict, **{**OPEN, **changes})


def decisions(method, **toy):
    """(modes as a word, scores) of one video."""
    _, ledger = run(Toy(**{**LINE, **toy}), method)
    return modes(ledger), [entry.score for entry in ledger]


# --- which mode -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tau_cache,tau_predict,second",
    [(0.51, 1, "c"), (0.5, 1, "p"), (0.25, 0.51, "p"), (0.25, 0.5, "r"), (0.5, 0.5, "r"), (0.51, 0.51, "c")],
)
def test_a_score_on_a_threshold_takes_the_dearer_mode(tau_cache, tau_predict, second):
    """The score of the third row is exactly 0.5."""
    word, scores = decisions(scope(tau_cache, tau_predict, warmup=2, predictor="taylor1"))
    assert scores[:3] == [0.0, 0.5, 0.5]
    assert word[:3] == "rr" + second


def test_scores_accumulate_over_cache_and_start_again_at_a_recompute():
    word, scores = decisions(scope(1.1, 1.1))
    assert word == "rccrccrccr"
    assert scores == [0.0, 0.5, 1.0, 1.5, 0.5, 1.0, 1.5, 0.5, 1.0, 1.5]


def test_decay_follows_eq_5():
    """A = 0.75 S after a Predict: 0.5, 0.375 + 0.5, ... where nothing recomputes."""
    word, scores = decisions(scope(0, 99, warmup=2, predictor="taylor1"))
    assert word == "rr" + "p" * 8
    expected = [0.0, 0.5, 0.5]
    while len(expected) < 10:
        expected.append(0.75 * expected[-1] + 0.5)
    assert scores == pytest.approx(expected, abs=1e-6)


def test_decay_lets_a_steady_change_never_reach_four_times_itself():
    """S converges to d / (1 - decay) = 4 d, so a threshold of 4 d never fires; without decay it does."""
    never, scores = decisions(scope(0, 2.0, warmup=2, predictor="taylor1"), steps=14)
    assert "r" not in never[2:] and scores[-1] < 2.0
    often, _ = decisions(scope(0, 2.0, warmup=2, predictor="taylor1", decay=1.0), steps=14)
    assert often == "rrppprppprpppr"


def test_no_more_than_max_skip_steps_in_a_row_go_without_a_forward():
    for most in range(6):
        word, _ = decisions(scope(99, 99, max_skip=most))
        assert max(len(run) for run in word.replace("r", " ").split(" ")) == most
        assert word.count("r") == math.ceil(10 / (most + 1))


@pytest.mark.parametrize(
    "warmup,cooldown,word", [(1, 0, "rccccccccc"), (3, 0, "rrrccccccc"), (0, 2, "rcccccccrr"), (2, 1, "rrcccccccr")]
)
def test_the_first_and_the_last_steps_are_computed(warmup, cooldown, word):
    assert decisions(scope(99, 99, warmup=warmup, cooldown=cooldown))[0] == word


def test_warm_up_and_cool_down_count_a_slots_own_steps():
    """Two blocks, the second three rows behind: a row is computed when either is in its first or last step."""
    _, ledger = run(Toy(lag=3), scope(99, 99, cooldown=1))
    assert modes(ledger) == "rccrcccccrccr"
    assert [ledger[i].why for i in (0, 3, 9, 12)] == ["no history", "no history", "cool-down", "cool-down"]


def test_a_block_that_begins_has_no_history_and_is_computed_though_others_could_be_reused():
    _, ledger = run(Toy(slots=6, lag=2), scope(99, 99, warmup=0))
    starts = [entry.iteration for entry in ledger if entry.why == "no history"]
    assert starts == [0, 2, 4]


def test_the_score_of_a_row_is_the_largest_of_its_slots():
    """The first block's signal doubles at its first step and is multiplied by four at its fourth; the second's a row
    later."""
    toy = Toy(slots=4, lag=1, clock=lambda k: [1, 2, 2, 2, 8, 8, 8, 8, 8, 8, 8][k])
    _, ledger = run(toy, scope(99, 99, warmup=0))
    assert [entry.why for entry in ledger[:2]] == ["no history", "no history"]
    assert [entry.score for entry in ledger[2:5]] == [1.0, 1.0, 3.0]


def test_a_score_that_is_no_number_computes_whichever_slot_it_is_of():
    class Broken(Toy):
        def probe(self, name, latents, row):
            signal = super().probe(name, latents, row)
            if row.iteration == 4:
                signal[-1] = math.nan
            return signal

    _, ledger = run(Broken(**LINE), scope(99, 99))
    assert ledger[4].mode is Mode.RECOMPUTE and ledger[4].why == "signal not finite"


def test_against_the_last_recompute_the_change_is_not_accumulated():
    """1.5^k / 1.5^0 - 1 from the anchor itself: 0.5, 1.25, 2.375."""
    word, scores = decisions(scope(1.3, 1.3, reference="recompute"))
    assert scores[:5] == [0.0, 0.5, 1.25, 2.375, 0.5]
    assert word[:7] == "rccrccr"


def test_the_change_may_pass_through_a_polynomial_first():
    _, scores = decisions(scope(99, 99, rescale="poly", coefficients=[2.0, 0.0, 1.0]))
    assert scores[:3] == [0.0, 1.5, 3.0]  # p(0.5) = 2 * 0.25 + 1


def test_decisions_by_unit_leave_the_others_alone():
    toy = Toy(slots=4, lag=3)
    _, ledger = run(toy, scope(99, 99, decide_per="unit", warmup=0))
    of_second = [entry for entry in ledger if entry.unit == 1]
    assert modes(entry for entry in ledger if entry.unit == 0) == "r" + "c" * 9
    assert modes(of_second) == "r" + "c" * 9 and of_second[0].iteration == 3
    assert sum(toy.forwards.values()) == 2


# --- what it fills in -------------------------------------------------------------------------------------------------


def end_error(method, **toy):
    """The largest difference of the latents from a run that computes every row."""
    given, _ = run(Toy(**{**LINE, "lag": 3, "slots": 4, "steps": 30, **toy}), scope(0, 0))
    found, ledger = run(Toy(**{**LINE, "lag": 3, "slots": 4, "steps": 30, **toy}), method)
    assert "c" in modes(ledger) or "p" in modes(ledger)
    return float((found - given).abs().max())


def test_on_a_smooth_field_prediction_beats_reuse_and_second_order_beats_first():
    def error(predictor, order):
        taus = (99, 99) if order == 0 else (0, 99)
        return end_error(scope(*taus, max_skip=3, warmup=4, predictor=predictor), field=math.exp)

    reuse, first, second = error("taylor1", 0), error("taylor1", 1), error("newton2", 2)
    assert first < reuse / 5 and second < first / 5


@pytest.mark.parametrize("predictor", ["newton2", "taylor2", "taylor1", "momentum"])
def test_only_newton_is_exact_on_a_quadratic(predictor):
    """Anchors at unequal spacing: warm-up rows are one step apart, later ones max_skip + 1."""
    error = end_error(scope(0, 99, max_skip=2, warmup=3, predictor=predictor), field=lambda s: 1 + s - 4 * s * s)
    assert (error < 1e-5) is (predictor == "newton2")


def test_prediction_is_exact_on_a_line_for_every_predictor():
    for predictor in ("taylor1", "newton2", "taylor2", "momentum", "auto"):
        assert end_error(scope(0, 99, max_skip=3, warmup=3, predictor=predictor), field=lambda s: 2 - 3 * s) < 1e-5


def test_cache_hands_back_the_last_computed_velocity():
    """Two forwards, at sigma 1 and 0.5, each used for five steps of 0.1."""
    latents, _ = run(Toy(**LINE, field=lambda s: s), scope(99, 99, max_skip=4))
    assert latents.flatten().tolist() == pytest.approx([-(5 * 0.1 * 1.0 + 5 * 0.1 * 0.5)] * 16)


def test_predictions_never_become_anchors():
    method = scope(0, 99, warmup=3, predictor="newton2")
    run(Toy(**LINE), method)
    assert method.predictor_.history.levels[0] == pytest.approx([1.0, 0.9, 0.8])


def test_momentum_by_hand():
    """m <- 0.5 m + 0.5 d1, divided by 1 - 0.5^n: on values 0, 1, 4 at 0, 1, 2, slopes 1 then 3."""
    predictor = Predictor("momentum", Guards(99, 1e-6), beta=0.5)
    for s in (0.0, 1.0, 2.0):
        predictor.keep([0], [s], torch.full((1, 1), s * s))
    slope = (0.5 * 0.5 * 1 + 0.5 * 3) / (1 - 0.25)
    assert predictor.predict([0], [2.5]).item() == pytest.approx(4 + 0.5 * slope)


def test_a_level_that_has_not_moved_adds_no_anchor():
    predictor = Predictor("newton2", Guards(99, 1e-6), beta=0.5)
    for s, v in ((1.0, 1.0), (1.0, 5.0), (0.5, 2.0)):
        predictor.keep([0], [s], torch.full((1, 1), v))
    assert predictor.history.levels[0] == [1.0, 0.5]
    assert predictor.predict([0], [0.25]).item() == pytest.approx(2.5)


@pytest.mark.parametrize("field,best", [(lambda s: s * s, "newton2"), (lambda s: 3.0, "taylor1")])
def test_auto_takes_whichever_predicted_best_and_the_cheaper_of_equals(field, best):
    predictor = Predictor("auto", Guards(99, 1e-6), beta=0.7)
    assert predictor.chosen == "taylor1"
    for k in range(6):
        s = 1 - 0.1 * k
        predictor.keep([0], [s], torch.full((1, 1), float(field(s))))
    assert predictor.chosen == best
    assert predictor.tried == 3


# --- stability controls -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "levels,at,wanted,order",
    [
        ([], 0.5, 2, 0),
        ([1.0], 0.5, 2, 0),
        ([1.0, 0.9], 0.8, 2, 1),
        ([1.0, 0.9, 0.8], 0.7, 2, 2),
        ([1.0, 0.9, 0.8], 0.7, 1, 1),
        ([1.0, 0.9, 0.8], 0.7, 0, 0),
        ([1.0, 0.9, 0.8], 0.19, 2, 0),  # more than six gaps ahead
        ([1.0, 0.9, 0.9 - 1e-9], 0.8, 2, 0),  # the last gap is nothing
        ([0.9 + 1e-9, 0.9, 0.8], 0.7, 2, 1),  # the gap before is
        ([0.85, 0.9, 0.8], 0.7, 2, 1),  # the coordinate turned round
        ([0.1, 0.2, 0.3], 0.4, 2, 2),  # or runs upwards throughout
    ],
)
def test_guards_lower_the_order(levels, at, wanted, order):
    assert usable_order(levels, at, wanted, Guards(rho_max=6.0, min_gap=1e-6)) == order


@pytest.mark.parametrize("predictor", ORDER)
@pytest.mark.parametrize("history", ["lower", "recompute"])
def test_in_the_predict_band_one_anchor_recomputes(predictor, history):
    """Eq. 3 predicts if history suffices. If not, the step is computed; the old velocity is not returned. S = 0.2."""
    method = scope(0.12, 0.30, predictor=predictor, history=history)
    _, ledger = run(Toy(**LINE, growth=1.2), method, counters := Counter())
    assert ledger[1].score == pytest.approx(0.2) and ledger[1].mode is Mode.RECOMPUTE
    assert ledger[1].why == "short history" and counters["short history"] >= 1
    assert ledger[0].mode is Mode.RECOMPUTE and "p" in modes(ledger[2:])


def test_short_history_lowers_the_order_while_it_reaches_first_or_recomputes():
    _, ledger = run(Toy(**LINE), scope(0, 99), counters := Counter())
    assert modes(ledger) == "rr" + "p" * 8
    assert counters == {"short history": 1, "order lowered": 8}
    assert decisions(scope(0, 99, history="recompute"))[0][:5] == "rrrpp"
    two = scope(0, 99, warmup=2, rho_max=6.5)
    _, ledger = run(Toy(**LINE), two, counters := Counter())
    assert modes(ledger) == "rr" + "p" * 6 + "rp"  # the ninth row is more than six gaps ahead
    assert counters == {"order lowered": 6, "short history": 1}


def test_a_row_is_computed_if_any_of_its_slots_cannot_be_extrapolated():
    """The second block is three rows behind. It has one anchor in its second row, when the first block has two."""
    _, ledger = run(Toy(lag=3), scope(0, 99))
    assert [entry.why for entry in ledger[:5]] == ["no history", "short history", "", "no history", "short history"]
    assert {entry.mode for entry in ledger[5:]} == {Mode.PREDICT}


def test_clipping_bounds_the_correction_and_is_counted():
    """v = 10 s at 1.0, 0.9: predicted 8 for 0.8, a correction of 1/9; clipped to a tenth of that."""
    method = scope(0, 99, warmup=2, predictor="taylor1", clip=1 / 90, max_skip=1, cooldown=7)
    latents, ledger = run(Toy(**LINE, field=lambda s: 10 * s), method, counters := Counter())
    assert modes(ledger) == "rrp" + "r" * 7 and counters == {"clipped": 1}
    free, _ = run(Toy(**LINE, field=lambda s: 10 * s), replace(method, clip=math.inf), counters := Counter())
    assert counters == {}
    torch.testing.assert_close((free - latents)[0, 0, 0, 0].item(), 0.1 * (8.9 - 8.0), atol=1e-5, rtol=0)


def test_a_correction_that_is_too_large_recomputes_and_is_counted():
    method = scope(0, 99, warmup=2, predictor="taylor1", reject=0.1)
    _, ledger = run(Toy(**LINE, field=lambda s: 10 * s), method, counters := Counter())
    assert ledger[2].mode is Mode.RECOMPUTE and ledger[2].why == "correction too large"
    assert counters["rejected"] == sum(entry.why == "correction too large" for entry in ledger) == 8
    assert decisions(replace(method, reject=0.2), field=lambda s: 10 * s)[0][2] == "p"


@pytest.mark.parametrize("older, newer", [(math.nan, 2.0), (math.inf, math.inf)])
def test_a_correction_that_is_no_number_recomputes_where_corrections_are_checked(older, newer):
    """The correction of the first slot is 0; that of the second is NaN."""
    method = scope(0, 99, warmup=0, predictor="taylor1", reject=9.0)
    row = Row(3, 0, range(2), 10, (3, 3), (0.25, 0.25), (0.2, 0.2), (True, True), unit=2)
    for level, value in ((1.0, older), (0.5, newer)):
        velocity = torch.tensor([1.0, value]).view(2, 1, 1, 1)
        method.keep(VELOCITY, replace(row, sigma=(level, level)), velocity, velocity)
    decision = method.decide(row, lambda name: torch.ones(2, 1))
    assert (decision.mode, decision.why) == (Mode.RECOMPUTE, "correction not a number")
    assert method.counters() == {"rejected": 1}


def test_amplitude_keeps_each_channel_within_the_widened_range_of_its_last_value():
    method = scope(0, 99, predictor="taylor1", amplitude=0.5)
    v1 = torch.tensor([[[[0.0, 1.0], [0.0, 1.0]], [[5.0, 5.0], [5.0, 5.0]]]])
    method.predictor_.keep([0], [1.0], v1 + 3)
    method.predictor_.keep([0], [0.5], v1)
    found = method._steadied([0], [0.0], v1)
    assert found[0, 0].tolist() == [[-0.5, -0.5], [-0.5, -0.5]]  # predicted -3 and -2, range [0, 1] widened by 0.5
    assert found[0, 1].tolist() == [[5.0, 5.0], [5.0, 5.0]]  # a range of nothing: as it was


def test_a_prediction_that_is_no_number_gives_way_to_the_last_velocity():
    method = scope(0, 99, predictor="taylor1")
    last = torch.tensor([1.0, 2.0]).view(2, 1, 1, 1)
    method.predictor_.keep([0, 1], [1.0, 1.0], torch.tensor([0.5, float("inf")]).view(2, 1, 1, 1))
    method.predictor_.keep([0, 1], [0.5, 0.5], last)
    assert method._steadied([0, 1], [0.25, 0.25], last).flatten().tolist() == [1.25, 2.0]


def test_counters_cover_every_segment():
    """Two segments of ten rows; each has corrections that are too large."""
    two = Toy(slots=6, block=2, lag=0, window=4, overlap=2, field=lambda s: 10 * s)
    method = scope(0, 99, warmup=2, predictor="taylor1", reject=0.1)
    _, ledger = run(two, method, counters := Counter())
    assert counters["rejected"] == sum(entry.why == "correction too large" for entry in ledger) == 16


# --- state ------------------------------------------------------------------------------------------------------------


def test_history_is_keyed_by_slot_when_the_interval_moves():
    """Only the end of the interval is forwarded, so windows have different lengths; every slot must use its own
    history. The velocity of slot k is k at every level, so a mix-up would change the result."""

    class Apart(Toy):
        def velocity(self, latents, row, visit):
            def whole(x, parts):
                self.forwards[row.iteration] += 1
                return torch.tensor([float(slot) for slot in row.slots]).view(-1, 1, 1, 1).expand(-1, 2, 2, 2)

            return visit(VELOCITY, latents[row.slots.start : row.slots.stop], whole)

    for selective, taus in itertools.product(("none", "prefix", "hull"), ((99, 99), (0, 99))):
        toy = Apart(slots=8, lag=2)
        latents, _ = run(toy, scope(*taus, selective=selective, warmup=0))
        assert len(toy.forwards) == (4 if taus[0] else 8)  # of four blocks: a forward each, or the two of a line
        expected = [-float(slot) for slot in range(8)]
        assert latents[:, 0, 0, 0].tolist() == pytest.approx(expected, abs=1e-5)


def test_nothing_is_remembered_from_one_segment_to_the_next():
    """NaN replaces the history of every slot at the end of the first segment. The second segment must not change."""
    toy, method = Toy(slots=6, block=2, lag=0, window=4, overlap=2), scope(0, 99, warmup=2)
    clean, _ = run(toy, method)

    def poison(row):
        if row.last and row.segment == 0:
            for tensor in method.state():
                tensor.fill_(float("nan"))

    assert torch.equal(generate(toy, method, None, 0, [], poison), clean)


def test_memory_is_the_history_and_one_signal():
    method = scope(0, 99, warmup=2)
    run(Toy(**LINE), method)
    sizes = sorted(tensor.numel() for tensor in method.state())
    assert sizes == [2, 3 * 2 * 8]  # two slots' clocks; three anchors of two slots of 2 x 2 x 2


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes,words",
    [
        ({"tau_cache": 0.5, "tau_predict": 0.3}, "0 <= tau_cache <= tau_predict"),
        ({"tau_cache": -0.1}, "0 <= tau_cache"),
        ({"tau_cache": math.nan}, "tau_cache=nan"),
        ({"tau_predict": math.nan}, "tau_predict=nan"),
        ({"decay": 1.5}, "decay"),
        ({"max_skip": -1}, "max_skip"),
        ({"warmup": -1}, "warmup"),
        ({"beta": 1.0}, "beta"),
        ({"predictor": "newton3"}, "predictor is one of taylor1"),
        ({"selective": "all"}, "none, prefix, hull"),
        ({"history": "wait"}, "history is one of"),
        ({"reference": "first"}, "reference is one of"),
        ({"decide_per": "slot"}, "decide_per is one of"),
        ({"rescale": "poly"}, "needs coefficients"),
        ({"clip": -1.0}, "clip"),
        ({"eps": 0.0}, "eps"),
        ({"rho_max": math.nan}, "rho_max"),
    ],
)
def test_settings_that_make_no_sense_are_refused_in_words(changes, words):
    with pytest.raises(ValueError) as error:
        Scope(**{"tau_cache": 0.1, "tau_predict": 0.3, **changes})
    assert words in str(error.value)


def test_a_signal_that_the_model_lacks_is_refused_before_anything_runs():
    with pytest.raises(ValueError, match=r"needs x_embedder, which toy does not offer.*use another toy"):
        Scope(0.1, 0.3, signal="x_embedder").check(Toy())
    Scope(0.1, 0.3, signal="clock").check(Toy())


def test_idle_slots_are_not_filled_in():
    sigma, after, active = (0.0, 0.7, 0.7, 1.0), (0.0, 0.6, 0.6, 1.0), (False, True, True, False)
    row = Row(0, 0, range(4), 10, (10, 3, 3, 0), sigma, after, active, unit=1)
    method = scope(99, 99)
    method.keep(method.sites(1, row)[0], row, torch.zeros(4, 1, 1, 1), torch.arange(1.0, 5.0).view(4, 1, 1, 1))
    x = torch.full((4, 1, 1, 1), 7.0)
    filled = method.fill(method.sites(1, row)[0], row, Mode.CACHE, x)
    assert filled.flatten().tolist() == [0.0, 2.0, 3.0, 0.0] and x.eq(7.0).all()
