"""Decisions and outputs beside the equations of the releases, written out again for one sequence at a time."""

import math

import numpy as np
import pytest
import torch

from baselines.adacache import AdaCache
from baselines.easycache import EasyCache
from baselines.flowcache import FlowCache
from baselines.taylorseer import TaylorSeer
from baselines.teacache import COEFFICIENTS, TeaCache
from engine.row import Mode
from tests.by_hand import modes, row_at, through, velocities

STEPS = 30
SEQUENCES = {  # of a signal: smooth, wild, through zero, negative, standing still, zero, then zero again, with a gap
    "smooth": [1 + 0.03 * k + 0.02 * math.sin(k) for k in range(STEPS)],
    "wild": [1.5 ** (k % 7) for k in range(STEPS)],
    "through zero": [1 - 0.1 * k for k in range(STEPS)],
    "negative": [-3 - 0.05 * k for k in range(STEPS)],
    "still": [2.0] * STEPS,
    "zero": [0.0] * STEPS,
    "from zero": [0.0] * 8 + [1.0 + 0.01 * k for k in range(STEPS - 8)],
    "not finite": [1.0 + 0.01 * k if k != 12 else math.nan for k in range(STEPS)],
}
CURVES = {  # of what the model makes of it at step k
    "line": lambda x, k: 2 * x,
    "own": lambda x, k: 0 * x + 1 + 0.1 * math.cos(0.4 * k),
    "zero": lambda x, k: 0 * x,
}


def tensors(values, rank=4):
    return [torch.full((1,) * rank, value, dtype=torch.float32) for value in values]


def f32(value):
    return np.float32(value)


@np.errstate(all="ignore")
def teacache(signal, threshold, p, warmup, cooldown):
    """A += p(|m - m'| / |m'|); reuse below the threshold; A = 0 after a computed step."""
    found, total = "", 0.0
    for k, m in enumerate(signal):
        r = float(abs(f32(m) - f32(signal[k - 1])) / abs(f32(signal[k - 1]))) if k else math.nan
        total += np.polyval(p, r)
        skips = warmup <= k < len(signal) - cooldown and total < threshold
        found += "c" if skips else "r"
        total = total if skips else 0.0
    return found


@np.errstate(all="ignore")
def easycache(latents, curve, threshold, warmup, cooldown):
    """k = |dv| / |dx| of the last two computed steps; E += k |x - x'| / |v|, x' of the step before; v = x + (v - x)."""
    found, outputs, total, gain, past, done = "", [], 0.0, math.nan, math.nan, None
    for k, x in enumerate(map(f32, latents)):
        if done is not None:
            total += gain * abs(x - past) / abs(done[1])
        skips = warmup <= k < len(latents) - cooldown and total < threshold
        if not skips:
            v = f32(float(curve(torch.tensor(x), k)))
            gain = abs(v - done[1]) / abs(x - done[0]) if done is not None else math.nan
            total, done = 0.0, (x, v)
        past = x
        found += "c" if skips else "r"
        outputs.append(x + (done[1] - done[0]))
    return found, outputs


@np.errstate(all="ignore")
def adacache(features, book, rates, last):
    """Computed at steps 1, 1 + rate, ...; c = |r - r'| / |r'| / rate picks the next rate; the last two are computed."""
    found, rate, computed, before = "", 1, 0, None
    for step, r in enumerate(map(f32, features), 1):
        if step in (1, last - 1, last) or step == computed + rate:
            if before is not None:
                c = abs(before - r) / abs(before) / f32(rate)
                rate = next((v for bound, v in zip(book, rates, strict=False) if c < bound), rates[-1])
            before, computed = r, step
            found += "r"
        else:
            found += "c"
    return found


def taylorseer(values, interval, order, first):
    """F_0 = y, F_{i+1} = (F_i - F_i') / gap from step first - 1 on; forecast sum F_i d^i / i!."""
    found, outputs, factors, steps, counter = "", [], [], [0], 0
    for k, y in enumerate(values):
        if k < first or counter == interval - 1:
            counter, new = 0, [y]
            steps.append(k)
            for i in range(order):
                if i >= len(factors) or k <= first - 2:
                    break
                new.append((new[i] - factors[i]) / (steps[-1] - steps[-2]))
            factors = new
            found += "r"
        else:
            counter += 1
            found += "p" if order else "c"
        outputs.append(sum(f * (k - steps[-1]) ** i / math.factorial(i) for i, f in enumerate(factors)))
    return found, outputs


@pytest.mark.parametrize("fit, warmup, cooldown", [("wan_retention", 5, 0), ("wan", 1, 1), ("none", 1, 1)])
@pytest.mark.parametrize("name", SEQUENCES)
def test_teacache_decides_as_its_release(name, fit, warmup, cooldown):
    skipped = 0
    for threshold in (0.05, 0.1, 0.3):
        expected = teacache(SEQUENCES[name], threshold, COEFFICIENTS[fit], warmup, cooldown)
        for pool in ("row", "slot"):
            method = TeaCache(
                threshold, fit, signal="latent", warmup=warmup, cooldown=cooldown, pool=pool, reuse="velocity"
            )
            ledger = velocities(method, CURVES["line"], tensors(SEQUENCES[name]))[1]
            assert modes(ledger) == expected, (threshold, pool)
        skipped += expected.count("c")
    assert skipped if name in ("smooth", "negative") else not skipped or name != "zero", "0 / 0 is no number"


@pytest.mark.parametrize("name", SEQUENCES)
def test_flowcache_decides_as_its_release_for_magi1(name):
    for threshold in (0.01, 0.015, 0.1):
        expected = teacache(SEQUENCES[name], threshold, [1.0, 0.0], 5, 1)
        method = FlowCache(threshold, signal="latent", reuse="velocity")
        ledger = velocities(method, CURVES["line"], tensors(SEQUENCES[name]))[1]
        assert modes(ledger) == expected, threshold


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("name", SEQUENCES)
def test_easycache_decides_and_reuses_as_its_release(name, curve):
    for threshold in (0.05, 0.3):
        expected, outputs = easycache(SEQUENCES[name], CURVES[curve], threshold, 10, 1)
        found, ledger = velocities(EasyCache(threshold), CURVES[curve], tensors(SEQUENCES[name]))
        assert modes(ledger) == expected, threshold
        assert [float(v) for v in found] == pytest.approx([float(v) for v in outputs], rel=1e-4, abs=1e-5, nan_ok=True)


@pytest.mark.parametrize("book", [([0.08, 0.16, 0.24, 0.32, 0.40], [6, 5, 4, 3, 2, 1])])
@pytest.mark.parametrize("name", SEQUENCES)
def test_adacache_computes_the_steps_of_its_release(name, book):
    method, found, one = AdaCache(*book, measured=0), "", torch.ones(1, 1, 1)
    for k in range(STEPS):
        row = row_at(k, STEPS)
        sites, decision = method.sites(1, row), method.decide(row, lambda name: one)
        method.settle(row, decision)
        found += decision.mode[0]
        for site in sites if decision.mode is Mode.RECOMPUTE else ():
            method.keep(site, row, one, SEQUENCES[name][k] * one)
    assert found == adacache(SEQUENCES[name], *book, STEPS)


@pytest.mark.parametrize("interval, order, first", [(5, 1, 1), (6, 1, 3), (3, 2, 3), (2, 0, 1), (4, 3, 2)])
@pytest.mark.parametrize("name", [name for name in SEQUENCES if name != "not finite"])
def test_taylorseer_computes_and_forecasts_as_its_release(name, interval, order, first):
    expected, outputs = taylorseer(SEQUENCES[name], interval, order, first)
    method = TaylorSeer(interval, order, "lite", warmup=first)
    found, ledger = through(method, [lambda x: x], tensors(SEQUENCES[name], 3))
    assert modes(ledger) == expected
    assert [float(out) for out in found] == pytest.approx(outputs, rel=1e-3, abs=1e-4)
