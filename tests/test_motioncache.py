"""MotionCache: weights, decisions per token and mixed outputs worked out by hand."""

import math

import pytest
import torch

from baselines.motioncache import MotionCache, weights
from engine.row import Mode
from tests import tiny
from tests.by_hand import modes, row_at, through

HAND = {"fit": "none", "floor": 0.5, "least": 0.0, "uniform": 0, "warmup": 1}


def run(method, signal=None, sign=1.0, steps=6):
    """One unit of 2 frames of 2 tokens. The n-th call of the block multiplies by 2, 4, 8, ...; r is 0.5 everywhere.

    Token 0 goes from 1 to 2 between the frames and token 1 stays: D = (1, 0), whatever a token was multiplied by.
    """
    calls, signal = iter(range(1, 99)), signal or (lambda name, k: torch.full((2, 1), 1.5**k))
    x = sign * torch.tensor([[1.0, 1.0], [2.0, 1.0]]).view(2, 2, 1)
    rows = [row_at(k, steps, 2) for k in range(steps)]
    outputs, ledger = through(method, [lambda x: x * 2.0 ** next(calls)], [x] * steps, rows, signal)
    return [(out / x)[0, :, 0].tolist() for out in outputs], ledger


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_run_by_hand(sign):
    """W = (1, 0.5). A: (0.5, 0.25), (1, 0.5) token 0 runs, (0.5, 0.75), (1, 1) both run, (0.5, 0.25)."""
    outputs, ledger = run(MotionCache(1.0, **HAND), sign=sign)
    assert [entry.why for entry in ledger] == ["no history", "", "tokens", "", "score", ""]
    assert modes(ledger) == "rcrcrc" and [entry.tokens for entry in ledger] == [0, 0, 1, 0, 0, 0]
    assert [entry.score for entry in ledger[1:]] == pytest.approx([0.5, 1.0, 0.75, 1.0, 0.5], abs=1e-5)
    assert outputs == [[2, 2], [2, 2], [4, 2], [4, 2], [8, 8], [8, 8]]


def test_too_few_tokens_wait_and_keep_their_sum():
    """One of two is below the share 0.6: A goes on to (1.5, 0.75) and (2, 1)."""
    _, ledger = run(MotionCache(1.0, **{**HAND, "least": 0.6}))
    assert modes(ledger) == "rcccrc" and ledger[3].score == pytest.approx(1.5, abs=1e-5)
    assert run(MotionCache(1.0, **{**HAND, "least": 0.5}))[1][2].tokens == 1, "a share of just 0.5 runs"


def test_weights_are_equal_until_enough_steps_were_computed():
    """A = (0.5, 0.5), (1, 1) both run; then W = (1, 0.5): (0.5, 0.25), (1, 0.5) token 0 runs."""
    _, ledger = run(MotionCache(1.0, **{**HAND, "uniform": 1}))
    assert modes(ledger) == "rcrcrc" and [entry.tokens for entry in ledger] == [0, 0, 0, 0, 1, 0]


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"threshold": 0.0}, "rrrrrr"),
        ({"threshold": math.inf}, "rccccc"),
        ({"warmup": 3, "threshold": math.inf}, "rrrccc"),
        ({"cooldown": 2, "threshold": math.inf}, "rcccrr"),
        ({"fit": "own", "coefficients": [-1.0, 0.0]}, "rccccc"),  # A falls
        ({"fit": "own", "coefficients": [4.0]}, "rrrrrr"),
    ],
)
def test_the_ends_of_the_settings(changes, expected):
    assert modes(run(MotionCache(**{"threshold": 1.0, **HAND, **changes}))[1]) == expected


def test_a_signal_without_a_number_computes_and_the_sum_starts_again():
    values = [1.0, 1.5, math.nan, 1.5, 2.25, 3.375]
    _, ledger = run(MotionCache(9.0, **HAND), lambda name, k: torch.full((2, 1), values[k]))
    assert modes(ledger) == "rcrrcc" and {entry.why for entry in ledger[2:4]} == {"signal not finite"}
    assert ledger[4].score == pytest.approx(0.5, abs=1e-5)
    _, ledger = run(MotionCache(9.0, **HAND), lambda name, k: torch.zeros(2, 1))
    assert modes(ledger) == "rccccc" and ledger[-1].score == 0.0, "a signal that stays 0 does not change"


@pytest.mark.parametrize(
    "total, expected",
    [
        ([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]], "all"),  # two frames of three
        ([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]], (0,)),
        ([[1.0, 0.0], [0.0, 1.0]], "none"),  # one of two is no majority
        ([[-1.0, 1.0]], (1,)),
    ],
)
def test_a_position_is_due_if_more_than_half_of_the_frames_say_so(total, expected):
    found = MotionCache(1.0, **HAND)._due(torch.tensor(total))
    assert found.mode is (Mode.CACHE if expected == "none" else Mode.RECOMPUTE)
    assert found.tokens == (expected if isinstance(expected, tuple) else ())


@pytest.mark.parametrize(
    "y, before, expected",
    [
        ([[2.0, 2.0], [4.0, 2.0]], None, [[1.0, 0.6], [1.0, 0.6]]),
        ([[-2.0, -2.0], [-4.0, -2.0]], None, [[1.0, 0.6], [1.0, 0.6]]),
        ([[2.0, 2.0, 2.0]], [1.0, 2.0, 4.0], [[1.0, 0.6, 0.8]]),  # D = 1, 0, 0.5
        ([[2.0, 5.0]], None, [[0.6, 0.6]]),  # nothing to compare with
        ([[3.0, 6.0]], [1.0, 2.0], [[0.6, 0.6]]),  # all move alike
        ([[1.0, 1.0]], [0.0, 1.0], [[1.0, 0.6]]),  # from nothing: the largest motion
    ],
)
def test_the_weights(y, before, expected):
    found = weights(torch.tensor(y)[..., None], None if before is None else torch.tensor(before)[:, None], 0.6)
    assert found.tolist() == [pytest.approx(row, abs=1e-6) for row in expected]


def test_on_the_model_some_tokens_run_and_each_branch_chooses_its_own():
    model = tiny.build(steps=8, frames=21, base_frames=21, overlap=0, attention="block_causal")
    method = MotionCache(0.3, **{**HAND, "floor": 0.0, "least": 0.1})
    assert method.reschedule(model.settings).attention == "block_causal"
    ledger = []
    tiny.video(model, method, ledger=ledger)
    assert {entry.tokens for entry in ledger if entry.why == "tokens"} & {1, 2, 3, 4, 5}
    assert {entry.branch for entry in ledger} == {"cond", "uncond"}
    assert {entry.mode for entry in ledger} == {Mode.RECOMPUTE, Mode.CACHE}


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"threshold": -1.0}, "threshold"),
        ({"threshold": math.nan}, "threshold"),
        ({"floor": 1.1}, "floor"),
        ({"least": -0.1}, "least"),
        ({"warmup": 0}, "warmup"),
        ({"function": "other"}, "function"),
        ({"fit": "own"}, "coefficients"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        MotionCache(**{"threshold": 0.1, **changes})
