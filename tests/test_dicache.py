"""DiCache: decisions and combined residuals worked out by hand."""

import math

import pytest
import torch

from baselines.dicache import DiCache, gain
from tests.by_hand import modes, row_at, through

DOUBLE, SQUARE = (lambda x: 2 * x), (lambda x: x * x)


def dicache_run(method, path, blocks=(DOUBLE, SQUARE), steps=0):
    inputs = [torch.full((1, 1, 1), value) for value in path]
    outputs, ledger = through(method, blocks, inputs, [row_at(k, steps or len(path)) for k in range(len(path))])
    return [float(out) for out in outputs], ledger


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_run_by_hand(sign):
    """p = x. Computed: R = 4 x^2 - x at 1, 1.5 and 1.8, that is 3, 7.5 and 11.16. The probe's output is 2 x.

    1.6: A = 0.2 / 3,             g = 0.6 / 0.5,   1.6 + 3 + 1.2 (7.5 - 3)
    1.8: A = 0.2 / 3 + 0.4 / 3.2 >= 0.15
    1.85: A = 0.1 / 3.6,          g = 0.35 / 0.3,  1.85 + 7.5 + 7 / 6 (11.16 - 7.5)
    1.95: A = 0.1 / 3.6 + 0.2 / 3.7,  g = 0.45 / 0.3
    """
    tail = SQUARE if sign > 0 else lambda x: -x * x  # odd, so that everything changes its sign
    path = [sign * x for x in (1.0, 1.5, 1.6, 1.8, 1.85, 1.95)]
    outputs, ledger = dicache_run(DiCache(0.15), path, (DOUBLE, tail), steps=10)
    expected = [4, 9, 1.6 + 3 + 1.2 * 4.5, 12.96, 1.85 + 7.5 + 7 / 6 * 3.66, 1.95 + 7.5 + 1.5 * 3.66]
    assert modes(ledger) == "rrcrcc"
    assert outputs == pytest.approx([sign * x for x in expected], rel=1e-5)
    sums = [0.2 / 3, 0.2 / 3 + 0.125, 0.1 / 3.6, 0.1 / 3.6 + 0.2 / 3.7]
    assert [entry.score for entry in ledger[2:]] == pytest.approx(sums, abs=1e-5)
    assert [entry.why for entry in ledger[:2]] == ["no history", "warm-up"] and ledger[2].sites == ("blocks 1:2",)


@pytest.mark.parametrize(
    "probe, newer, older, expected",
    [
        (1.6, 1.5, 1.0, 1.2),
        (-1.6, -1.5, -1.0, 1.2),
        (1.2, 1.5, 1.0, 1.0),  # clipped from 0.4
        (2.5, 1.5, 1.0, 2.0),  # clipped from 3
        (0.4, 1.5, 1.0, 1.2),  # sizes only: the direction does not count
        (1.7, 1.5, 1.5, 1.0),  # the probe did not move
        (1.5, 1.5, 1.5, 1.0),
        (1.5, math.nan, 1.0, 1.0),
    ],
)
def test_the_gain(probe, newer, older, expected):
    found = gain(*(torch.full((1, 2, 2), value) for value in (probe, newer, older)))
    assert found.tolist() == pytest.approx([expected])


def test_after_one_computed_step_its_residual_is_reused():
    outputs, ledger = dicache_run(DiCache(9.0, retention=0.1), [1.0, 1.5, 3.0], steps=10)
    assert modes(ledger) == "rcc" and outputs[1:] == pytest.approx([1.5 + 3, 3.0 + 3])


@pytest.mark.parametrize(
    "threshold, retention, cooldown, expected",
    [
        (0.0, 0.2, 0, "r" * 10),
        (9.0, 0.2, 0, "rr" + "c" * 8),
        (9.0, 0.25, 1, "rrr" + "c" * 6 + "r"),
        (9.0, 0.0, 0, "r" + "c" * 9),
        (9.0, 1.0, 0, "r" * 10),
    ],
)
def test_the_first_and_the_last_steps_are_computed(threshold, retention, cooldown, expected):
    assert modes(dicache_run(DiCache(threshold, 1, retention, cooldown), [1.0] * 10)[1]) == expected


@pytest.mark.parametrize("last", [0.0, 1e-9, math.nan])
def test_a_change_from_nothing_has_no_measure_and_computes(last):
    _, ledger = dicache_run(DiCache(0.1), [0.0, 0.0, 0.0, last, 1.0, 1.0], steps=10)
    assert modes(ledger)[:4] == "rrrr" and {entry.why for entry in ledger[2:4]} == {"signal not finite"}
    assert modes(ledger)[4:] == "rc", "A starts again at 0"


def test_a_deeper_probe_runs_more_blocks_and_decides_by_their_output():
    blocks = [DOUBLE, lambda x: x + 1, SQUARE]
    outputs, ledger = dicache_run(DiCache(0.1, probe=2), [1.0, 1.5, 1.6], blocks, steps=10)
    assert ledger[2].sites == ("blocks 2:3",) and ledger[2].score == pytest.approx(0.2 / 4, abs=1e-6)
    assert outputs[2] == pytest.approx(1.6 + 8 + (2.6 - 2) / 0.5 * (14.5 - 8)), "p = x + 1"


def test_one_slot_that_moves_computes_under_slot_pooling_only():
    still = torch.ones(4, 1, 1)
    moved = torch.tensor([1.0, 1.0, 1.0, 1.3]).view(4, 1, 1)
    for pool, expected in (("row", "rc"), ("slot", "rr")):
        rows = [row_at(k, 5, 4) for k in range(2)]
        _, ledger = through(DiCache(0.1, pool=pool), [DOUBLE] * 2, [still, moved], rows)
        assert modes(ledger) == expected


def test_every_slot_has_its_own_gain_and_history():
    """Slot 1 begins a row after slot 0: it has one residual when slot 0 has two. Tail: y -> y^2, R = 4 x^2 - x."""
    rows = [row_at(0, 5, 1), row_at(1, 5, 2, step=(1, 0)), row_at(2, 5, 2, step=(2, 1))]
    inputs = [torch.tensor(values).view(-1, 1, 1) for values in ([1.0], [1.5, 2.0], [1.6, 2.1])]
    outputs, ledger = through(DiCache(9.0), [DOUBLE, SQUARE], inputs, rows)
    assert modes(ledger) == "rrc"
    assert outputs[2].flatten().tolist() == pytest.approx([1.6 + 3 + 1.2 * 4.5, 2.1 + 14.0])


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"threshold": -1.0}, "threshold"),
        ({"probe": 0}, "probe"),
        ({"retention": 1.1}, "retention"),
        ({"pool": "all"}, "pool"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        DiCache(**{"threshold": 0.1, **changes})
