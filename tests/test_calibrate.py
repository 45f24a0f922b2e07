"""Operating points: the search checked by hand, the measurements of a trial, the command and its errors."""

import json
import math
from contextlib import contextmanager
from dataclasses import fields, replace
from types import SimpleNamespace

import pytest
import torch
import yaml
from hydra.utils import get_class
from omegaconf import OmegaConf

import sweep.calibration.trial
from baselines.ca2vdm import Ca2VDM
from baselines.cfg_cache import CfgCache
from baselines.delta_dit import DeltaDiT
from baselines.easycache import EasyCache
from baselines.first_block_cache import FirstBlockCache
from baselines.lossless import Lossless
from baselines.magcache import MagCache
from baselines.pab import PAB
from baselines.taylorseer import TaylorSeer
from baselines.uniform import Uniform
from conf.schema import CONF, ConfigError, Point, Prompts, Run, options, read_prompts, read_target
from engine.knob import Knob
from engine.ledger import flops, forwards, plan
from engine.meter import Cost
from engine.method import Original
from engine.row import Mode
from eval import lpips_weights
from models.shapes import BACKGROUNDS, COLOURS, DIRECTIONS, SHAPES, prompts
from scope.method import Scope
from sweep.calibration.rehearsal import rehearse
from sweep.calibration.search import CLOSE, WITHIN, Search, Unreachable
from sweep.calibration.task import knobs_of
from sweep.calibration.trial import Trial
from tests import tiny_menu
from tests.tiny import LONG, build, ledger_of, texts_of, video

# --- the search, by hand ----------------------------------------------------------------------------------------------

THRESHOLD = Knob("threshold", 1e-4, 10.0)
INTERVAL = Knob("interval", 1, 10, whole=True)
WARMUP = Knob("warmup", 20, 1, whole=True)


def test_a_knob_moves_in_its_range_and_in_the_direction_of_its_ends():
    assert INTERVAL.moved(3, 2) == 5 and INTERVAL.moved(3, -9) == 1 and INTERVAL.moved(3, 64) == 10
    assert WARMUP.moved(3, 1) == 2 and WARMUP.moved(3, -4) == 7 and WARMUP.moved(3, 9) == 1
    assert THRESHOLD.moved(0.1, 2) == pytest.approx(0.2) and THRESHOLD.moved(0.1, -4) == pytest.approx(0.025)
    assert THRESHOLD.begin == pytest.approx(0.0316, rel=1e-2) and INTERVAL.begin == 6
    assert INTERVAL.between(3, 4) is None and INTERVAL.between(3, 6) == 4
    assert THRESHOLD.between(0.1, 0.4) == pytest.approx(0.2) and THRESHOLD.between(0.1, 0.10001) is None


@pytest.mark.parametrize("begin", [1e-4, 0.02, 9.0])
def test_a_smooth_cost_is_met_from_anywhere(begin):
    search = Search(lambda s: 1 / (1 + s["threshold"]), 0.447, rises=False)
    settings, reached = search.run([THRESHOLD], {"threshold": begin})
    assert reached == 1 / (1 + settings["threshold"]) and abs(reached / 0.447 - 1) <= CLOSE


def test_a_rising_quantity_is_met_in_the_other_direction():
    settings, reached = Search(lambda s: 1 + s["threshold"], 2.1, rises=True).run([THRESHOLD], {"threshold": 0.01})
    assert abs(reached / 2.1 - 1) <= CLOSE and settings["threshold"] == pytest.approx(1.1, rel=0.02)


def test_what_an_integer_misses_a_second_knob_meets():
    """1 / interval gives only 1/2 and 1/3. Each warm-up step above the first adds 0.01: 1/3 + 0.07."""
    cost = lambda s: 1 / s["interval"] + 0.01 * (s.get("warmup", 1) - 1)  # noqa: E731
    with pytest.raises(Unreachable, match=r"changes in steps, and the nearest values are 0\.3333 and 0\.5"):
        Search(cost, 0.404, rises=False).run([INTERVAL], {"interval": 3})
    settings, reached = Search(cost, 0.404, rises=False).run([INTERVAL, WARMUP], {"interval": 3, "warmup": 1})
    assert settings == {"interval": 3, "warmup": 8} and reached == pytest.approx(1 / 3 + 0.07)


def test_a_main_knob_that_does_alone_leaves_the_others_as_they_are():
    seen = []
    measure = lambda s: seen.append(s) or 1 / s["interval"]  # noqa: E731
    settings, _ = Search(measure, 0.25, rises=False).run([INTERVAL, WARMUP], {"interval": 3, "warmup": 1})
    assert settings == {"interval": 4} and all("warmup" not in s for s in seen)


def test_settings_that_follow_keep_their_share():
    knob = Knob("tau_predict", 1e-3, 10.0, follows={"tau_cache": 0.4})
    settings, _ = Search(lambda s: 1 / (1 + s["tau_predict"]), 0.5, rises=False).run([knob], {"tau_predict": 0.1})
    assert settings["tau_cache"] == pytest.approx(0.4 * settings["tau_predict"], rel=1e-3)


@pytest.mark.parametrize("target, words", [(0.05, "reach 0.2 to 1; the target is outside"), (0.9, "changes in steps")])
def test_what_cannot_be_reached_is_refused_with_the_range(target, words):
    with pytest.raises(Unreachable, match=words):
        knob = Knob("interval", 1, 5, whole=True)
        Search(lambda s: 1 / s["interval"], target, rises=False).run([knob], {"interval": 2})


def test_settings_that_cannot_be_run_are_passed_over_as_too_cheap():
    cost = lambda s: 1 / s["interval"] if s["interval"] <= 4 else math.nan  # noqa: E731
    assert Search(cost, 0.25, rises=False).run([INTERVAL], {"interval": 9})[0] == {"interval": 4}
    with pytest.raises(Unreachable, match="none of 3 settings could be run"):
        Search(lambda s: math.nan, 0.25, rises=False).run([Knob("n", 1, 3, whole=True)], {"n": 3})


def test_a_search_tries_the_same_again_and_no_more_than_its_budget():
    def tried(budget):
        search = Search(lambda s: 1 / (1 + s["threshold"]), 0.447, rises=False, budget=budget)
        try:
            search.run([THRESHOLD], {"threshold": 1e-3})
        except Unreachable:
            return list(search.tried)[:-2]  # the last two say what can be reached
        return list(search.tried)

    assert tried(200) == tried(200) and len(tried(5)) == 5 and tried(200)[:5] == tried(5)


# --- the methods' knobs -----------------------------------------------------------------------------------------------

OPEN = {"ratios": [1.0, 0.95, 0.93, 0.92, 0.9], "latent": [1.0], "time": [1.0]}
CHEAP = {"xcache": -1.0}  # with random weights the chunks are unlike each other: only a negative floor skips


KINDS = {name: get_class(OmegaConf.load(CONF / "method" / f"{name}.yaml")["_target_"]) for name in options("method")}


@pytest.fixture(scope="module")
def model():
    return build(steps=8, addnoise=0)


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.knobs and name != "dsa"])  # needs a head
def test_the_dear_end_of_a_knob_computes_more_than_its_cheap_end(model, name):
    kind = KINDS[name]
    assert {n for knob in kind.knobs for n in (knob.name, *knob.follows)} <= {f.name for f in fields(kind)}
    main, known = kind.knobs[0], {f.name for f in fields(kind)}
    given = {name: value for name, value in {**OPEN, "warmup": 1, "cooldown": 1}.items() if name in known}
    for other in kind.knobs:
        given = other.at(other.begin) | given
    try:
        kind(**given).check(model)
    except ValueError:
        pytest.skip("not a method of this model")
    ends = (kind(**given | main.at(end)) for end in (main.dear, CHEAP.get(name, main.cheap)))
    dear, cheap = (flops(ledger_of(model, method), model.price)[0] for method in ends)
    assert cheap < 0.99 * dear


# --- a trial ----------------------------------------------------------------------------------------------------------


def trial(model, method, quantity="flops", count=1):
    made = Trial(model, model, method, quantity)
    texts = texts_of(model, "a fox")
    made.texts = [model.conditioning("a fox", texts)] * count
    return made


FREE = [
    Uniform(2.5),
    Scope(0.3, 0.9),
    DeltaDiT(3, blocks=0.5),
    TaylorSeer(3),
    TaylorSeer(2, 0, "lite", "segment", 3),
    PAB(3, 4, 2, begin=1000, end=0),
    MagCache(0.3, OPEN["ratios"]),
]


@pytest.mark.parametrize("method", FREE, ids=lambda m: type(m).__name__)
def test_a_rehearsal_agrees_where_decisions_do_not_look_at_the_content(model, method):
    assert trial(model, method).agrees(method)
    assert any(entry.sites for entry in ledger_of(model, method))


@pytest.mark.parametrize("method", [EasyCache(0.5, 1, 0), FirstBlockCache(0.3)], ids=lambda m: type(m).__name__)
def test_a_rehearsal_disagrees_where_they_do(model, method):
    assert not trial(model, method).agrees(method)


@pytest.fixture(scope="module")
def causal():
    return build(frames=LONG, steps=8, attention="block_causal", overlap_noise="segment")


KEEPING = [Lossless(), Ca2VDM(), *(Scope(0.3, 0.9, selective="exact", decide_per=grain) for grain in ("row", "unit"))]


@pytest.mark.parametrize("method", KEEPING, ids=["lossless", "ca2vdm", "scope, row", "scope, unit"])
def test_a_rehearsal_prices_the_context_whose_keys_are_kept(causal, method):
    real, thought = ledger_of(causal, method), rehearse(causal, method, trial(causal, method).texts[0])
    assert [entry.kept for entry in thought] == [entry.kept for entry in real]
    assert any(entry.kept[1] for entry in real), "there is something to price"
    assert flops(thought, causal.price) == flops(real, causal.price)
    assert trial(causal, method).agrees(method)


@pytest.mark.parametrize("change", [{"kept": (0, 2)}, {"idle": ((0, 2),)}, {"copied": ("velocity",)}, {"seen": (0, 4)}])
def test_a_rehearsal_with_the_same_decisions_and_another_cost_does_not_agree(model, monkeypatch, change):
    made, ledger = trial(model, Uniform(2.5)), ledger_of(model, Uniform(2.5))
    changed = [replace(ledger[0], **change), *ledger[1:]]
    monkeypatch.setattr(made, "_video", lambda number, method: (None, ledger))
    monkeypatch.setattr(sweep.calibration.trial, "rehearse", lambda *_: changed)
    alike = changed[0].kept == ledger[0].kept and changed[0].idle == ledger[0].idle
    alike &= flops(changed, model.price) == flops(ledger, model.price)
    assert made.agrees(Uniform(2.5)) is alike


def test_what_is_measured_is_the_share_of_the_ledgers_flops(model):
    made = trial(model, TaylorSeer(3), count=2)
    whole, _ = flops(plan(model.schedule()), model.price)
    wanted = flops(ledger_of(model, TaylorSeer(4, warmup=2)), model.price)[0] / whole
    settings = {"interval": 4, "warmup": 2}
    assert made.measured(settings) == pytest.approx(wanted) == made.rehearsed(settings)
    assert made.values == pytest.approx([wanted] * 2)
    assert math.isnan(made.measured({"interval": 0})) and math.isnan(made.rehearsed({"interval": 0}))


def test_a_speedup_is_the_ratio_of_seconds_of_alternating_runs(model, monkeypatch):
    """With a clock that counts forwards, a speedup is the ratio of forwards; Original and method take turns."""
    order, generate = [], sweep.calibration.trial.generate

    def counted(model, method, text, seed, ledger, on_row):
        latents = generate(model, method, text, seed, ledger, on_row)
        order.append((type(method).__name__, forwards(ledger, len(model.branches))))
        return latents

    @contextmanager
    def clock(device):
        cost = Cost()
        yield cost
        cost.seconds = float(order[-1][1])

    monkeypatch.setattr(sweep.calibration.trial, "generate", counted)
    monkeypatch.setattr(sweep.calibration.trial, "meter", clock)
    made = trial(model, Uniform(3.0), "speedup")
    found = made.measured({"interval": 3.0})
    assert [name for name, _ in order] == ["Original", "Uniform"] * 2
    assert found == pytest.approx(order[0][1] / order[1][1]) and found > 1.5


def test_lpips_is_of_the_methods_frames_against_the_originals(model, monkeypatch):
    class Apart(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, x, y):
            return (x - y).abs().flatten(1).mean(1).view(-1, 1, 1, 1) * self.scale

    made = trial(model, Uniform(3.0), "lpips")
    made.__dict__["network"] = Apart()
    a, b = (torch.cat(list(model.decode(video(model, m, seed=10_000)))).float() for m in (Original(), Uniform(3.0)))
    assert made.measured({"interval": 3.0}) == pytest.approx(float((a - b).abs().mean()) / 127.5, rel=1e-4)
    assert made.measured({"interval": 1.0}) == 0


def test_a_distance_without_weights_is_refused_in_words(model, monkeypatch, tmp_path):
    def missing(net):
        raise lpips_weights.MissingWeights("no alex weights; get them with: python -m eval.lpips_weights fetch")

    monkeypatch.setattr(sweep.calibration.trial.lpips_weights, "find", missing)
    with pytest.raises(ConfigError, match="target=lpips needs LPIPS: no alex weights"):
        trial(model, Uniform(3.0), "lpips").prepare(["a fox"], tmp_path)


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def menu(tmp_path_factory):
    return tiny_menu.write(tmp_path_factory.mktemp("menu"), steps=8, addnoise=0)


def calibrate(menu, results, *more):
    return tiny_menu.run_experiment("calibrate", menu, results, *more)


def test_a_point_is_found_written_with_its_evidence_and_meets_its_target_when_used(menu, tmp_path, model):
    said = calibrate(menu, tmp_path, "method=uniform", "speed=slow", "target=flops:0.56", "method.order=1")
    assert said.status == 0, said.out + said.err
    path = tmp_path / "calibration" / "point" / "tiny" / "uniform_slow.yaml"
    text = path.read_text()
    assert text.startswith("# @package _global_\n") and "target=flops:0.56" in text and "method.interval=4.0" in text
    assert str(path) in said.out.replace("\n", "") and "random weights" in text
    point = yaml.safe_load(text)
    assert point["method"]["order"] == 1 and point["point"]["estimated"] is False
    assert "0.56 of the Original's FLOPs" in point["point"]["why"]
    whole, _ = flops(plan(model.schedule()), model.price)
    reached = flops(ledger_of(model, Uniform(**point["method"])), model.price)[0] / whole
    assert abs(reached / 0.56 - 1) <= WITHIN
    kept = json.loads((tmp_path / "calibration" / "tiny" / "uniform_slow.json").read_text())
    assert kept["reached"] == pytest.approx(reached) and kept["rehearsed"] and len(kept["tried"]) >= 1
    assert json.loads(said.out.strip().splitlines()[-1])["settings"] == kept["settings"]
    calibrate(menu, tmp_path, "method=uniform", "speed=slow", "target=flops:0.56", "method.order=1")
    assert path.read_text() == text


def test_a_method_that_looks_at_the_content_is_searched_in_real_videos_into_a_folder(menu, tmp_path):
    said = calibrate(
        menu, tmp_path, "method=first_block_cache", "target=flops:0.8", f"into={tmp_path / 'mine'}", "speed=fast"
    )
    assert said.status == 0, said.out
    assert "in real videos" in (tmp_path / "mine" / "point" / "tiny" / "first_block_cache_fast.yaml").read_text()


@pytest.mark.parametrize(
    "overrides, words",
    [
        (["method=uniform", "target=flops:0.01"], r"target=flops:0.01 cannot be reached: interval from 1 to 50 reach"),
        (["method=teacache"], "the paper has no value for teacache at speed=fast on tiny; set a target, e.g. target"),
        (["method=original", "target=flops:0.5"], "method=original has no knobs"),
        (["method=uniform", "speed=none", "target=flops:0.5"], "speed=none names no operating point"),
        (
            ["method=uniform", "target=flop:0.5"],
            "target=flop:0.5 is not valid; want flops:0.447, speedup:2.1 or lpips:0.05",
        ),
        (
            ["method=uniform", "target=flops:1.5"],
            "target=flops:1.5 is out of range; flops must be above 0 and at most 1",
        ),
        (
            ["method=uniform", "target=speedup:0.5"],
            "target=speedup:0.5 is out of range; speedup must be above 1 and at most inf",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_calibrated_is_refused_in_one_line(menu, tmp_path, overrides, words):
    said = calibrate(menu, tmp_path, *overrides)
    lines = [line for line in (said.out + said.err).splitlines() if "error:" in line]
    assert said.status == 1 and len(lines) == 1 and words in lines[0]
    assert not list((tmp_path / "calibration").rglob("*.yaml"))


def test_the_papers_own_point_is_not_tuned():
    run = Run(speed="paper", point=Point(paper=True))
    with pytest.raises(ConfigError, match="paper's numbers, which must not be tuned; want speed=slow or speed=fast"):
        knobs_of(SimpleNamespace(name="scope", method=Uniform(2.0), run=run))


def test_a_target_is_read_with_its_quantity():
    assert read_target("lpips:0.05") == ("lpips", 0.05) and read_target("speedup: 2.1") == ("speedup", 2.1)
    for wrong in ("0.4", "flops", "flops:", "flops:x", "flops:nan", "lpips:inf", "flops:0"):
        with pytest.raises(ConfigError, match="target="):
            read_target(wrong)


def test_the_calibration_prompts_share_nothing_with_those_that_are_reported_on():
    file = OmegaConf.load(CONF / "prompts" / "shapes_calibration.yaml").file
    ours, reported = read_prompts(Prompts(file=file)), prompts("held_out", 288)
    assert ours == prompts("train", 32) and not set(ours) & set(reported)

    def shown(sentence):
        said = sentence.split()
        return tuple(next(w for w in words if w in said) for words in (COLOURS, SHAPES, DIRECTIONS, BACKGROUNDS))

    assert not set(map(shown, ours)) & set(map(shown, reported))


# --- what a run is too short for --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method, words",
    [
        (DeltaDiT(9), "interval=9 is longer than the run: a slot of tiny has 8 steps"),
        (TaylorSeer(9), "interval=9 is longer"),
        (Uniform(8.5), "interval=8.5 is longer"),
        (PAB(cross_attention=9), "cross_attention=9 is longer"),
        (CfgCache(9), "interval=9 is longer"),
        (TaylorSeer(7, 3), "order=3 needs 4 computed steps, but with interval=7 a slot of tiny has 2 of 8"),
        (Uniform(8.0, 2), "order=2 needs 3 computed steps, but with interval=8 a slot of tiny has 1 of 8"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_an_interval_or_an_order_that_a_run_is_too_short_for_is_refused(model, method, words):
    with pytest.raises(ValueError, match=words):
        method.check(model)


def test_a_predictor_without_the_steps_for_its_history_is_refused():
    Scope(0.1, 0.3, predictor="taylor1").check(build(steps=3))
    with pytest.raises(ValueError, match="predictor=newton2 needs more than 3 steps per slot, and tiny has 3"):
        Scope(0.1, 0.3).check(build(steps=3))


@pytest.mark.parametrize("method", [DeltaDiT(8), TaylorSeer(7, 1), TaylorSeer(2, 3), Uniform(4.0, 1)], ids=str)
def test_the_longest_interval_and_the_highest_order_that_fit_are_allowed(model, method):
    method.check(model)
    ledger = ledger_of(model, method)
    assert {Mode.RECOMPUTE} < {entry.mode for entry in ledger}, "it skips"
