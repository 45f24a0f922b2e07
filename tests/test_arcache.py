"""ARCache: decisions and residuals worked out by hand, and what a unit, a segment or a video leaves to the next."""

import math
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch

from baselines.arcache import ARCache, Way, mixed
from baselines.shared.memory_account import HELD
from engine.loop import decide
from engine.method import Original
from engine.row import Mode, Row, Site
from engine.visit import Visit
from sweep.peaks import state_bytes
from tests import far, tiny
from tests.menu import size_of

EAGER = {"threshold": 1e9, "warmup": 0}
CAUSAL = {"attention": "block_causal", "steps": 8}
UNITS = {"steps": 14, "frames": 37, "overlap": 0}  # one segment


def row_of(k, units, steps=8, lag=1, segment=0):
    """Row `k` of a segment of units of one slot, each `lag` steps behind the one before, sigma from 1 to 0."""
    there = [u for u in range(units) if 0 <= k - lag * u < steps]
    own = tuple(k - lag * u for u in there)
    return Row(
        iteration=100 * segment + k,
        segment=segment,
        slots=range(units * segment + there[0], units * segment + there[-1] + 1),
        steps=steps,
        step=own,
        sigma=tuple(1 - n / steps for n in own),
        sigma_next=tuple(1 - (n + 1) / steps for n in own),
        active=(True,) * len(own),
        unit=1,
    )


def column(value, row):
    return torch.tensor([float(value(*at)) for at in zip(row.slots, row.step, strict=True)]).view(-1, 1, 1)


def run(method, residual, signal, rows):
    """The input of the blocks is 100, their output 100 + `residual(unit, step)`; `signal(unit, step)` is measured.

    Returns {unit: [(mode, output, score, why) of every step]}.
    """
    found = defaultdict(list)
    for row in rows:
        model = SimpleNamespace(branches=("cond",), probe=lambda name, latents, row: column(signal, row))
        x = torch.full((len(row.slots), 1, 1), 100.0)

        def compute(x, parts):
            return torch.cat([100 + column(residual, part) for part in parts])

        visit = Visit(method, row, 1, decide(model, method, x, row))
        out = visit(Site("blocks", range(1), "cond"), x, compute)
        for entry, value in zip(visit.entries(), out.flatten().tolist(), strict=True):
            found[entry.slots[0]].append((entry.mode[0], value - 100, entry.score, entry.why))
    return found


def modes(lines):
    return "".join(line[0] for line in lines)


ROWS = [row_of(k, 2) for k in range(9)]  # unit 1 is one step behind unit 0


def doubling(unit, step):
    return 2.0**step


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_run_by_hand(sign):
    """q of unit 0 is k^2, the residual of unit 1 is 10 k. The signal of unit 0 grows by a half: D is 0.5 at each step.

    Step 2 of unit 1: l = (4 - 0) / (1 - 0),            0 + 4 (10 - 0).             A = 0.5
    Step 3: l = 9, 90.                                                              A = 1
    Step 4: A = 1.5 is the limit, so 40 is computed, and the anchors are 1 and 4.
    Step 5: l = (25 - 1) / (16 - 1) = 1.6,              10 + 1.6 (40 - 10) = 58.
    """
    found = run(
        ARCache(1.5, warmup=0),
        lambda unit, step: sign * (10 * step if unit else step**2),
        lambda unit, step: sign * 1.5**step,
        ROWS,
    )
    assert modes(found[0]) == "r" * 8 and {line[3] for line in found[0]} == {"no history tokens"}
    assert modes(found[1])[:6] == "rrpprp"
    assert [line[1] for line in found[1][:6]] == pytest.approx([sign * x for x in (0, 10, 40, 90, 40, 58)])
    assert [line[2] for line in found[1][:6]] == pytest.approx([0.5, 0.5, 0.5, 1.0, 1.5, 0.5])
    assert [line[3] for line in found[1][:3]] == ["no history", "no history", ""]
    assert modes(found[1])[7] == "r" and found[1][7][3] == "no history tokens", "unit 0 has finished"


def test_the_first_step_has_no_earlier_signal_and_the_newest_unit_is_not_measured():
    """Only the units before it count. Unit 2 sees unit 1 move from 21 to 31, beside 1 of unit 0: D = 10 / 22."""
    rows = [row_of(k, 3) for k in range(10)]
    found = run(ARCache(0.4, warmup=0), doubling, lambda unit, step: 1 + (unit == 1) * 10 * step, rows)
    assert modes(found[1])[2:7] == "ppppp" and {line[2] for line in found[1][1:7]} == {0.0}
    mode, _, score, why = found[2][2]
    assert (mode, why) == ("r", "score") and score == pytest.approx(10 / 22, abs=1e-6)


def test_history_is_pooled_over_all_earlier_units():
    """Unit 0 has |h'| = 3 and stays, unit 1 has |h'| = 1 and moves by 1: D = 1 / 4."""
    rows = [row_of(k, 3) for k in range(10)]
    found = run(ARCache(9.0, warmup=0), doubling, lambda unit, step: 3 if unit == 0 else 1 + (step > 2), rows)
    assert found[2][2][2] == pytest.approx(0.25) and found[2][3][2] == pytest.approx(0.25)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_signal_that_is_no_number_computes_until_it_is_one_for_two_rows(broken):
    found = run(ARCache(9.0, warmup=0), doubling, lambda unit, step: broken if (unit, step) == (0, 4) else 1.0, ROWS)
    assert modes(found[1])[:7] == "rrprrpp"
    assert {line[3] for line in found[1][3:5]} == {"signal not finite"}


def test_a_history_of_zeros_has_no_measure_and_computes():
    found = run(ARCache(9.0, warmup=0), doubling, lambda unit, step: 0.0, ROWS)
    assert modes(found[1]) == "r" * 8 and found[1][3][3] == "signal not finite"


@pytest.mark.parametrize("signal", [lambda unit, step: 1.0, doubling])
def test_a_threshold_of_0_computes_also_where_the_history_stands_still(signal):
    assert modes(run(ARCache(0.0, warmup=0), doubling, signal, ROWS)[1]) == "r" * 8


@pytest.mark.parametrize(
    "first, expected",
    [
        ([1.0, 1.0, 1.0], 1.0),  # r_a = r_b, and it stays: 0 / 0
        ([1.0, 1.0, 5.0], 1.0),  # x / 0
        ([1.0, 3.0, 1.0], 0.0),  # back at r_b
        ([1.0, 3.0, -1.0], 1.0),  # sizes only: the direction does not count
        ([-1.0, -3.0, -6.0], 2.5),
        ([1.0, math.nan, 5.0], 1.0),
        ([1.0, 3.0, math.inf], 1.0),
    ],
)
def test_the_coefficient(first, expected):
    way = Way(3, 8)
    for step, value in enumerate(first):
        way.add(step, torch.full((1, 2, 2), value))
    assert float(way.coefficient(2, 0, 1)) == pytest.approx(expected)


def test_distances_are_known_within_the_span_and_residuals_are_dropped_after_the_last_step():
    way = Way(3, 5)
    for step in range(5):
        way.add(step, torch.full((1, 1, 1), 2.0**step))
        assert len(way.tensors()) == 2 - (step == 4)
    assert way.knows(4, 2, 3) and not way.knows(4, 1, 3) and not way.knows(5, 3, 4)
    assert float(way.coefficient(4, 2, 3)) == pytest.approx(12 / 4)
    assert float(way.coefficient(3, 1, 2)) == pytest.approx(6 / 2), "places in the ring are used again"


def test_the_span_ends_a_run_of_reuse_and_the_warm_up_comes_first():
    def still(unit, step):
        return 1.0

    assert modes(run(ARCache(9.0, warmup=0, span=3), doubling, still, ROWS)[1]) == "rrpprrpr"
    assert run(ARCache(9.0, warmup=0, span=3), doubling, still, ROWS)[1][4][3] == "no coefficient"
    assert modes(run(ARCache(9.0, warmup=4), doubling, still, ROWS)[1]) == "rrrrpppr"


def test_the_limit_of_the_coefficient():
    """Residuals of both units are 2^k: at step 4 l is 15, and 2 with the limit: 1 + 2 (2 - 1)."""
    for most, expected in ((0.0, 16.0), (2.0, 3.0), (1.0, 2.0)):
        found = run(ARCache(9.0, warmup=0, most=most), doubling, lambda unit, step: 1.0, ROWS)
        assert found[1][4][1] == pytest.approx(expected)


@pytest.mark.parametrize("learned, expected", [("video", 7.0), ("segment", 3.0)])
def test_a_later_segment_uses_what_the_first_one_measured_or_measures_anew(learned, expected):
    """At step 3 l is 7 in segment 0, where q = 2^k. In segment 1 q = k, so l would be 3. The residual is l (1 - 0)."""
    method = ARCache(9.0, warmup=0, learned=learned)
    first = run(method, doubling, lambda unit, step: 1.0, ROWS)
    assert first[1][3] == ("p", pytest.approx(8.0), 0.0, "")
    method.reset()  # the loop does so at the start of a segment
    rows = [row_of(k, 2, segment=1) for k in range(9)]
    later = run(method, lambda unit, step: step, lambda unit, step: 1.0, rows)
    assert modes(later[2]) == "r" * 8, "the first unit of a segment has no history"
    assert later[3][3][1] == pytest.approx(expected)
    assert modes(later[3]) == "rrpppppr", "its own anchors are new"


@pytest.fixture(scope="module")
def two_segments():
    return tiny.build(frames=tiny.LONG, **CAUSAL)


def test_a_video_leaves_nothing_to_the_next_and_a_segment_leaves_its_coefficients(two_segments):
    videos = {}
    for learned in ("video", "segment"):
        method, ledger = ARCache(learned=learned, **EAGER), []
        method.check(two_segments)
        first = tiny.video(two_segments, method, ledger=ledger)
        tiny.video(two_segments, method, prompt="a cat")
        assert torch.equal(tiny.video(two_segments, method), first) and torch.isfinite(first).all()
        assert {entry.mode for entry in ledger} == {Mode.RECOMPUTE, Mode.PREDICT}
        videos[learned] = first
    assert not torch.equal(videos["video"], videos["segment"])
    new = two_segments.settings.segments[1].first + two_segments.settings.segments[1].prefix
    assert torch.equal(videos["video"][:new], videos["segment"][:new]), "the first segment is the same"


def test_frames_that_are_left_out_exactly_change_no_video(two_segments):
    whole = tiny.video(two_segments, ARCache(**EAGER))
    part = tiny.video(two_segments, ARCache(selective="exact", **EAGER))
    torch.testing.assert_close(part, whole, atol=1e-4, rtol=0)


def test_the_memory_told_before_a_launch_is_that_of_the_table():
    model = tiny.build(**UNITS)
    size, window = size_of(model), max(len(row.slots) for row in model.schedule())
    assert state_bytes(model, ARCache(0.1)) == HELD["arcache"].most(size, window, window)


def test_each_guidance_branch_has_its_own_coefficients(two_segments):
    method = ARCache(**EAGER)
    tiny.video(two_segments, method)
    one, other = (method.ways[branch].apart for branch in two_segments.branches)
    assert not torch.equal(one, other) and len(method.ways) == 2


def test_a_threshold_of_0_is_the_original_over_two_segments(two_segments):
    assert torch.equal(tiny.video(two_segments, ARCache(0.0, warmup=0)), tiny.video(two_segments, Original()))


@pytest.mark.parametrize("build", [lambda: tiny.build(ar_step=0), far.plan], ids=["together", "one after the other"])
def test_a_model_whose_units_have_no_history_in_the_row_is_refused(build):
    model = build()
    assert not any(mixed(row) for row in model.schedule())
    with pytest.raises(ValueError, match=r"units at different steps.*Set model\.ar_step above 0"):
        ARCache(0.1).check(model)


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"threshold": -1.0}, "threshold must lie in"),
        ({"threshold": math.nan}, "threshold must lie in"),
        ({"warmup": -1}, "warmup must lie in"),
        ({"span": 1}, "span must lie in"),
        ({"most": -1.0}, "most must lie in"),
        ({"learned": "unit"}, "learned is one of video, segment"),
        ({"signal": "time_projection"}, "signal is one of patch_embedding, latent"),
        ({"selective": "all"}, "selective is one of"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        ARCache(**{"threshold": 0.1, **changes})
