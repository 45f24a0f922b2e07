"""Operating points of methods with a fixed rhythm execute the FLOPs of their published lines, within 3 %."""

from dataclasses import replace

import pytest
from hydra.core.global_hydra import GlobalHydra

from benchmarks.common import composed
from engine.ledger import flops, plan
from sweep.calibration.rehearsal import rehearse
from tests.test_magi1_backbone import ARCHITECTURE as MAGI1
from tests.test_magi1_backbone import _model
from tests.tiny import ARCHITECTURE, build, ledger_of

FULL = ("attention 0:34", "feed_forward 0:34")  # what the full variant leaves out on MAGI-1
ORIGINAL = 245.01  # PFLOP, SCOPE Table 1


@pytest.fixture(scope="module")
def narrow():
    """The published schedule and depth at a very small width. A method with fixed intervals makes the same
    decisions."""
    return build(
        architecture={**ARCHITECTURE, "num_layers": 30, "num_attention_heads": 1},
        guidance=1.0,
        height=16,
        width=16,
        frames=257,
        base_frames=97,
        overlap=17,
        steps=50,
        ar_step=5,
        block=5,
    )


SLOW = pytest.param("taylorseer", "slow", marks=pytest.mark.slow)
ROWS = [pytest.param("delta_dit", "fast", marks=pytest.mark.slow), SLOW, ("taylorseer", "fast")]


@pytest.mark.parametrize("method, speed", ROWS)
def test_a_published_row_costs_what_it_says(narrow, method, speed):
    GlobalHydra.instance().clear()
    run, model, made = composed(["model=skyreels", f"method={method}", f"speed={speed}"])
    made.check(model)
    cheap = replace(made, variant="lite") if method == "taylorseer" else made  # decides and costs the same
    dense, _ = flops(ledger_of(narrow, cheap), model.price)
    assert dense / 244.779e15 == pytest.approx(run.point.expects["flops_pf"] / ORIGINAL, rel=0.03)


@pytest.fixture(scope="module")
def narrow_magi1():
    """MAGI-1's published schedule and depth, one token per latent frame."""
    return _model(frames=240, height=16, width=16, steps=64, chunk=6, architecture={**MAGI1, "num_layers": 34})


@pytest.mark.parametrize("method, speed", ROWS)
def test_a_published_row_of_magi1_costs_what_its_estimated_point_says(narrow_magi1, method, speed):
    """Compared as shares of each Original with SCOPE's Table 1: our Original has 80.98 PFLOP, theirs 81.09."""
    GlobalHydra.instance().clear()
    run, model, made = composed(["model=magi1", f"method={method}", f"speed={speed}"])
    made.check(model)
    cheap = replace(made, variant="lite") if method == "taylorseer" else made  # decides alike
    ledger = rehearse(narrow_magi1, cheap, narrow_magi1.conditioning("a fox", narrow_magi1.texts(["a fox"])))
    if method == "taylorseer":
        ledger = [replace(entry, sites=FULL) if entry.sites else entry for entry in ledger]
    share = flops(ledger, model.price)[0] / flops(plan(model.schedule()), model.price)[0]
    assert run.point.estimated and f"{share:.3f}" in run.point.why
    assert share == pytest.approx(run.point.expects["flops_pf"] / 81.09, rel=0.03)
