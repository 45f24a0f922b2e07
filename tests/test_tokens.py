"""A forward of chosen tokens: equal to the whole where all are chosen, exact for unchanged others, and priced."""

from collections import Counter
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pytest
import torch

from baselines.shared.site_memory import Memory
from engine.ledger import Entry, flops, forwards, plan
from engine.loop import decide, generate
from engine.method import Method, Original
from engine.row import VELOCITY, Decision, Mode, Site
from engine.visit import Visit
from models.skyreels.frames import Frames
from models.skyreels.tokens import through_tokens
from tests import tiny
from tests.by_hand import row_at
from tests.counting import as_stock, counted

SMALL = {"steps": 4, "frames": 13, "base_frames": 13, "overlap": 0, "ar_step": 2}  # 2 units of 2 slots of 6 tokens
EVERY = (0, 1, 2, 3, 4, 5)


@dataclass
class Some(Method):
    """Computes the first `whole` steps of a unit, then the tokens in `tokens` (None: all) at every step."""

    tokens: tuple[int, ...] | None
    whole: int = 1
    grain = "unit"
    requires = frozenset({"blocks", "partial", "tokens"})
    seen: Counter = field(default_factory=Counter)

    def reset(self):
        self.residual = Memory()

    def decide(self, part, probe, branch=""):
        chosen = () if part.progress < self.whole or self.tokens is None else self.tokens
        return Decision(Mode.RECOMPUTE, tokens=chosen)

    def sites(self, depth, row):
        return (Site("blocks", range(depth)),)

    def keep(self, site, part, x, out):
        self.seen[len(part.tokens)] += 1
        fresh = out - x
        if part.tokens:
            kept = self.residual.last(site, part).clone()
            kept[:, list(part.tokens)] = fresh[:, list(part.tokens)]
            fresh = kept
        self.residual.push(site, part, fresh)

    def fill(self, site, part, mode, x):
        return x + self.residual.last(site, part)


@pytest.fixture(scope="module", params=["full", "block_causal"])
def model(request):
    return tiny.build(**SMALL, attention=request.param)


def run(model, method):
    ledger = []
    method.check(model)
    return generate(model, method, model.conditioning("a", model.texts(["a"])), 0, ledger), ledger


def test_all_tokens_chosen_by_name_give_the_whole_forward_but_for_rounding(model):
    original, _ = run(model, Original())
    assert torch.equal(run(model, Some(None))[0], original)
    named, ledger = run(model, Some(EVERY))
    torch.testing.assert_close(named, original, atol=1e-5, rtol=0)
    wanted = flops(plan(model.schedule()), model.price)
    assert flops(ledger, model.price) == pytest.approx(wanted), "all tokens cost what the whole forward does"


def test_some_tokens_change_the_video_and_cost_their_share_of_the_blocks(model):
    original, whole = run(model, Some(None))
    video, ledger = run(model, Some((1, 4)))
    assert torch.isfinite(video).all() and not torch.equal(video, original)
    assert {entry.tokens for entry in ledger} == {0, 2} and {entry.mode for entry in ledger} == {Mode.RECOMPUTE}
    costs, prices = model.prices.costs, model.prices
    part = next(entry for entry in ledger if entry.tokens)
    idle = replace(part, sites=(f"blocks 0:{model.depth}",), mode=Mode.CACHE, tokens=0, seen=part.seen)
    entries = (replace(part, tokens=0), part, idle)
    full, some, none = (prices._part(part.slots, part.seen, 0, e.sites, prices._share(e))[0] for e in entries)
    assert none == pytest.approx(2 * costs.ends) and some - none == pytest.approx((full - none) / 3)
    assert forwards(ledger, 2) < forwards(whole, 2), "a forward of some tokens is not complete"


@pytest.mark.parametrize("tokens", [(1, 4)])
def test_the_ledgers_price_is_what_torch_counts(model, tokens, monkeypatch):
    row = model.schedule()[0]
    model.probe("time_projection", torch.zeros(4, *model._latent_shape), row)
    as_stock(monkeypatch, model)
    ledger = []
    text = model.conditioning("a", model.texts(["a"]))
    count = counted(lambda: generate(model, Some(tokens), text, 0, ledger))
    causal = model.settings.attention == "block_causal"
    assert count == pytest.approx(flops(ledger, model.price)[causal], rel=1e-3)


def test_a_chosen_token_attends_to_what_the_others_last_were():
    """At an unchanged input every token is as in the whole forward, whichever tokens are computed."""
    model = tiny.build(**{**SMALL, "ar_step": 0}, attention="full")
    row = model.schedule()[0]
    text = model.conditioning("a", model.texts(["a"]))
    latents = model.open(model.start(text, 0), row).clone()
    method = Some((2, 5), whole=0)
    method.reset()

    def velocity(tokens):
        plan = {"": [(part, Decision(Mode.RECOMPUTE, tokens=tokens)) for part in row.units()]}
        return model.velocity(latents, row, Visit(method, row, model.depth, plan))

    with torch.inference_mode():
        whole = velocity(())
        torch.testing.assert_close(velocity((2, 5)), whole, atol=1e-5, rtol=0)
        latents += 0.5
        mixed, anew = velocity((2, 5)), velocity(())
    assert not torch.allclose(mixed, anew, atol=1e-3), "the other tokens keep their residual, keys and values"


def test_units_of_one_row_may_choose_different_tokens(model):
    @dataclass
    class Apart(Some):
        def decide(self, part, probe, branch=""):
            chosen = {0: (3,), 2: (0, 5)}[part.slots.start] if part.progress >= 1 else ()
            return Decision(Mode.RECOMPUTE, tokens=chosen)

    method = Apart(None)
    video, ledger = run(model, method)
    assert torch.isfinite(video).all() and {entry.tokens for entry in ledger} == {0, 1, 2}
    both = [e for e in ledger if e.tokens]
    assert len({e.iteration for e in both}) < len(both), "some row has both"


def test_tokens_of_slots_without_stored_keys_are_refused(model):
    with pytest.raises((RuntimeError, KeyError), match="compute all their tokens before some of them"):
        run(model, Some((1,), whole=0))


def test_tokens_at_another_site_than_blocks_are_refused():
    row, method = row_at(0), Some((1,))
    visit = Visit(method, row, 1, {"": [(row, Decision(Mode.RECOMPUTE, tokens=(1,)))]})
    visit._stops[VELOCITY.kind, 0] = 0
    with pytest.raises(RuntimeError, match="sites of blocks, got the site velocity"):
        visit(VELOCITY, torch.zeros(1, 4, 2, 2), lambda x, parts: x)


def test_a_row_whose_forward_must_run_computes_all_tokens():
    asked = Some((1,), whole=0)
    model = SimpleNamespace(branches=("cond",), probe=None)
    for forced, expected in (("", (1,)), ("clean pass", ())):
        plan = decide(model, asked, torch.zeros(1), row_at(2, forced=forced))
        assert plan[""][0][1].tokens == expected


def test_the_ledger_writes_how_many_tokens_ran():
    row = row_at(0, slots=2)
    chosen = Entry.of(row, Decision(Mode.RECOMPUTE, tokens=(0, 3)), "", ())
    assert chosen.tokens == 2 and Entry.of(row, Decision(Mode.CACHE, tokens=(0, 3)), "", ()).tokens == 0


def test_a_forward_of_tokens_needs_stored_keys(model):
    parts = [replace(row_at(0, slots=2), tokens=(0,))]
    frames = Frames(None, torch.zeros(2, 6, 6), 0, None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="decides per unit"):
        through_tokens(parts[0], parts, torch.zeros(2, 6, 4), frames, lambda h, f: h)
