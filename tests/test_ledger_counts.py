"""What ran is what is counted: the ledger of every method against torch's counter, on both small models."""

from importlib.util import find_spec

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from baselines.delta_dit import DeltaDiT
from engine.ledger import flops, plan
from engine.loop import generate
from engine.method import Original
from tests import tiny
from tests.counting import as_stock, counted
from tests.menu import MENU, make
from tests.test_magi1_backbone import _model as magi1

WITHIN = 1e-3
SMALL = {"steps": 8, "frames": 21, "base_frames": 21, "overlap": 0, "height": 16, "width": 16}
OTHERS = ("external_", "dsa")  # libraries run their own class's forward; dsa needs a head: tests/test_dsa.py
METHODS = [name for name in MENU if not name.startswith(OTHERS) or name == "dsa_proxy"]


@pytest.fixture(scope="module", params=[pytest.param("full", marks=pytest.mark.slow), "block_causal"])
def skyreels(request):
    model = tiny.build(**SMALL, attention=request.param)
    row = model.schedule()[0]
    for table in ("time_projection", "time_embedding"):  # made once per model, whatever is denoised with it
        model.probe(table, torch.zeros(6, *model._latent_shape), row)
    return model


BASE = pytest.param({"distill": False}, id="base", marks=pytest.mark.slow)  # three guidance branches: 4 s a method


@pytest.fixture(scope="module", params=[pytest.param({}, id="distilled"), BASE])
def chunks(request):
    return magi1(**request.param, height=16, width=16, frames=24)


def skipping(name, on):
    """The method of the menu with settings that skip, if it has such settings."""
    line = MENU[name]
    changes = line.magi1 if on == "magi1" and line.magi1 is not None else line.on
    return make(name, line.off or {} if changes is None else changes)


def measured(model, method):
    """The FLOPs of one video by torch's counter, and its ledger."""
    ledger = []
    text = model.conditioning("a", model.texts(["a"]))
    return counted(lambda: generate(model, method, text, 0, ledger)), ledger


@pytest.mark.parametrize("name", METHODS)
def test_skyreels_counts_what_the_stock_forward_runs_for_the_same_decisions(name, skyreels, monkeypatch):
    as_stock(monkeypatch, skyreels)
    count, ledger = measured(skyreels, skipping(name, "skyreels"))
    causal = skyreels.settings.attention == "block_causal"
    assert count == pytest.approx(flops(ledger, skyreels.price)[causal], rel=WITHIN)


@pytest.mark.parametrize("name", [name for name in METHODS if not MENU[name].refused])
def test_magi1_counts_what_it_runs(name, chunks):
    count, ledger = measured(chunks, skipping(name, "magi1"))
    assert count == pytest.approx(flops(ledger, chunks.price)[0], rel=WITHIN)


@pytest.mark.parametrize("name", ["scope", "delta_dit", "taylorseer"])
def test_magi1s_base_model_counts_what_it_runs_at_every_kind_of_site(name):
    model = magi1(distill=False, height=16, width=16, frames=24)
    count, ledger = measured(model, skipping(name, "magi1"))
    assert count == pytest.approx(flops(ledger, model.price)[0], rel=WITHIN)


@pytest.mark.parametrize("decide_per", ["row", "unit"])
@pytest.mark.parametrize("boundary", [0.1, 0.5, 0.9])
def test_a_unit_at_another_stage_than_its_row_is_counted_as_it_runs(boundary, decide_per):
    """MAGI-1's oldest chunk is in a later stage than the row, but its second pass follows the row's decision."""
    model = magi1(height=16, width=16, frames=32)
    count, ledger = measured(model, DeltaDiT(3, blocks=0.7, boundary=boundary, decide_per=decide_per))
    assert any(entry.copied for entry in ledger)
    assert count == pytest.approx(flops(ledger, model.price)[0], rel=WITHIN)
    assert count < 0.9 * flops(plan(model.schedule()), model.price)[0]


@pytest.mark.parametrize("name", ["patch_embedding", "time_projection"])
def test_a_signal_that_is_measured_at_every_row_is_counted(name, chunks):
    scope = make("scope", {"tau_cache": 0, "tau_predict": 0, "selective": "none", "signal": name})
    count, ledger = measured(chunks, scope)
    original = flops(plan(chunks.schedule()), chunks.price)[0]
    assert {len(entry.probes) for entry in ledger} == {1}
    assert count == pytest.approx(flops(ledger, chunks.price)[0], rel=1e-6) and count > original


def test_ours_runs_less_than_the_count_and_never_more(skyreels):
    """We compute the text once per video, the modulation once per row, the first self-attention once for both
    branches. README.md states the savings."""
    count, ledger = measured(skyreels, Original())
    causal = skyreels.settings.attention == "block_causal"
    assert 0.5 < count / flops(ledger, skyreels.price)[causal] < 0.95


@pytest.mark.parametrize("name", [name for name in MENU if name.startswith("external_")])
def test_a_library_on_the_models_own_class_is_counted_as_it_runs(name, monkeypatch):
    if name == "external_cache_dit" and find_spec("cache_dit") is None:
        pytest.skip("the extra `external` is not installed")
    model = tiny.build(**SMALL, **(MENU[name].skyreels or {}))
    model.texts(["a"])
    as_stock(monkeypatch, model)
    count, ledger = measured(model, skipping(name, "skyreels"))
    expected = flops(ledger, model.price)[0]
    if name.endswith("taylorseer_lite"):  # it predicts the output projection too, which no line of the ledger names
        config = model.transformer.config
        width = config.num_attention_heads * config.attention_head_dim
        head = 2 * 6 * width * 4 * config.out_channels  # six slots of one token
        expected -= head * sum(bool(entry.sites) for entry in ledger)  # of each branch
    assert count == pytest.approx(expected, rel=WITHIN)


def test_the_counter_of_these_tests_counts_what_torchs_own_counts():
    model = magi1(height=16, width=16, frames=24)
    text = model.conditioning("a", model.texts(["a"]))
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu

    def taken(q, k, v, *arguments, out_shape=None, **named):
        return sdpa_flop_count(q, (*q[:2], *k[2:]), (*q[:2], *v[2:]))

    with FlopCounterMode(display=False, custom_mapping={attention: taken}) as own:
        generate(model, Original(), text, 0, [])
    assert counted(lambda: generate(model, Original(), text, 0, [])) == own.get_total_flops() > 0
