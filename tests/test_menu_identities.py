"""Every method of the menu, as its YAML has it, on both small models: off it is the Original, on it leaks nothing."""

from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch

from baselines.library import External
from baselines.shared.memory_account import HELD
from conf.schema import options
from engine.ledger import flops, plan
from engine.loop import generate
from engine.method import Original
from engine.row import Mode
from tests import tiny
from tests.menu import MENU, make, size_of
from tests.test_magi1_backbone import _model

AT_MOST = {("delta_dit", "magi1")}  # its two stages are met by different chunks, so not every chunk holds both
SMALL = {"steps": 8, "frames": 21, "base_frames": 21, "overlap": 0}


class Both:
    """Small models by name and settings, and their unaccelerated videos, each made once."""

    def __init__(self):
        self.models, self.originals = {}, {}

    def model(self, name, changes):
        key = name, str(changes)
        if key not in self.models:
            self.models[key] = _model(**changes) if name == "magi1" else tiny.build(**SMALL, **changes)
        return self.models[key]

    def video(self, model, method, prompt="a fox", ledger=None, on_row=None):
        texts = model.texts([prompt]) if model.name == "magi1" else tiny.texts_of(model, prompt)
        ledger = [] if ledger is None else ledger
        return generate(model, method, model.conditioning(prompt, texts), 0, ledger, on_row)

    def original(self, model, rounding):
        """The video by our forward, or by the model's own, on which a library sets its hooks."""
        key = id(model), rounding
        if key not in self.originals:
            self.originals[key] = self.video(model, External("diffusers", "none", {}) if rounding else Original())
        return self.originals[key]


@pytest.fixture(scope="module")
def both():
    return Both()


def prepared(both, model_name, name, changes):
    """The model and the method. Skips the test, or checks the refusal, if the method cannot run."""
    line = MENU[name]
    if name == "external_cache_dit" and find_spec("cache_dit") is None:
        pytest.skip("the extra `external` is not installed")
    model = both.model(model_name, (line.skyreels or {}) if model_name == "skyreels" else {})
    method = make(name, changes)
    if model_name == "magi1" and line.refused:
        with pytest.raises(ValueError, match=line.refused):
            method.check(model)
        return None, method
    method.check(model)
    return model, method


@pytest.mark.parametrize("name", [name for name, line in MENU.items() if line.off is not None])
@pytest.mark.parametrize("model_name", ["skyreels", "magi1"])
def test_a_method_that_is_left_nothing_to_skip_is_the_original_bit_for_bit(both, model_name, name):
    if name == "ca2vdm" and model_name == "magi1":
        pytest.skip("prefix_kv=recompute is the Original anywhere; shared is refused, see below")
    model, method = prepared(both, model_name, name, MENU[name].off)
    if model is None:
        return
    ledger = []
    assert torch.equal(both.video(model, method, ledger=ledger), both.original(model, MENU[name].rounding))
    assert {entry.mode for entry in ledger} == {Mode.RECOMPUTE}
    forwards = [replace(entry, probes=()) for entry in ledger]  # signals are measured besides, and counted
    assert flops(forwards, model.price) == pytest.approx(flops(plan(model.schedule()), model.price))
    assert flops(ledger, model.price)[0] >= flops(forwards, model.price)[0]


@pytest.mark.parametrize("name", [name for name, line in MENU.items() if line.on is not None])
@pytest.mark.parametrize("model_name", ["skyreels", "magi1"])
def test_a_method_that_skips_leaves_nothing_for_the_next_video_and_holds_what_the_table_says(both, model_name, name):
    """Prompts A, B, A; the bytes held at most are those of baselines/shared/memory_account.py
    for every slot of the window."""
    line = MENU[name]
    changes = line.magi1 if model_name == "magi1" and line.magi1 is not None else line.on
    model, method = prepared(both, model_name, name, changes)
    if model is None:
        return
    ledger, held = [], [0]

    def weigh(row):
        held.append(sum(tensor.numel() * tensor.element_size() for tensor in method.state()))

    first = both.video(model, method, ledger=ledger, on_row=weigh)
    window = max(len(row.slots) for row in model.schedule())
    assert name in HELD, "describe it in baselines/shared/memory_account.py"
    expected = HELD[name].most(size_of(model), window, len(first))
    assert max(held) == expected or ((name, model_name) in AT_MOST and 0 < max(held) < expected)
    both.video(model, method, prompt="a cat")
    assert torch.equal(both.video(model, method), first)
    assert torch.isfinite(first).all() and not torch.equal(first, both.original(model, line.rounding))
    assert len({entry.mode for entry in ledger}) > 1
    assert flops(ledger, model.price)[0] < flops(plan(model.schedule()), model.price)[0]


def test_every_method_of_the_menu_is_here_and_every_model_that_it_suits():
    assert set(MENU) == set(options("method")), "say in tests/menu.py what switches it off and what makes it skip"


@pytest.mark.parametrize("name", ["ca2vdm", "lossless"])
def test_what_shares_keys_and_values_is_refused_on_magi1_which_does_so_itself(both, name):
    with pytest.raises(ValueError, match=MENU[name].refused):
        make(name, {}).check(both.model("magi1", {}))
