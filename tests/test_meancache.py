"""MeanCache: skipped velocities and the search of a schedule, worked out by hand."""

import math

import pytest
import torch

from baselines.meancache import MeanCache
from benchmarks.fit_meancache import costs, shortest
from tests import tiny
from tests.by_hand import modes, numbers, row_at, velocities


def run(method, latents, velocity, steps=None):
    rows = [row_at(k, steps or len(latents)) for k in range(len(latents))]
    outputs, ledger = velocities(method, lambda x, k: torch.full_like(x, velocity[k]), numbers(*latents), rows)
    return [float(out) for out in outputs], modes(ledger)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_run_by_hand(sign):
    """s falls by 0.25. K = 2 at step 2: u = (2.5 - 4) / -0.5 = 3, J = (2 - 3) / -0.5 = 2, v = 4 + 0.25 * 2 = 4.5.

    Step 3 takes the steps 1 and 2, of which one was skipped: u = (1 - 3.5) / -0.5 = 5, J = (4 - 5) / -0.5 = 2.
    """
    method = MeanCache([[0, 1]], [[1, 2]])
    outputs, found = run(method, [sign * x for x in (4.0, 3.5, 2.5, 1.0)], [sign * v for v in (2.0, 4.0, 99.0, 99.0)])
    assert found == "rrpp" and outputs == pytest.approx([sign * v for v in (2.0, 4.0, 4.5, 5.0)])


def test_a_span_of_1_holds_whatever_the_latent_did():
    outputs, found = run(MeanCache([[0, 2]], [[1, 1]]), [4.0, -9.0, 0.0, 7.0], [2.0, 9.0, 3.0, 9.0])
    assert found == "rprp" and outputs == [2.0, 2.0, 3.0, 3.0]


def test_fewer_known_steps_than_the_span_take_its_place():
    held = run(MeanCache([[0]], [[5]]), [4.0, 3.5, 3.0], [2.0, 9.0, 9.0], steps=4)[0]
    assert held[:2] == [2.0, 2.0], "one known step is held"
    # at step 2 two are known: u = (3 - 4) / -0.5 = 2 = v of step 0, so J = 0
    assert held[2] == pytest.approx(2.0)


def test_a_velocity_that_is_linear_along_eulers_path_is_followed():
    """x' = v with v = 2 + 4 (1 - s): the average over the last steps and J = 2 give the next average step."""
    latents, v = [0.0], []
    for k in range(4):
        v.append(2 + 4 * k / 4)
        latents.append(latents[-1] - v[-1] / 4)
    outputs, found = run(MeanCache([[0, 1, 2]], [[1, 1, 3]]), latents[:4], v)
    mean = (latents[3] - latents[0]) / -0.75
    slope = (v[0] - mean) / -0.75
    assert found == "rrrp" and outputs[3] == pytest.approx(v[2] + 0.25 * slope) and v[2] < outputs[3] < v[3]


def test_on_a_model_the_correction_changes_the_video_and_memory_grows_with_the_span():
    model, found = tiny.build(steps=8, frames=21, base_frames=21, overlap=0), {}
    for span in (1, 3):
        method = MeanCache([[0, 1, 2, 5]], [[1, 1, span, span]])
        method.check(model)
        found[span] = tiny.video(model, method)
        assert len([*method.state()]) == 2 and {len(history) for history in method.state()} == {span}
    assert torch.isfinite(found[3]).all() and not torch.equal(found[1], found[3])


def test_without_a_schedule_every_step_is_computed():
    assert run(MeanCache(), [1.0, 2.0, math.nan], [1.0, 2.0, 3.0]) == ([1.0, 2.0, 3.0], "rrr")


@pytest.mark.parametrize(
    "computed, spans, said",
    [
        ([[0, 2]], [[1]], "spans wants"),
        ([[0, 2]], [], "spans wants"),
        ([[0, 2]], [[1, 0]], "1 or larger"),
        ([[1, 2]], [[1, 1]], "rising list"),
        ([[0, 0]], [[1, 1]], "rising list"),
    ],
)
def test_schedules_that_make_no_sense_are_refused(computed, spans, said):
    with pytest.raises(ValueError, match=said):
        MeanCache(computed, spans)


def watched(latents, velocity):
    """One slot's steps as the fit records them, with s falling by 0.25."""
    levels = [1 - k / 4 for k in range(5)]
    steps = zip(numbers(*latents), numbers(*velocity), levels, levels[1:], strict=False)
    return [[(x[0], v[0], s, after) for x, v, s, after in steps]]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_costs_of_gaps_by_hand(sign):
    """Euler's path with v = 2, 4, 6, 8. After step 1, K = 1: |4 - 6| to step 3, |4 - 7| to the end.

    K = 2: u = 3 and J = 2, so 4 + 0.25 * 2 misses 6 by 1.5 and 4 + 0.5 * 2 misses 7 by 2.
    """
    v = [sign * value for value in (2.0, 4.0, 6.0, 8.0)]
    latents = [sign * x for x in (0.0, -0.5, -1.5, -3.0)]
    found = costs(watched(latents, v))
    assert found[0, 1] == (0.0, 1) and found[0, 2] == (pytest.approx(2.0), 1)
    assert found[1, 3] == (pytest.approx(1.5), 2) and found[1, 4] == (pytest.approx(2.0), 2)


def test_the_search_prefers_two_small_gaps_to_a_large_one():
    flat = {(i, j): (float(j - i - 1), j - i) for i in range(4) for j in range(i + 1, 5)}
    assert shortest(flat, 4, 2, 2.0) == ([0, 2], [2, 2])
    assert shortest(flat, 4, 4, 2.0) == ([0, 1, 2, 3], [1, 1, 1, 1])
    assert shortest(flat, 4, 1, 2.0) == ([0], [4])
    peak = {**flat, (0, 2): (5.0, 1), (2, 4): (0.0, 1)}
    assert shortest(peak, 4, 2, 2.0)[0] == [0, 1], "costs 0 + 2^2 instead of 5^2"
