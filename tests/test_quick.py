"""What is composed quickly is what Hydra composes, and a file that has changed is read again."""

import copy
import json
import os

import hydra
import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf, open_dict

import run
from conf import quick
from conf.menu import CONF
from conf.quick import once
from conf.schema import departures
from tests.test_run import call

SWEEPS = [
    ["-m", "method=original,scope", "speed=slow,fast", "seeds=[1,2]"],
    ["-m", "model=magi1_tiny", "method=uniform", "method.interval=2,'3'", "+extra.key=a b", "hydra.verbose=false"],
    ["-m", "experiment=calibrate", "method=teacache", "~prompts", "+prompts=shapes", "target=flops:0.4"],
    ["-m", "method=composite", "method.parts={scope:{_target_:scope.method.Scope}}", "logger=tensorboard"],
]


@pytest.fixture
def seen(monkeypatch, tmp_path):
    """The cells of a command line as run.py gets them: settings, choices by group, departures from the menu."""

    def cells(arguments):
        found = []

        def take(config):
            choices = {k: v for k, v in HydraConfig.get().runtime.choices.items() if not k.startswith("hydra/")}
            found.append((OmegaConf.to_container(config), choices, _departures(config)))

        command = hydra.main(version_base="1.3", config_path="../conf", config_name="config")(take)
        monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
        monkeypatch.setattr("sys.argv", ["run.py", *run.planning(arguments, str(tmp_path))])
        command()
        return found

    return cells


def _departures(config):
    try:
        return departures(config)
    except Exception as error:
        return str(error)


def by_hydra(arguments):
    """The same cells, each composed by Hydra alone from its own overrides."""
    lines = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(arguments[1:]), None)[0]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for line in lines:
            config = compose("config", overrides=line, return_hydra_config=True)
            HydraConfig.instance().set_config(config)
            choices = {k: v for k, v in config.hydra.runtime.choices.items() if not k.startswith("hydra/")}
            with open_dict(config):
                del config["hydra"]
            yield OmegaConf.to_container(config), choices, _departures(config)


@pytest.mark.parametrize("arguments", SWEEPS, ids=lambda line: line[1])
def test_the_cells_of_a_sweep_are_those_of_hydra(arguments, seen):
    assert seen(arguments) == list(by_hydra(arguments))


@pytest.mark.parametrize("wrong", ["method=scop", "method.tau=1", "group/none=a", "+method=scope", "~method=teacache"])
def test_what_hydra_refuses_is_refused(wrong, seen):
    with pytest.raises(Exception) as theirs:
        list(by_hydra(["-m", "seeds=[0],[1]", wrong]))
    with pytest.raises(type(theirs.value)) as ours:
        seen(["-m", "seeds=[0],[1]", wrong])
    assert str(ours.value).partition("Config search path")[0] == str(theirs.value).partition("Config search path")[0]


def test_a_file_is_read_again_only_after_it_has_changed(tmp_path):
    path, reads = tmp_path / "a.yaml", []
    path.write_text("a: 1")

    def read():
        reads.append(path.read_text())
        return {"text": reads[-1]}

    first = once("text", f"{path}", read)
    first["text"] = "changed by the caller"
    assert once("text", f"{path}", read) == {"text": "a: 1"} and len(reads) == 1
    path.write_text("a: 2")
    os.utime(path, ns=(0, 1))
    assert once("text", f"{path}", read) == {"text": "a: 2"} and len(reads) == 2
    assert once("text", "no such file", lambda: {"a": 1}) == {"a": 1}


def test_questions_to_the_menu_share_its_sources():
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
    assert isinstance(loader, ConfigLoaderImpl)
    twin = copy.deepcopy(loader.repository)
    assert twin.sources == loader.repository.sources and twin.sources is not loader.repository.sources


def test_the_sweeps_of_a_command_share_hydras_settings_and_nothing_else(seen, monkeypatch):
    quick.begin()
    masters, load = [], quick._load

    def counted(loader, config_name, overrides, run_mode, **more):
        masters.append(overrides)
        return load(loader, config_name, overrides, run_mode, **more)

    monkeypatch.setattr(quick, "_load", counted)
    lines = [
        ["-m", "model=magi1_tiny", "method=teacache", "method.threshold=0.1,0.2", "seeds=[1]"],
        ["-m", "method=scope", "speed=slow,fast", "prompts.limit=2", "seeds=[1]"],
        ["-m", "model=far_tiny", "method=original", "seeds=[1]"],
    ]
    found = [seen(line) for line in lines]
    assert len(masters) == 1
    assert seen(["-m", "method=original", "seeds=[2]"]) and len(masters) == 2
    monkeypatch.undo()
    assert found == [list(by_hydra(line)) for line in lines]


@pytest.mark.parametrize("wrong", ["method=scop", "method.tau=1", "prompts=none"])
def test_what_hydra_refuses_is_refused_in_a_later_sweep_too(wrong, seen):
    quick.begin()
    assert seen(["-m", "method=scope", "speed=slow"])
    with pytest.raises(Exception) as theirs:
        list(by_hydra(["-m", "speed=slow", wrong]))
    with pytest.raises(type(theirs.value)) as ours:
        seen(["-m", "speed=slow", wrong])
    assert str(ours.value).partition("Config search path")[0] == str(theirs.value).partition("Config search path")[0]


def test_a_menu_that_changes_between_two_commands_is_read_again(tmp_path):
    (tmp_path / "method").mkdir()
    menu, said = tmp_path / "method" / "mine.yaml", []
    for interval in (2, 4):
        menu.write_text(f"_target_: baselines.uniform.Uniform\ninterval: {interval}\n")
        os.utime(menu, ns=(interval, interval))
        answer = call("--config-dir", tmp_path, "-m", "method=mine", "dry_run=true", "device=cpu", "--json")
        said.append(json.loads(answer.out.splitlines()[-1])["planned_forwards"])
    assert said[0] > said[1]


def test_help_lists_what_hydra_lists(tmp_path, monkeypatch):
    """Each group once, also those of a plugged-in menu and of one that is a link."""
    (tmp_path / "menu" / "method" / "inner").mkdir(parents=True)
    (tmp_path / "menu" / "method" / "mine.yaml").write_text("a: 1\n")
    (tmp_path / "menu" / "method" / "note.txt").write_text("no option\n")
    (tmp_path / "linked").symlink_to(tmp_path / "menu")
    said = call("--config-dir", tmp_path / "linked", "--help").out
    (methods,) = [line for line in said.splitlines() if line.startswith("method: ")]
    assert " mine, " in methods and "note" not in methods and "inner" not in methods
    monkeypatch.setattr(ConfigLoaderImpl, "get_group_options", quick._options_of)
    assert call("--config-dir", tmp_path / "linked", "--help").out == said
