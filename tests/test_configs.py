"""The menu: every option composes and agrees with its dataclass, and invalid input is refused in one line."""

import math
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.utils import get_class
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf.menu import in_full
from conf.schema import CONF, ConfigError, Prompts, Run, device_of, explain, nearest, options, parse, read_prompts
from engine.method import Method
from tests.marks import some

SWEEPING = "hydra.mode=MULTIRUN"
POINTS = sorted(str(path.relative_to(CONF / "point")) for path in (CONF / "point").rglob("*.yaml"))
TAUS = ("method.tau_cache=0.1", "method.tau_predict=0.3")


@pytest.fixture(scope="module", autouse=True)
def hydra():
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def given(*overrides):
    return compose("config", overrides=list(overrides))


@cache
def checked(*overrides):
    """What a command line gives. Tests read it and change nothing."""
    return parse(given(*overrides))


def refused(*overrides):
    """The one-line error for a bad command line."""
    try:
        checked(*overrides)
    except (HydraException, OmegaConfBaseException) as error:
        return explain(str(error))
    except ConfigError as error:
        return str(error)
    raise AssertionError(f"{overrides} was accepted")


def split(name):
    """The method and the speed in the file name of a point."""
    speed = max((speed for speed in options("speed") if name.endswith(f"_{speed}")), key=len)
    return name.removesuffix(f"_{speed}"), speed


def loaded(group, option):
    return OmegaConf.create(in_full(group, option))


# --- what is on the menu ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", options("model"))
def test_every_model_composes_and_names_itself(model):
    run, backbone, settings, _ = checked(f"model={model}", "method=original")
    assert settings.name == model and isinstance(settings, backbone.Settings)
    assert isinstance(run, Run)
    if model.endswith("_mid"):
        assert settings.weights == "random"
    else:
        assert settings.weights == "pretrained" and settings.checkpoint


@pytest.mark.parametrize("method", options("method"))
def test_every_method_composes_where_its_open_values_are_given(method):
    config = loaded("method", method)
    types = {f.name: str(f.type) for f in fields(get_class(config["_target_"]))}
    missing = [str(key) for key in config if OmegaConf.is_missing(config, key)]
    values = {key: "[1.0]" if types[key].startswith("list") else "0.1" for key in missing}
    _, _, _, made = checked(f"method={method}", *(f"method.{key}={value}" for key, value in values.items()))
    assert isinstance(made, Method)


@pytest.mark.parametrize("group", ["model", "method"])
def test_every_line_of_a_yaml_that_is_no_plain_value_is_explained(group):
    for option in options(group):
        first = (CONF / group / f"{option}.yaml").read_text().splitlines()[0]
        assert first.startswith("# ") and first.endswith("."), option


@pytest.mark.parametrize("experiment", options("experiment"))
def test_every_experiment_composes(experiment):
    config = compose("config", overrides=[f"experiment={experiment}"], return_hydra_config=True)
    params = config.hydra.sweeper.params or {}
    for group in {"model", "method", "speed"} & set(params):
        for choice in str(params[group]).split(","):
            assert choice.strip() in options(group), choice


@pytest.mark.parametrize("point", some({p: p for p in POINTS}, lambda point: point.endswith("_fast.yaml")))
def test_every_operating_point_composes_and_says_where_it_comes_from(point):
    model, name = point.removesuffix(".yaml").split("/")
    method, speed = split(name)
    assert model in options("model") and method in options("method") and speed in options("speed")
    own = OmegaConf.load(CONF / "point" / point)
    run, _, _, made = checked(f"model={model}", f"method={method}", f"speed={speed}")
    for key, value in own.get("method", {}).items():
        assert getattr(made, key) == value
    assert "estimated" in own.point and own.point.why
    assert run.point.estimated == own.point.estimated and run.point.why == own.point.why
    if model == "skyreels":
        printed = {"time_s", "lpips", "ssim", "psnr"}  # Table 2 has no FLOPs
        assert set(run.point.expects) == printed | (set() if speed.startswith("table2_row") else {"flops_pf"})


@pytest.mark.parametrize("method", ["scope", "teacache"])
def test_slow_skips_less_than_fast_on_the_published_model(method):
    knob = {"scope": "tau_predict", "teacache": "threshold"}[method]
    slow, fast = (checked("model=skyreels", f"method={method}", f"speed={speed}")[3] for speed in ("slow", "fast"))
    assert getattr(slow, knob) < getattr(fast, knob)


def test_published_setting():
    _, _, settings, _ = checked("model=skyreels", "method=original")
    assert (settings.frames, settings.base_frames, settings.overlap, settings.steps) == (257, 97, 17, 50)
    assert (settings.ar_step, settings.block, settings.attention) == (5, 5, "full")
    assert (settings.guidance, settings.shift, settings.addnoise, settings.fps) == (6.0, 8.0, 20, 24)


# --- what is refused, before a model is built -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "overrides,words",
    [
        (["method=scop"], "method=scop is not on the menu; did you mean scope?"),
        (["method=scope", "speed=row1"], "speed=row1 is not on the menu; did you mean table2_row1?"),
        (["model=skyreel"], "model=skyreel is not on the menu; did you mean skyreels?"),
        (["method=zzz"], "method=zzz is not on the menu; there are: "),
        (["method=scope", "method.tau_cach=0.1"], "method.tau_cach is not a setting; did you mean method.tau_cache?"),
        (["model.frame=97"], "model.frame is not a setting; did you mean model.frames?"),
        (["sedes=[1]"], "sedes is not a setting; did you mean seeds?"),
        (["method=scope", *TAUS, "+method.tau_cach=0.1"], "is not a setting of Scope; did you mean tau_cache?"),
        (["method=scope", "method.tau_predict=0.3", "method.tau_cache=abc"], "method.tau_cache: Value 'abc'"),
        (["method=scope", *TAUS, "method.max_skip=many"], "method.max_skip: Value 'many'"),
        (["method=scope", *TAUS, "method.tau_cache=0.4"], "want 0 <= tau_cache <= tau_predict, got tau_cache=0.4"),
        (["method=scope", *TAUS, "method.tau_cache=-0.1"], "got tau_cache=-0.1"),
        (["method=scope", *TAUS, "method.tau_predict=nan"], "tau_predict=nan"),
        (["method=scope", *TAUS, "method.predictor=newton3"], "predictor is one of taylor1"),
        (["method=teacache", "method.threshold=-1"], "threshold must be at least 0"),
        (["method=teacache", "method.threshold=nan"], "got nan"),
        (["method=scope", "speed=none"], "method.tau_cache has no value"),
        (["method=uniform", "method.interval=0"], "interval must be at least 1"),
        (["model=skyreels", "model.frames=250"], "the nearest that does is 257"),
        (["model=skyreels", "model.frames=480"], "the nearest that does is 477"),
        (["model.height=100"], "model.height must be a multiple of 16, got 100; nearest: 96"),
        (["model.width=72"], "model.width must be a multiple of 16, got 72; nearest: 64"),
        (["model.height=0"], "nearest: 16"),
        (["model.attention=causal"], "model.attention is one of full, block_causal"),
        (["model.weights=none"], "model.weights is one of pretrained, random"),
        (["model.precision=fp16"], "model.precision is one of fp32, bf16"),
        (["model.steps=0"], "model.steps must be at least 1"),
        (["model.ar_step=-1"], "model.ar_step must be 0"),
        (["model.guidance=0.5"], "model.guidance must be at least 1"),
        (["model.guidance=nan"], "model.guidance must be at least 1"),
        (["model.addnoise=100"], "model.addnoise is a timestep between 0 and 60"),
        (["seeds=[]"], "seeds is empty"),
        (["seeds=[a]"], "seeds"),
        (["model._target_=pathlib.Path"], "which is not a backbone"),
        (["method._target_=pathlib.Path"], "which is not a subclass of engine.method.Method"),
        (["method._target_=no.such.Thing"], "method._target_ cannot be imported"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_bad_command_line_is_refused_in_one_line(overrides, words):
    line = refused(*overrides)
    assert words in line and "\n" not in line and len(line) < 700  # the menu of methods alone is long


def test_nearest_names_the_menu_if_nothing_is_near():
    assert nearest("scpoe", ["scope", "uniform"]) == "; did you mean scope?"
    assert nearest("xyz", ["scope", "uniform"]) == "; there are: scope, uniform"


# --- prompts and devices ----------------------------------------------------------------------------------------------

HARD = ["say \"hi\" / \\ 'there'", "../../etc/passwd", "🦊 über <script>alert(1)</script>", "x" * 2000, "a  b\tc"]


def test_prompts_come_from_the_file_then_the_list_in_order(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("# a comment\n\none\n  two  \n" + "\n".join(HARD[:3]), encoding="utf-8")
    assert read_prompts(Prompts(file=str(file))) == ["one", "two", *HARD[:3]]
    assert read_prompts(Prompts(list=HARD)) == HARD
    assert read_prompts(Prompts(file=str(file), list=["zero"], limit=2)) == ["zero", "one"]


def test_a_relative_prompt_file_is_also_looked_for_beside_the_program(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(read_prompts(Prompts(file="conf/prompts/shapes.txt"))) >= 64
    Path("conf/prompts").mkdir(parents=True)
    Path("conf/prompts/shapes.txt").write_text("mine\n")
    assert read_prompts(Prompts(file="conf/prompts/shapes.txt")) == ["mine"]


@pytest.mark.parametrize("content", ["", "\n\n", "# only a comment\n", None])
def test_no_prompt_is_refused_and_says_where(tmp_path, content):
    file = tmp_path / "none.txt"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match=r"none.txt (has no prompts|does not exist)"):
        read_prompts(Prompts(file=str(file)))


def test_no_prompts_at_all_is_refused():
    with pytest.raises(ConfigError, match=r"no prompts: give prompts.file"):
        read_prompts(Prompts())


def test_a_device_that_is_not_here_is_refused(monkeypatch):
    assert device_of("cpu") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of("auto") == "cpu"
    with pytest.raises(ConfigError, match="sees no GPU; use device=cpu"):
        device_of("cuda")
    with pytest.raises(ConfigError, match="device=gpu is unknown; want auto, cpu, cuda"):
        device_of("gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert device_of("cuda:0") == "cuda:0"
    with pytest.raises(ConfigError, match="there are only 1 GPUs"):
        device_of("cuda:1")


def test_infinity_is_a_value_and_none_of_json():
    _, _, _, method = checked("method=scope", *TAUS, "method.clip=inf")
    assert method.clip == math.inf


@pytest.mark.parametrize("model", ["skyreels", "magi1", "skyreels_tiny", "magi1_tiny"])
def test_scope_has_the_papers_own_point_on_every_model(model):
    """The paper states second order, decay 0.75, at most 5 skips, and selective computation if frames are idle."""
    run, _, _, scope = checked(f"model={model}", "method=scope", "speed=paper")
    assert (scope.predictor, scope.decay, scope.max_skip) == ("newton2", 0.75, 5)
    assert (scope.selective, scope.decide_per) == (("prefix", "row") if "skyreels" in model else ("none", "unit"))
    assert run.point.paper and not run.point.turned
    assert run.point.estimated and "does not give" in run.point.why  # its thresholds


@pytest.mark.parametrize(
    "point", some({p: p for p in POINTS if "_tiny/" in p}, lambda point: point.endswith("_fast.yaml"))
)
def test_a_tuned_point_names_what_differs_from_the_same_point_of_the_full_size_model(point):
    model, name = point.removesuffix(".yaml").split("/")
    method, speed = split(name)
    run, _, _, own = checked(f"model={model}", f"method={method}", f"speed={speed}")
    full = checked(f"model={model.removesuffix('_tiny')}", f"method={method}", f"speed={speed}")[3]
    assert run.point.paper or set(run.point.turned) == {
        field.name for field in fields(own) if getattr(own, field.name) != getattr(full, field.name)
    }


@pytest.mark.parametrize("speed", ["slow", "fast"])
@pytest.mark.parametrize("model", ["magi1", "magi1_tiny"])
def test_teacache_reuses_the_pooled_increment_on_magi1_as_released(model, speed):
    method = checked(f"model={model}", "method=teacache", f"speed={speed}")[3]
    assert (method.reuse, method.pool, method.signal, method.fit) == ("increment", "row", "patch_embedding", "none")
    assert method.warmup == 5 and method.cooldown == 1


@pytest.mark.parametrize("speed", ["slow", "fast"])
@pytest.mark.parametrize("model", ["skyreels", "skyreels_tiny"])
def test_flowcache_follows_the_skyreels_release_on_its_models(model, speed):
    method = checked(f"model={model}", "method=flowcache", f"speed={speed}")[3]
    assert (method.reuse, method.signal, method.cooldown) == ("residual", "time_projection", 1)
    assert method.fit != "none" and method.function == "released"


@pytest.mark.parametrize("point", [point for point in POINTS if point.startswith("magi1") and "/scope_" in point])
def test_scope_decides_per_chunk_on_magi1(point):
    model, name = point.removesuffix(".yaml").split("/")
    method = checked(f"model={model}", "method=scope", f"speed={name.removeprefix('scope_')}")[3]
    assert method.decide_per == "unit"


UNSTATED = (
    "adacache",
    "arcache",
    "bwcache",
    "cfg_cache",
    "easycache",
    "first_block_cache",
    "magcache",
    "motioncache",
    "pab",
    "predit",
    "taylorseer",
)


SIZES = [name for name in options("model") if name.removesuffix("_tiny") not in ("skyreels", "magi1", "far")]


@pytest.mark.parametrize("model", some({name: name for name in options("model")}, lambda name: name not in SIZES))
def test_default_numbers_that_no_source_states_for_a_model_are_marked_on_every_model(model):
    assert set(UNSTATED) <= set(options("unstated"))
    for method in UNSTATED:
        name = f"{model}/{method}_fast.yaml"
        own = OmegaConf.load(CONF / "point" / name).point if name in POINTS else None
        ratios = ["method.ratios=[1.0]"] if method == "magcache" else []
        run = checked(f"model={model}", f"method={method}", *ratios)[0]
        assert run.point.estimated == (own is None or own.estimated) and run.point.why and not run.point.paper, method
        assert own is None or run.point.why == own.why, "a model's own point says where its numbers come from"


@pytest.mark.parametrize("speed", ["none", "slow"])
def test_default_numbers_are_marked_at_any_speed(speed):
    assert checked("model=magi1", "method=pab", f"speed={speed}")[0].point.estimated


def test_a_mark_of_default_numbers_changes_no_setting():
    for method in options("unstated"):
        assert set(loaded("unstated", method)) == {"point"} and method in options("method")


def test_taylorseers_defaults_are_those_of_its_release_for_wan():
    method = checked("model=skyreels", "method=taylorseer", "speed=none")[3]
    assert (method.interval, method.order, method.warmup, method.cooldown, method.variant) == (5, 1, 1, 0, "full")


def test_a_prefix_counts_by_its_content_and_one_that_is_not_there_is_refused(tmp_path):
    from PIL import Image

    from sweep import api

    def key(name, colour):
        Image.new("RGB", (8, 8), colour).save(tmp_path / name)
        (job,) = api.cell_of("model=far_tiny", f"model.prefix={tmp_path / name}", "prompts.limit=1").jobs()
        assert str(tmp_path) not in str(job.produced_by)
        return job.key

    assert key("a.png", "red") == key("b.png", "red") != key("a.png", "blue")
    with pytest.raises(ConfigError, match=r"no prefix at .*c.png; give an image or a video with model.prefix=FILE"):
        api.cell_of("model=magi1_tiny", f"model.prefix={tmp_path / 'c.png'}")
