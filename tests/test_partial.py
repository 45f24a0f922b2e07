"""Parts of a row on SkyReels-V2: other units see a skipped unit as in its last computation."""

from dataclasses import dataclass, replace

import pytest
import torch

from baselines.composite import Composite
from baselines.delta_dit import DeltaDiT
from baselines.first_block_cache import FirstBlockCache
from baselines.taylorseer import TaylorSeer
from engine.ledger import flops
from engine.method import Method, Original
from engine.row import VELOCITY, Decision, Mode, Site
from models.skyreels.forward import condition, forward
from scope.method import Scope
from tests.tiny import LONG, build, video

AT = 7  # the row at which a unit is skipped; units 0 to 3 are in flight, two rows apart
NEVER = {
    "scope": lambda: Scope(0, 0, selective="none", decide_per="unit"),
    "first_block_cache": lambda: FirstBlockCache(0, decide_per="unit"),
    "delta_dit": lambda: DeltaDiT(1, decide_per="unit"),
    "taylorseer": lambda: TaylorSeer(1, decide_per="unit"),
}


@pytest.fixture(scope="module", params=["full", "block_causal"])
def model(request):
    return build(frames=LONG, steps=8, guidance=1.0, attention=request.param)


@pytest.fixture(scope="module")
def original(model):
    return video(model, Original())


@dataclass
class Skip(Method):
    """Reuses the last result of one unit at one row."""

    unit: int
    site: Site = VELOCITY
    stale: bool = False  # leave finished frames as they were last computed

    grain = "unit"
    requires = frozenset({"partial"})

    def reset(self):
        self.seen, self.out = {}, {}

    def narrow(self, row):
        hull = row.only(range(row.slots.start, row.reach)).behind(row.updating[0])
        return replace(hull, settled=0) if self.stale else row

    def decide(self, part, probe, branch=""):
        number = part.slots.start // part.unit
        self.seen[part.iteration, number] = probe("latent"), part
        return Decision(Mode.CACHE if (part.iteration, number) == (AT, self.unit) else Mode.RECOMPUTE)

    def sites(self, depth, row):
        return (self.site,)

    def keep(self, site, part, x, out):
        self.out[part.iteration, part.slots.start // part.unit] = out

    def fill(self, site, part, mode, x):
        return self.out[AT - 1, part.slots.start // part.unit]


@pytest.mark.parametrize("make", NEVER.values(), ids=NEVER)
def test_where_every_part_is_computed_the_row_is_the_originals_bit_for_bit(model, original, make):
    method = make()
    method.check(model)
    assert torch.equal(video(model, method), original)


def reference(model, seen, slots, stale):
    """Our forward of the first slots (8 under full attention), with unit `stale` as it was a row earlier, without
    stored keys."""
    at = [seen[AT - (number == stale), number] for number in range(slots // 2)]
    steps = torch.cat([model._timesteps(part) for _, part in at])
    when = condition(model.transformer, steps, model.settings.fps, torch.float32)
    x = torch.cat([latent for latent, _ in at])
    return forward(model.transformer, x, when, model._text["cond"], causal_block=2)


@pytest.mark.parametrize("unit", [0, 1])
@torch.inference_mode()
def test_under_block_causal_attention_a_skipped_unit_is_seen_as_it_was_a_row_earlier(unit):
    """Keys and values depend on no later unit. Those of unit 1 depend on unit 0 of the same row, so only unit 0 is
    exact for all. Units before the skipped one do not change."""
    model = build(frames=LONG, steps=8, guidance=1.0, attention="block_causal")
    method, shown = Skip(unit), {}
    method.narrow = lambda row: row.only(range(row.slots.start, row.reach)) if row.segment == 0 else row
    keep, reset = method.keep, method.reset

    def told(site, part, x, out):
        keep(site, part, x, out)
        if part.iteration == AT:
            shown[part.slots.start // 2] = out, dict(method.seen)

    method.keep, method.reset = told, reset
    video(model, method)
    assert set(shown) == {0, 1, 2, 3} - {unit}
    for number, (out, seen) in shown.items():
        expected = reference(model, seen, 8, unit)[2 * number : 2 * number + 2]
        if unit == 0 or number < unit:
            torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)
    fresh = reference(model, shown[3][1], 8, None)[6:8]
    assert (shown[3][0] - fresh).abs().max() > 1e-4


@pytest.mark.parametrize("site", [VELOCITY, Site("blocks", range(2))], ids=str)
def test_a_skipped_unit_changes_later_ones_and_earlier_ones_only_under_full_attention(model, original, site):
    method, ledger = Skip(2, site), []
    found = video(model, method, ledger=ledger)
    assert [(e.iteration, e.unit) for e in ledger if e.mode is Mode.CACHE] == [(AT, 2)]
    moved = [bool((found - original)[2 * u : 2 * u + 2].abs().max() > 1e-5) for u in range(5)]
    assert moved == [model.settings.attention == "full"] * 2 + [True] * 3


def test_one_late_block_no_longer_forces_a_recompute_of_all(model):
    ledger = []
    video(model, Scope(9, 9, max_skip=3, selective="none", decide_per="unit"), ledger=ledger)
    begins = [entry for entry in ledger if entry.why == "no history" and entry.iteration]
    assert begins
    for entry in begins:
        others = [e for e in ledger if e.iteration == entry.iteration and e.unit != entry.unit]
        assert all(e.mode is not Mode.RECOMPUTE or e.why != "no history" for e in others)
    whole = []
    video(model, Scope(9, 9, max_skip=3, selective="none"), ledger=whole)
    assert flops(ledger, model.price)[0] != flops(whole, model.price)[0]


def test_context_that_is_left_stale_runs_only_where_it_never_ran(model):
    """The overlap is computed once, at the first row of its segment. A finished block is not computed again."""
    ledger = []
    found = video(model, Skip(99, stale=True), ledger=ledger)
    assert torch.isfinite(found).all()
    assert [(e.segment, e.kept) for e in ledger if e.kept[1]] == [(1, (6, 10))]
    assert not any(entry.idle for entry in ledger)


def test_inside_a_forward_of_some_units_nothing_else_may_stand_in(model):
    parts = {
        "scope": {"_target_": "scope.method.Scope", "tau_cache": 0, "tau_predict": 0, "decide_per": "unit"},
        "first": {"_target_": "baselines.first_block_cache.FirstBlockCache", "threshold": 0, "decide_per": "unit"},
    }
    with pytest.raises(ValueError, match="set decide_per=row in every part"):
        Composite(parts).check(model)
