"""`selective: stored` of fixed schedules: finished units are computed once more and then seen through stored keys."""

import pytest
import torch

from baselines.budget import Budget
from baselines.meancache import MeanCache
from baselines.ramp import Ramp
from engine.ledger import flops, plan
from engine.method import Original
from tests.tiny import LONG, build, ledger_of, video
from tests.toy import Toy

STEPS, LAG, UNITS = 8, 2, 5  # unit u begins in row 2u and finishes in row 7 + 2u; no unit waits from row 8 on
ALL = [[*range(STEPS)]]


@pytest.fixture(scope="module")
def model():
    return build(steps=STEPS, addnoise=0, attention="full")


def covered(model, method):
    """{row: the units that its forward computes}, of the rows that run a forward."""
    found = {}
    for entry in ledger_of(model, method):
        if entry.mode == "recompute":
            found.setdefault(entry.iteration, set()).add(entry.slots[0] // 2)
        for first, stop in entry.idle:
            found.setdefault(entry.iteration, set()).update(range(first // 2, stop // 2))
    return found


def test_each_finished_unit_is_computed_in_one_more_row_and_then_no_longer(model):
    """Unit 0 finishes in row 7, so row 8 computes it once more and row 9 does not; unit 1 follows in row 10."""
    found = covered(model, Budget(ALL, selective="stored"))
    assert all(found[row] == set(range(UNITS)) for row in range(9))
    assert {row: sorted(found[row]) for row in range(9, 16)} == {
        9: [1, 2, 3, 4],
        10: [1, 2, 3, 4],
        11: [2, 3, 4],
        12: [2, 3, 4],
        13: [3, 4],
        14: [3, 4],
        15: [4],
    }


def test_after_rows_without_a_forward_the_next_one_computes_all_that_have_finished_since(model):
    """Rows 9 to 11 are not computed. Units 1 and 2 finish in rows 9 and 11, so row 12 has them for the last time."""
    rows = (0, 2, 4, 6, 7, 8, 12, 14, 15)
    lists = [[row - LAG * unit for row in rows if 0 <= row - LAG * unit < STEPS] for unit in range(UNITS)]
    found = covered(model, Budget(lists, selective="stored"))
    assert sorted(found) == list(rows)
    assert {row: sorted(found[row]) for row in (8, 12, 14, 15)} == {
        8: [0, 1, 2, 3, 4],
        12: [1, 2, 3, 4],
        14: [3, 4],
        15: [4],
    }


def test_it_is_the_original_while_a_unit_waits_and_close_to_it_afterwards(model):
    """The first unit finishes before anything is left out. The last one differs from the Original, by less than 3 %."""
    own, original = video(model, Budget(ALL, selective="stored")), video(model, Original())
    assert torch.equal(own[:2], original[:2])
    apart = ((own[-2:] - original[-2:]).norm() / original[-2:].norm()).item()
    assert 0 < apart < 0.03


@pytest.mark.parametrize("method", [Budget(ALL, selective="stored"), Ramp(ALL, selective="stored")])
def test_what_is_left_out_is_priced(model, method):
    """1 + 1 + 2 + 2 + 3 + 3 + 4 = 16 of 80 units of a row are left out, see above."""
    share = flops(ledger_of(model, method), model.price)[0] / flops(plan(model.schedule()), model.price)[0]
    left = sum(UNITS - len(units) for units in covered(model, method).values())
    assert left == 16 and 1 - 1.2 * left / (16 * UNITS) < share < 1 - 0.9 * left / (16 * UNITS)


def test_a_later_segment_begins_with_all_its_slots_and_ends_without_the_finished_ones():
    """Its overlap is clean from the start, so it is left out with the units that finish."""
    model = build(steps=STEPS, frames=LONG, addnoise=0, attention="full")
    ledger = ledger_of(model, Budget(ALL, selective="stored"))
    second = [entry for entry in ledger if entry.segment == 1]
    rows = sorted({entry.iteration for entry in second})
    slots = {
        row: sum(len(range(*e.slots)) + sum(b - a for a, b in e.idle) for e in second if e.iteration == row)
        for row in rows
    }
    assert slots[rows[0]] == 10 and slots[rows[-1]] == 2
    assert torch.isfinite(video(model, Budget(ALL, selective="stored"))).all()


def test_another_value_is_refused_and_so_is_a_model_that_cannot_leave_out_frames():
    for kind in (Budget, Ramp, MeanCache):
        with pytest.raises(ValueError, match="selective is one of none, prefix, exact, stored, got 'kept'"):
            kind(selective="kept")
    whole = Toy(slots=6, block=2, lag=3)
    whole.offers = whole.offers - {"narrow"}
    with pytest.raises(ValueError, match="narrow"):
        Budget(ALL, selective="stored").check(whole)
