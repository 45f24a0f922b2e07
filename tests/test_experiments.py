"""An experiment expands to its sweeps on the requested models; its cells compose, and its plans have the right
counts."""

import itertools
import json

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig

from benchmarks.paper_cost import seconds
from conf.schema import CONF, ConfigError, departures, options, parse
from engine.row import VELOCITY
from engine.staircase import Segment, staircase
from reports.report import read as read_report
from reports.text_claims import counts, others
from reports.verdict import MATCHES
from sweep.experiments import choices, expanded, read
from sweep.trajectory import Watch
from tests.test_run import call

FULL, TINY = "skyreels,magi1", "skyreels_tiny,magi1_tiny"
OURS = [name for name in options("experiment") if {"sweeps", "includes"} & set(read(name))]


def cells(name, models=TINY):
    """(model, method, speed) of every cell."""
    wanted = ("model", "method", "speed")
    product = [
        itertools.product(*(choices(line).get(key, [""]) for key in wanted))
        for line in expanded([f"experiment={name}", f"model={models}"])
    ]
    return {cell for line in product for cell in line}


def test_table_1_has_twenty_rows_beside_the_controls_and_the_papers_own_point():
    rows = {cell for cell in cells("table1") if cell[2] and cell[0].endswith("_tiny")}
    methods = {"delta_dit", "teacache", "taylorseer", "flowcache", "scope"}
    paper = {(model, "scope", "paper") for model in TINY.split(",")}  # what SCOPE-fast is judged by
    tuned = set(itertools.product(TINY.split(","), methods, ("slow", "fast")))
    assert rows == tuned | paper and len(tuned) == 20


def test_table_2_has_five_pairs_on_one_model_and_four_on_the_other():
    rows = cells("table2", FULL)
    assert {s for m, _, s in rows if m == "skyreels"} == {f"table2_row{n}" for n in (1, 2, 4, 5)} | {"fast"}
    assert {s for m, _, s in rows if m == "magi1"} == {"slow", "fast", "table2_row3", "table2_row4"}


def test_the_paper_includes_every_other_experiment_and_each_sweep_once():
    lines = expanded(["experiment=paper"])
    assert len(lines) == len(set(map(tuple, lines)))
    assert set(OURS) - {"paper", "plan", "frontier", "few_steps"} <= set(read("paper")["includes"])  # last two: not its
    for name in read("paper")["includes"]:
        assert all(line in lines for line in expanded([f"experiment={name}"])), name


def test_what_is_given_by_hand_replaces_what_the_sweep_says():
    lines = expanded(["-m", "experiment=fig7", "model=skyreels_tiny", "method.max_skip=2,4", "results=/x"])
    assert ["-m", "model=skyreels_tiny", "method=scope", "speed=fast", "method.max_skip=2,4", "results=/x"] in lines
    assert not any("1,2,3" in a for line in lines for a in line)


def test_other_arguments_and_plain_hydra_experiments_are_left_alone():
    for line in (["experiment=quickstart", "seeds=[1]"], ["-m", "method=scope"], []):
        assert expanded(line) == [line]


def test_an_unknown_experiment_and_a_model_without_sweeps_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="did you mean table1"):
        expanded(["experiment=tabel1"])
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "own.yaml").write_text(
        yaml.safe_dump({"models": "skyreels", "sweeps": [{"for": "skyreels*", "method": "scope"}]})
    )
    plugged = ["--config-dir", str(tmp_path), "experiment=own"]
    assert expanded(plugged) == [["-m", "model=skyreels", "method=scope", *plugged[:2]]]
    with pytest.raises(ConfigError, match=r"experiment=own has no sweep for model=magi1; want one of skyreels"):
        expanded([*plugged, "model=magi1"])


@pytest.mark.slow
def test_the_ends_of_every_sweep_of_the_paper_can_be_run():
    ends = {
        tuple(f"{k}={v[n]}" for k, v in choices(line).items())
        for models, n in ((FULL, 0), (TINY, -1))
        for line in expanded(["experiment=paper", f"model={models}"])
    }
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for overrides in sorted(ends):
            run, _, _, method = parse(compose("config", overrides=list(overrides)))
            assert method is not None and run.task in ("videos", "plan", "trajectory"), overrides


def test_only_what_departs_from_the_menu_makes_a_variant():
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for overrides, expected in (
            ([], {}),
            (["method.max_skip=5", "model.weights=random", "model.frames=257"], {}),  # the menu's own values
            (["method.max_skip=3", "model.frames=97"], {"model.frames": 97, "method.max_skip": 3}),
        ):
            config = compose(
                "config", overrides=["model=skyreels", "method=scope", *overrides], return_hydra_config=True
            )
            HydraConfig.instance().set_config(config)
            assert departures(config) == expected, overrides


@pytest.mark.slow
def test_plans_of_the_full_size_models_match_what_is_published_and_no_setting_gives_figure_6(tmp_path):
    said = call("experiment=plan", f"results={tmp_path}", "isolate=false", "--verbose")
    assert said.status == 0 and "35 published lines: 2 FLOPs match, " in said.out
    assert "10 of 10 as published" in said.out.replace("\n", " ")
    report = read_report(tmp_path)
    assert [line.verdict for line in counts(report.study)] == [MATCHES] * 10
    totals = next(line for line in others(report) if "Figure 6" in line.what)
    assert str(totals.verdict) == "differs: no setting gives the printed totals"
    assert totals.ours == "208 forwards, 640 chunk-steps; 200 iterations, 400 forwards"
    plan = json.loads((tmp_path / "plan" / "skyreels" / "scope-fast.json").read_text())
    assert len(plan["matrix"]) == 200 and plan["flops_pf"]["dense"] == pytest.approx(207.89, abs=0.01)


@pytest.mark.parametrize(
    "model, pflop, published",
    [
        ("skyreels", 244.78, 1452.41),
        ("skyreels", 244.78 / 5, 330.08),
        ("magi1", 80.98, 791.08),
        ("magi1", 80.98 * 20 / 64, 332.66),
    ],
)
def test_the_estimate_for_an_a800_goes_through_the_papers_own_times(model, pflop, published):
    assert seconds(model, pflop) == pytest.approx(published)
    assert seconds(model, 0) > 40


def test_prediction_errors_along_a_parabola_are_those_worked_by_hand():
    """v = s^2 on levels 0.8, 0.7, ...: reuse misses by the step, order 1 by h (h + h1), order 2 by nothing."""
    levels = [0.8, 0.7, 0.6, 0.5, 0.4, 0.3]
    watch = Watch(slot=0)
    for row in staircase([Segment(0, 1, 0)], steps=5, ar_step=0, block=1, sigma=levels):
        watch.keep(VELOCITY, row, torch.empty(0), torch.full((1, 2, 2, 2), row.sigma[0] ** 2, dtype=torch.float64))
    reuse, order1, order2 = watch.errors[4, 2].tolist()  # at 0.4, two steps after the last forward at 0.6
    assert reuse == pytest.approx((0.36 - 0.16) / 0.16, rel=1e-5)
    assert order1 == pytest.approx(0.2 * 0.3 / 0.16, rel=1e-5) and order2 == pytest.approx(0, abs=1e-5)
    assert (3, 2) not in watch.errors and watch.counts[3, 1] == 1  # three anchors or none
