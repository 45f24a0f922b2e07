"""SenCache: decisions, outputs and the calibration of its tables, worked out by hand."""

import math
from types import SimpleNamespace

import pytest
import torch

from baselines.sencache import SenCache
from benchmarks.calibrate_sencache import Sensitivities
from tests.by_hand import modes, row_at, through

TABLES = {"latent": [2.0, 1.0, 1.0, 4.0, 1.0], "time": [1.0, 1.0, 1.0, 1.0, 1.0]}


def run(method, path, steps=5):
    """One latent through a block that triples it; the latent is the block's input."""
    inputs = [torch.full((1, 2, 2), value) for value in path]
    rows = [row_at(k, steps) for k in range(len(path))]
    outputs, ledger = through(method, [lambda x: 3 * x], inputs, rows, lambda name, k: inputs[k])
    return [float(out[0, 0, 0]) for out in outputs], ledger


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_run_by_hand(sign):
    """sigma falls by 0.2. From step 0: 2 * 0.1 + 0.2 = 0.4 and 2 * 0.2 + 0.4 = 0.8 reuse R = 2; 2 * 0.4 + 0.6 does not.

    From step 3 with J = 4: 4 * 0.1 + 0.2 = 0.6 reuses R = 2.8.
    """
    outputs, ledger = run(SenCache(1.0, early=1.0, **TABLES), [sign * x for x in (1.0, 1.1, 1.2, 1.4, 1.5)])
    assert modes(ledger) == "rccrc"
    assert [entry.score for entry in ledger[1:]] == pytest.approx([0.4, 0.8, 1.4, 0.6], abs=1e-5)
    assert outputs == pytest.approx([sign * x for x in (3, 3.1, 3.2, 4.2, 4.3)])
    assert [entry.why for entry in ledger] == ["no history", "", "", "score", ""]


def test_the_first_part_of_the_steps_has_its_own_limit():
    """Two of five steps are early: step 1 with 0.4 >= 0.3 computes; step 2 has 0.1 + 0.2 < 1."""
    _, ledger = run(SenCache(1.0, early=0.3, early_share=0.4, **TABLES), [1.0, 1.1, 1.2])
    assert modes(ledger) == "rrc" and ledger[2].score == pytest.approx(0.3, abs=1e-5)


@pytest.mark.parametrize("most, expected", [(0, "rrrrr"), (1, "rcrcr"), (2, "rccrc"), (10, "rcccc")])
def test_at_most_so_many_steps_in_a_row_are_skipped(most, expected):
    _, ledger = run(SenCache(9.0, early=9.0, max_skip=most, **TABLES), [1.0] * 5)
    assert modes(ledger) == expected and {e.why for e in ledger[1:]} <= {"", "max_skip"}


@pytest.mark.parametrize(
    "threshold, path, expected",
    [
        (0.0, [1.0] * 5, "rrrrr"),
        (math.inf, [1.0, -9.0, 99.0, 0.0, 1.0], "rcccc"),
        (1.0, [1.0, 1.0, math.nan, 1.0, 1.0], "rcrrc"),  # the last computed latent must be a number, too
    ],
)
def test_the_ends_of_the_settings(threshold, path, expected):
    _, ledger = run(SenCache(threshold, early=threshold, **TABLES), path)
    assert modes(ledger) == expected


def test_one_slot_that_moves_computes_the_row_and_each_reads_its_own_step():
    """Slot 1 starts a row later. At row 2: slot 0 has 1 * 0.1 + 0.2, slot 1 (J = 2) has 2 * 0.4 + 0.2 >= 0.9."""
    rows = [row_at(0, 5, 1), row_at(1, 5, 2, step=(1, 0)), row_at(2, 5, 2, step=(2, 1))]
    inputs = [torch.tensor(values).view(-1, 1, 1) for values in ([1.0], [1.0, 1.0], [1.1, 1.4])]
    method = SenCache(0.9, early=0.9, **TABLES)
    _, ledger = through(method, [lambda x: x], inputs, rows, lambda name, k: inputs[k])
    assert modes(ledger) == "rrr" and ledger[2].score == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_tables_of_a_model_that_is_known(sign):
    """v = -3 x + 5 s along x_next = x - 0.5 v: Jx = 3 and Jt = 5, whichever sign the latent has."""

    class Known:
        depth = 1

        def schedule(self):
            return [row_at(k, 3) for k in range(3)]

        def start(self, text, seed):
            return torch.full((1, 1, 2, 2), sign)

        def open(self, latents, row):
            return latents

        def velocity(self, latents, row, visit):
            return -3 * latents + 5 * row.sigma[0]

        def advance(self, latents, row, velocity):
            return latents.sub_(0.5 * velocity)

    found = Sensitivities()
    found.measure(Known(), None, 0)
    latent, time = found.tables(3)
    assert latent == pytest.approx([3, 3, 3], rel=1e-4) and time == pytest.approx([5, 5, 5], rel=1e-4)
    still = SimpleNamespace(**{name: getattr(Known(), name) for name in ("depth", "schedule", "start", "open")})
    still.velocity, still.advance = (lambda x, row, visit: 0 * x), (lambda x, row, v: x)
    nothing = Sensitivities()
    nothing.measure(still, None, 0)
    assert nothing.tables(3) == ([0, 0, 0], [0, 0, 0]), "a latent that does not move has no quotient"


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"threshold": -1.0}, "threshold"),
        ({"early": math.nan}, "early"),
        ({"early_share": 1.1}, "early_share"),
        ({"max_skip": -1}, "max_skip"),
        ({"latent": []}, "calibrate_sencache"),
        ({"time": [1.0, -1.0]}, "time wants a sensitivity"),
        ({"latent": [math.nan]}, "latent wants a sensitivity"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        SenCache(**{"threshold": 0.1, **TABLES, **changes})
