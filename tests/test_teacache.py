"""TeaCache: the polynomial, the accumulator and what is reused, by hand-worked sequences."""

import math

import numpy as np
import pytest
import torch

from baselines.teacache import COEFFICIENTS, TeaCache
from engine.loop import generate
from engine.row import Mode
from tests.tiny import LONG, build, ledger_of, texts_of, video
from tests.toy import Toy, modes, run

LINE = {"slots": 2, "block": 2, "lag": 0}  # a relative change of exactly 0.5 at every step


def teacache(threshold, *coefficients, **changes):
    fit = {"fit": "own", "coefficients": list(coefficients)} if coefficients else {"fit": "none"}
    return TeaCache(threshold, **{"signal": "clock", "warmup": 1, **fit, **changes})


def decisions(method, **toy):
    _, ledger = run(Toy(**{**LINE, **toy}), method)
    return modes(ledger), [entry.score for entry in ledger]


@pytest.mark.parametrize("fit", COEFFICIENTS)
@pytest.mark.parametrize("r", [0.0, 0.003, 0.05, 0.2])
def test_polynomials_are_read_highest_power_first(fit, r):
    method = TeaCache(0.1, fit=fit)
    assert method._estimate(r) == pytest.approx(np.polyval(COEFFICIENTS[fit], r))


def test_wans_constants_are_negative_with_retention_and_positive_without():
    assert TeaCache(0.1, fit="wan_retention")._estimate(0.0) == pytest.approx(-0.0499875664)
    assert TeaCache(0.1, fit="wan")._estimate(0.0) == pytest.approx(0.137887774)


def test_accumulation_by_hand():
    """p(r) = r adds 0.5 per step, and a sum of 1.5 computes. So every third row after a computed one computes."""
    word, scores = decisions(teacache(1.5))
    assert word == "rccrccrccr"
    assert scores == [0.0, 0.5, 1.0, 1.5, 0.5, 1.0, 1.5, 0.5, 1.0, 1.5]


def test_a_score_on_the_threshold_computes():
    assert decisions(teacache(0.5))[0] == "r" * 10
    assert decisions(teacache(0.501))[0] == "rc" * 5


def test_a_quadratic_by_hand():
    """p(r) = 2 r^2 - r + 0.25 at 0.5 is 0.25."""
    word, scores = decisions(teacache(0.6, 2.0, -1.0, 0.25))
    assert word == "rccrccrccr" and scores[:4] == [0.0, 0.25, 0.5, 0.75]


def test_a_negative_polynomial_lowers_the_score_unless_forbidden():
    """p(0.5) = -0.1: the sum falls, so no later step is computed."""
    word, scores = decisions(teacache(0.3, 1.0, -0.6))
    assert word == "r" + "c" * 9 and scores[1:4] == pytest.approx([-0.1, -0.2, -0.3])
    word, scores = decisions(teacache(0.3, 1.0, -0.6, nonnegative=True))
    assert scores == [0.0] * 10
    assert decisions(teacache(0.0, 1.0, -0.6))[0] == "r" * 10  # and 0 still never reuses


@pytest.mark.parametrize("warmup,cooldown,word", [(5, 0, "rrrrrccccc"), (1, 1, "rccccccccr"), (2, 3, "rrcccccrrr")])
def test_first_and_last_rows_are_computed(warmup, cooldown, word):
    assert decisions(teacache(99, warmup=warmup, cooldown=cooldown))[0] == word


def test_retention_counts_rows_of_the_segment_or_own_steps_of_the_slot():
    """Two blocks, the second three rows behind, two warm-up steps and two at the end."""
    for pool, word in (("row", "rrcccccccccrr"), ("slot", "rrcrrcccrrcrr")):
        _, ledger = run(Toy(lag=3), teacache(99, warmup=2, cooldown=2, pool=pool))
        assert modes(ledger) == word, pool
    two = Toy(slots=6, block=2, lag=0, window=4, overlap=2)
    assert modes(run(two, teacache(99, warmup=2))[1]) == ("rr" + "c" * 8) * 2


def test_pooled_over_the_row_idle_slots_dilute_the_change():
    """Clocks 1.5^k of two blocks, the second not started: |1.5 - 1| / (1 + 1) is half of the active one's change."""
    _, row = run(Toy(lag=3), teacache(99))
    _, slot = run(Toy(lag=3), teacache(99, pool="slot"))
    assert row[1].score == pytest.approx(0.25) and slot[1].score == pytest.approx(0.5)
    assert row[2].score == pytest.approx(0.25 + 0.75 / 2.5)  # 1.5 -> 2.25 beside 1
    assert slot[2].score == pytest.approx(1.0)
    assert slot[3].mode is Mode.RECOMPUTE and slot[3].why == "no history"  # the second block begins


def test_reuse_adds_the_last_residual_of_the_blocks_to_todays_input():
    toy = Toy(**LINE, field=lambda s: s)
    latents, ledger = run(toy, teacache(2.1))
    assert modes(ledger) == "rccccrcccc"
    assert latents.flatten().tolist() == pytest.approx([-(5 * 0.1 * 1.0 + 5 * 0.1 * 0.5)] * 16)
    assert {site for entry in ledger if entry.mode is Mode.CACHE for site in entry.sites} == {"blocks 0:3"}


def test_branches_decided_apart_agree_with_branches_decided_together():
    apart, joint = build(frames=LONG), build(frames=LONG)
    settings = {"threshold": 0.3, "fit": "none", "warmup": 2}
    ours, theirs = TeaCache(**settings, per_branch=True), TeaCache(**settings)
    first, second = video(apart, ours), video(joint, theirs)
    assert torch.equal(first, second)
    a, b = ledger_of(apart, ours), ledger_of(joint, theirs)
    assert "cache" in {entry.mode for entry in b}
    for branch in ("cond", "uncond"):
        assert [(e.iteration, e.mode, e.score) for e in a if e.branch == branch] == [
            (e.iteration, e.mode, e.score) for e in b
        ]


def test_state_is_one_residual_per_branch_and_the_last_signal():
    model, method = build(), TeaCache(0.3, fit="none")
    video(model, method)
    assert sorted(t.numel() for t in method.state())[-2:] == [10 * 6 * 24] * 2


def test_nothing_is_remembered_from_one_segment_to_the_next():
    model, method = build(frames=LONG), TeaCache(0.3, fit="none", warmup=1)
    clean = video(model, method)

    def poison(row):
        if row.last and row.segment == 0:
            for tensor in method.state():
                tensor.fill_(math.nan)

    text = model.conditioning("a fox", texts_of(model, "a fox"))
    assert torch.equal(generate(model, method, text, 0, [], poison), clean)


@pytest.mark.parametrize(
    "changes,words",
    [
        ({"threshold": -0.1}, "at least 0"),
        ({"threshold": math.nan}, "got nan"),
        ({"fit": "flux"}, "fit is one of"),
        ({"fit": "own"}, "needs coefficients"),
        ({"pool": "frame"}, "pool is row or slot"),
        ({"warmup": 0}, "warmup >= 1"),
        ({"reuse": "blocks"}, "reuse is one of"),
        ({"counter": "x"}, "rows or calls"),
        ({"counter": "calls"}, "set per_branch=true"),
        ({"per_branch": True, "reuse": "velocity"}, "needs reuse=residual, got reuse=velocity"),
    ],
)
def test_settings_that_make_no_sense_are_refused_in_words(changes, words):
    with pytest.raises(ValueError) as error:
        TeaCache(**{"threshold": 0.1, **changes})
    assert words in str(error.value)


def test_the_released_counter_warms_up_twice_a_segment_and_never_cools_down():
    """Calls are counted over both branches. The count restarts at the number of rows of the segment."""
    model = build(frames=LONG, steps=8)
    method = TeaCache(9.0, fit="none", warmup=2, cooldown=3, per_branch=True, counter="calls")
    ledger = ledger_of(model, method)
    for segment in {row.segment for row in model.schedule()}:
        own = sorted((e for e in ledger if e.segment == segment), key=lambda e: (e.iteration, e.branch))
        rows = len(own) // 2
        computed = {call for call, entry in enumerate(own) if entry.mode is Mode.RECOMPUTE}
        assert rows > 8 and computed == {0, 1, 2, 3, *range(rows, rows + 4)}


def test_the_released_increment_and_the_velocity_by_hand():
    """sigma 1 to 0 in ten steps, v = sigma: one computed, four reused; steps are even, so both quantities agree."""
    for reuse in ("increment", "velocity"):
        toy = Toy(**LINE, field=lambda s: s)
        latents, ledger = run(toy, teacache(2.1, reuse=reuse))
        assert modes(ledger) == "rccccrcccc"
        assert latents.flatten().tolist() == pytest.approx([-(5 * 0.1 * 1.0 + 5 * 0.1 * 0.5)] * 16)
        assert {site for entry in ledger if entry.mode is Mode.CACHE for site in entry.sites} == {"velocity"}
