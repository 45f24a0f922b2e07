"""MagCache's table of ratios: its measurement, and the models for which it is refused."""

import pytest
import torch

from baselines.magcache import MagCache
from benchmarks.calibrate_magcache import Weigh
from benchmarks.common import refuse_untrained
from engine.method import Original
from engine.row import Mode, Site
from tests.by_hand import row_at
from tests.tiny import build, ledger_of, video

STACK = Site("blocks", range(2), "cond")


def test_the_ratio_of_residual_norms_by_step():
    """Residuals of size 4, 3 and 6: ratios 0.75 and 2, at steps 1 and 2; the first step counts as 1."""
    weigh, x = Weigh(), torch.zeros(2, 1, 1)
    for k, size in enumerate((4.0, 3.0, 6.0)):
        weigh.keep(STACK, row_at(k, 3, 2), x, x + size)
    assert weigh.table("cond", 3) == (pytest.approx([1.0, 0.75, 2.0]), pytest.approx([0.0, 0.0, 0.0]))


def test_a_slot_is_read_at_its_own_step_and_only_while_it_updates():
    weigh, x = Weigh(), torch.zeros(2, 1, 1)
    for k, sizes in enumerate(((1.0, 1.0), (2.0, 5.0), (2.0, 10.0))):
        row = row_at(k, 5, 2, unit=1, step=(k, max(k - 1, 0)), active=(True, k >= 1))
        weigh.keep(STACK, row, x, torch.tensor(sizes).view(2, 1, 1))
    assert weigh.found == {("cond", 1): pytest.approx([2.0, 2.0]), ("cond", 2): pytest.approx([1.0])}


def test_watching_changes_nothing_and_its_table_runs_magcache():
    model, weigh = build(steps=12), Weigh()
    assert torch.equal(video(model, weigh), video(model, Original()))
    means, _ = weigh.table("cond", 12)
    assert len(means) == 12 and means[0] == 1.0 and min(means) > 0
    assert any(entry.mode is Mode.CACHE for entry in ledger_of(model, MagCache(9.0, means)))


def test_a_model_that_answers_zero_is_refused():
    model = build()
    text = model.conditioning("a fox", model.texts(["a fox"]))
    refuse_untrained(model, text)
    with torch.no_grad():
        model.transformer.proj_out.weight.zero_()
        model.transformer.proj_out.bias.zero_()
    with pytest.raises(ValueError, match="untrained"):
        refuse_untrained(model, text)
