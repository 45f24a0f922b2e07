"""DSA-proxy: when a slot is done, what leaving early means, and a head fitted on what the model does."""

import json

import pytest
import torch

from baselines.dsa_proxy import DSAProxy
from baselines.shared.confidence_head import ProxyHead, features, read_head
from benchmarks import fit_dsa_head
from benchmarks.fit_dsa_head import Watch, explained, fit
from engine.confidence_head import save_head
from engine.loop import generate
from engine.method import Original
from engine.row import Mode
from tests.by_hand import modes, numbers, row_at, velocities
from tests.test_magi1_backbone import _model as magi1
from tests.test_magi1_backbone import _video as magi1_video
from tests.tiny import build, ledger_of, video


def test_doubt_is_the_relative_change_of_the_clean_estimate_by_hand():
    """x = 1 throughout, levels 1, 0.8, 0.6, ...; v = 0, -0.5, -0.5 gives clean estimates 1, 1.4, 1.3."""
    inputs = numbers(*[1.0] * 5)
    _, ledger = velocities(
        DSAProxy(0.05, least=0), lambda x, k: torch.full_like(x, [0, -0.5, -0.5, -0.5, -0.5][k]), inputs
    )
    assert [e.score for e in ledger] == [
        None,
        None,
        pytest.approx(0.4),
        pytest.approx(0.1 / 1.4, abs=1e-6),
        pytest.approx(0.1 / 1.3, abs=1e-6),
    ]


def test_a_slot_that_is_done_is_carried_straight_to_its_clean_estimate():
    """Euler along x' = v with v(s) = s^2: if the velocity is kept from a step on, the end is the clean estimate of
    that step."""
    rows, x, method = [row_at(k, 10) for k in range(10)], torch.ones(1, 1, 1, 1), DSAProxy(0.05, least=0.3)
    estimate, inputs = None, []

    def field(x, k):
        nonlocal estimate
        v = torch.full_like(x, rows[k].sigma[0] ** 2)
        estimate = x - rows[k].sigma[0] * v
        return v

    method.reset()
    for k, row in enumerate(rows):
        inputs.append(x)
        outputs, ledger = velocities(method, field, inputs, rows[: k + 1])
        x = x + (row.sigma_next[0] - row.sigma[0]) * outputs[-1]
    assert modes(ledger).lstrip("r") == "c" * modes(ledger).count("c") != ""
    velocities(method, field, inputs, rows)
    assert float(x) == pytest.approx(float(estimate), abs=1e-6)


def test_it_leaves_the_same_on_a_model_whose_levels_rise():
    falling = [row_at(k, 10) for k in range(10)]
    rising = [row_at(k, 10, sigma=(k / 10,), sigma_next=((k + 1) / 10,)) for k in range(10)]
    found = []
    for rows, sign in ((falling, 1.0), (rising, -1.0)):
        _, ledger = velocities(
            DSAProxy(0.2, least=0.2), lambda x, k, s=sign: s * torch.full_like(x, 0.9**k), numbers(*[2.0] * 10), rows
        )
        found.append([(e.mode, e.score) for e in ledger])
    assert found[0] == found[1] and {mode for mode, _ in found[0]} == {Mode.RECOMPUTE, Mode.CACHE}


@pytest.mark.parametrize("share, expected", [(0.3, "rrr" + "c" * 7), (0.7, "r" * 7 + "ccc"), (1.0, "r" * 10)])
def test_every_slot_gets_its_least_and_no_more_than_its_most(share, expected):
    def constant(x, k):
        return torch.ones_like(x)

    inputs = numbers(*[2.0] * 10)
    _, sure = velocities(DSAProxy(9.0, least=share), constant, inputs)
    _, unsure = velocities(DSAProxy(0, least=0, most=share), constant, inputs)
    assert modes(sure) == modes(unsure) == expected


def test_a_row_is_skipped_only_when_its_youngest_slot_is_done():
    model = build(steps=12, guidance=1.0)
    ledger = ledger_of(model, DSAProxy(0.0, least=0, most=0.5))
    first = next(e.iteration for e in ledger if e.mode is Mode.CACHE)
    rows = model.schedule()
    assert all(k >= 6 for k, on in zip(rows[first].step, rows[first].active, strict=True) if on)
    assert any(k < 6 for k, on in zip(rows[first - 1].step, rows[first - 1].active, strict=True) if on)


def test_chunks_leave_apart_on_magi1():
    model, ledger = magi1(), []
    method = DSAProxy(9.0, least=0.3, decide_per="unit")
    method.check(model)
    found = magi1_video(model, method, ledger=ledger)
    both = [i for i in {e.iteration for e in ledger} if len({e.mode for e in ledger if e.iteration == i}) == 2]
    assert both, "in some rows one chunk is done and another is computed"
    assert torch.isfinite(found).all() and not torch.equal(found, magi1_video(model, Original()))


# --- the head ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def samples():
    """The features determine the targets up to noise: log10 distance = -2 done + 0.5 log10 change."""
    torch.manual_seed(3)
    x = torch.rand(600, 8)
    return x, -2 * x[:, 0] + 0.5 * x[:, 1] + 0.3 * x[:, 4] ** 2 + 0.01 * torch.randn(600)


def test_the_head_learns_what_its_features_tell(samples):
    x, y = samples
    head = fit(x[:400], y[:400], hidden=8, rounds=300)
    assert explained(head(x[400:]).log10(), y[400:]) > 0.98
    assert bool((head(x) > 0).all())


def test_a_head_is_read_as_it_was_written_and_decides(samples, tmp_path):
    model = build(steps=12, guidance=1.0)
    watch = Watch()
    generate(model, watch, model.conditioning("a", model.texts(["a"])), 0, [])
    x, y = watch.samples()
    assert x.shape == (len(y), 4 + 16) and bool((y < 1).all())
    path = tmp_path / "head.safetensors"
    head = fit(x, y, hidden=4, rounds=50)
    save_head(head, path, {"model": "tiny"})
    torch.testing.assert_close(read_head(path)(x), head(x))
    method = DSAProxy(9.0, head=str(path))
    assert method.head.startswith("head ") and str(tmp_path) not in method.head
    assert {e.mode for e in ledger_of(model, method)} == {Mode.CACHE, Mode.RECOMPUTE}
    assert torch.equal(video(model, DSAProxy(0, head=str(path))), video(model, Original()))


def test_watching_changes_nothing_and_the_last_step_is_its_own_target():
    model, watch = build(steps=6, guidance=1.0), Watch()
    assert torch.equal(video(model, watch), video(model, Original()))
    assert {len(steps) for steps in watch.seen.values()} == {5}, "the first step has nothing to compare with"


def test_features_are_pooled_by_channel():
    before, clean = torch.ones(2, 3, 2, 2), torch.ones(2, 3, 2, 2)
    clean[0, 1] = 3.0
    found = features(torch.tensor([0.5, 0.6]), before, clean, -2 * before)
    assert found.shape == (2, 7)
    size = 5 / 3
    torch.testing.assert_close(found[0, [0, 2, 3]], torch.tensor([0.5, size, 2.0]))
    torch.testing.assert_close(found[0, 4:], torch.tensor([0.0, 2 / size, 0.0]), atol=1e-4, rtol=1e-4)
    assert float(found[1, 1]) == pytest.approx(-6), "no change at all"


def test_the_fitting_command_writes_a_head_and_its_evidence(tmp_path, monkeypatch, capsys):
    model = build(steps=6, guidance=1.0)
    monkeypatch.setattr(model, "load", lambda: None)
    monkeypatch.setattr(fit_dsa_head, "composed", lambda overrides: (None, model, None))
    monkeypatch.setattr(fit_dsa_head, "prompts_of", lambda run, count: ["a", "b", "c"])
    fit_dsa_head.main([f"out={tmp_path / 'head.safetensors'}", "count=3", "hidden=4"])
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["samples"] == [80, 40] and told["r_squared"] > 0 and "r_squared_of_the_change_held_out" in told
    assert isinstance(read_head(tmp_path / "head.safetensors"), ProxyHead)


@pytest.mark.parametrize(
    "given, told",
    [
        ({"threshold": -1}, "threshold must lie"),
        ({"threshold": 1, "least": 2}, "least must lie"),
        ({"threshold": 1, "least": 0.5, "most": 0.3}, r"most must lie in \[0.5, 1\]"),
        ({"threshold": 1, "head": "nowhere.safetensors"}, "nowhere.safetensors does not exist.*fit_dsa_head"),
    ],
)
def test_nonsense_is_refused(given, told):
    with pytest.raises(ValueError, match=told):
        DSAProxy(**given)


def test_a_file_that_is_no_head_and_a_head_of_another_model_are_refused(samples, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"no")
    with pytest.raises(ValueError, match="not a safetensors file"):
        DSAProxy(1, head=str(path))
    save_head(fit(*samples, hidden=2, rounds=1), path, {})
    with pytest.raises(ValueError, match="fitted on 4 latent channels, the model has 16"):
        ledger_of(build(), DSAProxy(1, head=str(path)))
