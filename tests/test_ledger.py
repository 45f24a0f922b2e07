"""The one record: what it counts, and that its price is what torch counts as the model runs."""

import json
from dataclasses import asdict
from itertools import groupby
from math import prod

import pytest
import torch

from baselines.first_block_cache import FirstBlockCache
from baselines.lossless import Lossless
from baselines.teacache import TeaCache
from baselines.uniform import Uniform
from engine.ledger import Entry, decisions, flops, forwards, plan, write
from engine.loop import generate
from engine.method import Method, Original
from engine.row import Decision, Mode
from models.skyreels import backbone
from models.skyreels.forward import condition
from models.wan.blocks import read_text
from models.wan.settings import SPATIAL
from scope.method import Scope
from tests.counting import Counter, counted
from tests.tiny import LONG, SHORT, build, ledger_of, stock
from tests.toy import Toy, run


@pytest.mark.parametrize(
    "frames, ar_step, guidance",
    [
        (SHORT, 2, 4.0),
        (LONG, 0, 1.0),
        pytest.param(SHORT, 2, 1.0, marks=pytest.mark.slow),
        pytest.param(LONG, 0, 4.0, marks=pytest.mark.slow),
    ],
)
def test_the_originals_price_is_what_the_stock_pipeline_executes(frames, ar_step, guidance):
    model = build(frames=frames, ar_step=ar_step, guidance=guidance)
    dense, _ = flops(plan(model.schedule()), model.price)
    assert counted(lambda: stock(model)) == dense


def span(site):
    """The range of blocks in the name of a site, e.g. "blocks 0:2"."""
    return set(range(*map(int, site.split(" ")[1].split(":"))))


def passes(ledger, branches):
    """(computed slots, blocks with cross-attention) of every forward in the ledger."""
    for (_, branch), group in groupby(ledger, key=lambda entry: (entry.iteration, entry.branch)):
        lines = list(group)
        runs = [(e.slots, e.sites) for e in lines if "velocity" not in e.sites]
        runs += [(idle, ()) for e in lines for idle in e.idle]
        stood = [set().union(*(span(site) for site in sites)) for _, sites in runs]
        found = [(sum(b - a for (a, b), _ in runs), [i for i in (0, 1) if any(i not in s for s in stood)])]
        found = [*(found if runs else []), *((e.kept[1] - e.kept[0], [0, 1]) for e in lines if e.kept[1])]
        yield from found * (1 if branch else branches)


@pytest.mark.parametrize(
    "method,attention",
    [
        (Original(), "block_causal"),
        pytest.param(Uniform(3, order=1), "full", marks=pytest.mark.slow),
        pytest.param(Scope(9, 9, max_skip=2, signal="latent"), "full", marks=pytest.mark.slow),
        (Scope(0, 0, selective="hull", signal="latent"), "block_causal"),
        (TeaCache(0.3, fit="none", warmup=1), "full"),
        pytest.param(TeaCache(0.3, fit="none", warmup=1, per_branch=True), "block_causal", marks=pytest.mark.slow),
        (Lossless(), "block_causal"),
        (Scope(9, 9, max_skip=2, selective="exact"), "block_causal"),
        pytest.param(Scope(9, 9, max_skip=2, selective="none", decide_per="unit"), "full", marks=pytest.mark.slow),
        (Scope(9, 9, max_skip=2, decide_per="unit"), "block_causal"),
        pytest.param(FirstBlockCache(0.2, decide_per="unit"), "block_causal", marks=pytest.mark.slow),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_the_ledgers_price_is_what_torch_counts_in_a_run(method, attention, monkeypatch):
    """Modulation and text, which we compute once per row and once per video, are priced in every forward, as stock.

    The text fills its length: padding, which is folded into one token here, is priced at full length too.
    """
    model = build(frames=LONG, attention=attention)
    ran = []

    def listen(*arguments):
        with Counter() as flop:
            out = forward(*arguments)
        ran.append(flop.total)
        return out

    forward = backbone.forward
    monkeypatch.setattr(backbone, "forward", listen)
    monkeypatch.setattr(backbone, "opening", lambda *arguments: None)  # shared by the branches, priced in each
    ledger: list[Entry] = []
    generate(model, method, model.conditioning("a", model.texts(["a"])), 0, ledger)

    text, transformer = torch.zeros(1, 8, 32), model.transformer
    for slots, read in passes(ledger, branches=2):
        ran.append(counted(lambda s=slots: condition(transformer, torch.zeros(s).long(), 24, torch.float32)))
        ran.append(counted(lambda r=read: read_text(transformer, text, len(r))))
    assert sum(ran) == flops(ledger, model.price)[attention == "block_causal"]
    if not isinstance(method, Original):
        assert sum(ran) < flops(plan(model.schedule()), model.price)[attention == "block_causal"]


def test_a_reused_block_stack_saves_the_blocks_and_nothing_else():
    model = build()
    method = TeaCache(99, fit="none", warmup=1)
    ledger = ledger_of(model, method)
    price = model.prices.of(10, 0)
    computed = sum(entry.mode is Mode.RECOMPUTE for entry in ledger)
    assert 0 < computed < len(ledger)
    expected = 2 * (len(ledger) * price.whole - (len(ledger) - computed) * 2 * price.block)
    assert flops(ledger, model.price)[0] == expected
    assert 0 < price.whole - 2 * price.block < price.whole / 2


def test_masked_is_never_dearer_and_equal_for_one_block():
    model = build()
    one = [entry for entry in ledger_of(model, Scope(0, 0)) if entry.slots == (0, 2)]
    dense, masked = flops(one, model.price)
    assert dense == masked > 0
    dense, masked = flops(plan(model.schedule()), model.price)
    assert masked < dense


def test_forwards_count_branches_of_a_joint_decision_and_one_of_an_own():
    entries = [
        Entry(i, 0, 0, (0, 2), (0, 2), branch, 1.0, 0, mode, None, "", ())
        for i, branch, mode in [
            (0, "", Mode.RECOMPUTE),
            (1, "", Mode.CACHE),
            (2, "cond", Mode.RECOMPUTE),
            (2, "uncond", Mode.CACHE),
            (3, "", Mode.PREDICT),
            (4, "", Mode.RECOMPUTE),
            (4, "", Mode.CACHE),
        ]
    ]
    assert forwards(entries, branches=2) == 2 + 1 + 2
    assert decisions(entries) == {"cache": 3, "predict": 1, "recompute": 3}


def test_forwards_of_the_ledger_are_those_that_ran():
    toy = Toy(slots=6, lag=2, branches=("cond", "uncond"))
    for method in (Original(), Scope(9, 9, max_skip=2, signal="clock"), Uniform(3)):
        _, ledger = run(toy, method)
        assert forwards(ledger, 2) == sum(toy.forwards.values())
        assert {e.iteration for e in ledger if e.mode is Mode.RECOMPUTE} == set(toy.forwards)


def test_an_entry_says_what_one_decision_covered():
    _, ledger = run(Toy(slots=6, block=2, lag=3, window=4, overlap=2), Scope(9, 9, signal="clock"))
    first, joined = ledger[0], ledger[4]
    assert (first.slots, first.active, first.unit, first.sigma, first.step) == ((0, 2), (0, 2), 0, 1.0, 0)
    assert (joined.slots, joined.active, joined.step) == ((0, 4), (0, 4), 4)
    later = next(entry for entry in ledger if entry.segment == 1)
    assert (later.slots, later.active, later.unit) == ((2, 6), (4, 6), 1)


def test_one_decision_is_one_line_of_json(tmp_path):
    _, ledger = run(Toy(), Scope(9, 9, signal="clock"))
    write(ledger, tmp_path / "trace.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "trace.jsonl").read_text().splitlines()]
    assert len(lines) == len(ledger) == 13
    assert lines[1] == json.loads(json.dumps(asdict(ledger[1])))
    assert set(lines[0]) >= {"iteration", "unit", "slots", "sigma", "mode", "score", "why"}


def test_a_method_without_a_stand_in_that_skips_is_told_so():
    class Lazy(Method):
        def decide(self, part, probe, branch=""):
            return Decision(Mode.CACHE)

        def sites(self, depth, row):
            return Scope(0, 0).sites(depth, row)

    with pytest.raises(RuntimeError, match="Lazy chose cache at velocity, but its `fill` gives no result there"):
        run(Toy(), Lazy())


def test_latents_are_an_eighth_of_the_frame_and_patches_a_quarter_of_that():
    model = build()
    shape = model.start({b: torch.zeros(1, 8, 32) for b in model.branches}, 0).shape
    assert shape == (10, 16, 32 // SPATIAL, 48 // SPATIAL)
    row = model.schedule()[0]
    assert prod(model.probe("patch_embedding", torch.zeros(shape), row).shape) == 10 * 6 * 24
