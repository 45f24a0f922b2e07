"""X-Cache: sequences worked out by hand, and where it may not skip, on a small model."""

import math
from dataclasses import replace

import pytest
import torch

from baselines.xcache import XCache, compare, fingerprint
from engine.row import Mode
from tests.by_hand import row_at, through
from tests.tiny import build, video

BLOCKS = [lambda x: 2 * x, lambda x: x + x * x, lambda x: x + 1]


def chunk(unit, t, steps=1, slots=1):
    """The row of chunk `unit` at its step `t`. Chunks are generated one after the other."""
    row, first = row_at(unit * steps + t, steps, slots), unit * slots
    level, after = (1 - t / steps,) * slots, (1 - (t + 1) / steps,) * slots
    return replace(row, slots=range(first, first + slots), step=(t,) * slots, sigma=level, sigma_next=after)


def chunks(method, *inputs, blocks=BLOCKS):
    """Outputs and ledger of one chunk per input, each of one token and one step."""
    tensors = [torch.tensor(values).view(1, 1, -1) for values in inputs]
    outputs, ledger = through(method, blocks, tensors, [chunk(u, 0) for u in range(len(inputs))])
    return [out.flatten().tolist() for out in outputs], ledger


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_chunk_that_is_like_the_previous_one_adds_its_residuals(sign):
    """Input 1: (2, 0) into block 1 adds (4, 0). Input 1.2: (2.4, 0) + (4, 0), then block 2's residual (1, 1)."""
    outputs, ledger = chunks(XCache(), (sign * 1.0, 0.0), (sign * 1.2, 0.0))
    assert outputs[0] == pytest.approx([sign * 2 + 4 + 1, 1.0])
    assert outputs[1] == pytest.approx([sign * 2.4 + 4 + 1, 1.0])
    assert [entry.mode for entry in ledger] == [Mode.RECOMPUTE, Mode.CACHE]
    assert ledger[0].why == "no history" and ledger[1].sites == ("blocks 1:3",), "block 0 runs"


@pytest.mark.parametrize(
    "second, skips",
    [
        ((0.0, 1.0), False),  # at a right angle
        ((-1.0, 0.0), False),  # opposite
        ((0.0, 0.0), False),  # no direction
        ((2.9, 0.0), True),  # a deviation of 1.9
        ((3.1, 0.0), False),  # of 2.1
        ((1.0, math.tan(math.acos(0.971))), True),
        ((1.0, math.tan(math.acos(0.969))), False),
        ((math.nan, 0.0), False),
        ((math.inf, 0.0), False),
    ],
)
def test_it_skips_from_a_cosine_of_097_on_and_below_a_deviation_of_2(second, skips):
    _, ledger = chunks(XCache(), (1.0, 0.0), second, blocks=BLOCKS[:2])
    assert (ledger[1].mode is Mode.CACHE) is skips


def test_the_running_mean_raises_the_limit_and_what_was_computed_last_is_compared_with():
    """Angles from the last computed chunk. Cosines 1, 0.975, 0.975: limits 0.97, 1 - 0.02, 0.9925 - 0.02."""
    turn = math.acos(0.975)
    angles = [0.0, 0.0, turn, 2 * turn]
    method = XCache(per="stack")
    _, ledger = chunks(method, *[(math.cos(a), math.sin(a)) for a in angles], blocks=BLOCKS[:2])
    assert [entry.mode[0] for entry in ledger] == list("rcrc")
    assert [entry.score for entry in ledger[1:]] == pytest.approx([1.0, 0.975, 0.975], abs=1e-5)
    assert method.mean["cond", 1] == pytest.approx(0.7 * 0.9925 + 0.3 * 0.975, abs=1e-5)


def test_a_measure_that_is_no_number_does_not_enter_the_running_mean():
    method = XCache()
    _, ledger = chunks(method, (1.0, 0.0), (math.nan, 0.0), (1.0, 0.0), (1.0, 0.0), blocks=BLOCKS[:2])
    assert [entry.mode[0] for entry in ledger] == list("rrrc") and ledger[1].why == "signal not finite"
    assert method.mean["cond", 1] == pytest.approx(1.0)


def test_only_the_same_step_is_compared_and_a_chunk_of_another_length_is_computed():
    """Two steps. In every chunk the input of the second step is the negative of the first."""
    x = torch.ones(2, 1, 1)
    rows = [chunk(u, t, steps=2, slots=2) for u in range(2) for t in range(2)]
    _, ledger = through(XCache(), BLOCKS, [x, -x, x, -x], rows)
    assert [entry.mode[0] for entry in ledger] == list("rrcc")
    short = chunk(2, 0, steps=2, slots=1)
    _, ledger = through(XCache(), BLOCKS, [x, x, x[:1]], [*rows[:2], short])
    assert ledger[2].mode is Mode.RECOMPUTE and ledger[2].why == "no history"


def test_every_block_decides_for_itself_or_all_together():
    """Inputs 1 and 1.1 into block 1 are 1 and 1.331. It gives 2 for both, so block 2 sees no change."""
    blocks = [lambda x: x**3, lambda x: x * 0 + 2, lambda x: 3 * x]
    for per, sites in (("block", ("blocks 2:3",)), ("stack", ())):
        method = XCache(deviation=0.2, per=per)
        outputs, ledger = chunks(method, (1.0,), (1.1,), blocks=blocks)
        assert ledger[1].sites == sites and outputs[1] == pytest.approx([6.0])
        _, ledger = chunks(replace(method, deviation=0.4), (1.0,), (1.1,), blocks=blocks)
        assert ledger[1].sites == ("blocks 1:3",)


def test_a_fingerprint_is_an_even_grid_and_the_mean():
    x = torch.arange(12.0).view(3, 4, 1)
    assert fingerprint(x, 4).flatten().tolist() == [0, 3, 6, 9, 5.5]
    assert fingerprint(x[:1], 32).flatten().tolist() == [0, 1, 2, 3, 1.5]
    near, far = compare(torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[3.0, 0.0], [1.0, 0.0]]))
    assert (near, far) == pytest.approx((0.6, 4 / 3))


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"floor": 1.5}, "floor must lie in"),
        ({"alpha": -0.1}, "alpha must lie in"),
        ({"tokens": 0}, "tokens must lie in"),
        ({"deviation": math.nan}, "deviation must lie in"),
        ({"per": "head"}, "per is one of block, stack"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        XCache(**changes)


@pytest.mark.parametrize("ar_step, skips", [(2, True), (0, False)])
def test_on_a_model_the_first_chunk_and_block_0_run_and_together_nothing_can_be_skipped(ar_step, skips):
    model = build(steps=4, ar_step=ar_step, attention="block_causal")
    ledger = []
    found = video(model, XCache(floor=-1.0, slack=2.0, deviation=1e9), ledger=ledger)
    assert torch.isfinite(found).all()
    cached = [entry for entry in ledger if entry.mode is Mode.CACHE]
    assert bool(cached) is skips
    assert all(entry.sites == (f"blocks 1:{model.depth}",) for entry in cached)
    starts = {segment.first + segment.prefix for segment in model.settings.segments}
    first = [e for e in ledger if e.slots[0] in starts or e.unit == 0]
    assert first and all(entry.mode is Mode.RECOMPUTE for entry in first)
