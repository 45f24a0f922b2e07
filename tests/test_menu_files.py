"""A YAML of the menu says only where its numbers differ from its dataclass; to Hydra the two are one menu."""

import math
import subprocess
import sys
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.utils import get_class

from conf import fields as source
from conf.errors import ConfigError
from conf.fields import OPEN, defaults_of
from conf.menu import CONF, GROUPS, in_full
from conf.schema import departures, options, parse
from tests.test_run import call

FILES = [(group, name) for group in GROUPS for name in options(group)]
PLUGIN = """
import math
from dataclasses import dataclass, field
from engine.method import Method
from baselines.uniform import Uniform

@dataclass
class Plain(Method):
    given: float
    limit: float = -math.inf
    marks: list[int] = field(default_factory=lambda: [1, 2])
    text: str = "a"

    def sites(self, depth, row):
        return ()

@dataclass
class Child(Plain):
    text: str = "b"
    more: int = 1

FIVE = 5

@dataclass
class Named(Plain):
    count: int = FIVE

class Undecorated(Uniform):
    text: str = "is no field"
"""


@pytest.fixture
def hydra():
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


@pytest.fixture
def plugin(tmp_path, monkeypatch, hydra):
    """A function that writes a method into a folder for --config-dir and composes it. The folder has its own
    classes."""
    (tmp_path / "method").mkdir()
    (tmp_path / "menu_plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path))

    def composed(content, *overrides):
        for name, text in content.items():
            (tmp_path / "method" / f"{name}.yaml").write_text(yaml.safe_dump(text))
        words = [f"hydra.searchpath=[file://{tmp_path}]", f"method={next(iter(content))}", *overrides]
        config = compose("config", overrides=words, return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        return config

    yield composed
    sys.modules.pop("menu_plugin", None)


def kind_of(group, name):
    found = get_class(in_full(group, name)["_target_"])
    return found.Settings if group == "model" else found


def default_of(field):
    return field.default_factory() if field.default_factory is not MISSING else field.default


@pytest.mark.parametrize("group, name", FILES)
def test_no_file_repeats_a_default(group, name):
    """If a file repeats a default, a change of the default does not reach it."""
    known = {f.name: default_of(f) for f in fields(kind_of(group, name))}
    content = yaml.safe_load((CONF / group / f"{name}.yaml").read_text())
    bases = [in_full(group, base) for base in content.pop("defaults", [])]
    expected = {**known, **{k: v for base in bases for k, v in base.items()}}
    for key in content.keys() - {"_target_"}:
        assert key in known and content[key] != OPEN and content[key] != expected[key], key


@pytest.mark.parametrize("group, name", FILES)
def test_a_file_in_full_has_every_setting_of_its_dataclass_in_order(group, name):
    kind, found = kind_of(group, name), in_full(group, name)
    assert is_dataclass(kind)
    assert list(found) == ["_target_", *(f.name for f in fields(kind))]
    assert {k for k, v in found.items() if v == OPEN} <= {f.name for f in fields(kind) if default_of(f) is MISSING}


@pytest.mark.parametrize("target", sorted({str(in_full(*file)["_target_"]) for file in FILES}))
def test_defaults_read_from_the_source_are_those_of_the_class(target, monkeypatch):
    asked = source._imported(target)
    monkeypatch.setattr(source, "_imported", lambda target: pytest.fail("the source is not plain: torch is imported"))
    found = defaults_of(target)
    assert list(found.items()) == list(asked.items())
    assert {k: type(v) for k, v in found.items()} == {k: type(v) for k, v in asked.items()}


def test_the_menu_is_complete_without_importing_torch():
    program = (
        "import sys; from conf.menu import in_full; assert in_full('method', 'scope')['max_skip'] == 5; "
        "assert in_full('model', 'skyreels')['steps'] == 50; assert not {'torch', 'diffusers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=CONF.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_setting_that_no_file_names_is_overridden_and_an_unknown_one_refused(hydra):
    assert not {"max_skip", "tau_cache"} & set(yaml.safe_load((CONF / "method" / "scope.yaml").read_text()))
    words = ["method=scope", "method.tau_cache=0.1", "method.tau_predict=0.2", "method.max_skip=3", "model.frames=97"]
    config = compose("config", overrides=words)
    _, _, settings, method = parse(config)
    assert (method.tau_cache, method.max_skip, settings.frames) == (0.1, 3, 97)
    assert config.method.decay == 0.75 and config.model.steps == 50, "what nobody changed is there as well"
    with pytest.raises(HydraException, match=r"method\.max_skp"):
        compose("config", overrides=["method=scope", "method.max_skp=3"])


def test_cfg_job_prints_every_setting():
    said = call("--cfg", "job", "method=scope", "speed=fast")
    printed = yaml.safe_load(said.out)
    assert list(printed["method"]) == list(in_full("method", "scope")) and printed["method"]["tau_cache"] > 0
    assert list(printed["model"]) == list(in_full("model", "skyreels_tiny"))


def test_a_sweep_over_settings_that_no_file_names(tmp_path):
    words = ["method=uniform", "method.order=0,1", "model.frames=97", f"results={tmp_path}", "dry_run=true"]
    said = call("-m", *words, "prompts.limit=1", "--json")
    assert said.status == 0, said.err
    assert sum(line.startswith("{") for line in said.out.splitlines()) == 2


def test_a_plugin_that_names_no_setting_is_complete(plugin):
    config = plugin({"own": {"_target_": "menu_plugin.Plain"}}, "method.given=2.0", "method.text=c")
    assert dict(config.method) == {
        "_target_": "menu_plugin.Plain",
        "given": 2.0,
        "limit": -math.inf,
        "marks": [1, 2],
        "text": "c",
    }
    assert departures(config) == {"method.given": 2.0, "method.text": "c"}


def test_a_file_that_builds_on_another_says_the_last_word(plugin):
    """The class of the outer file gives the defaults; explicit values of the inner file replace them."""
    inner = {"_target_": "menu_plugin.Plain", "given": 2.0, "limit": 3.0}
    outer = {"defaults": ["inner"], "_target_": "menu_plugin.Child", "limit": 4.0}
    config = plugin({"outer": outer, "inner": inner})
    found = {k: v for k, v in config.method.items() if k != "_target_"}
    assert found == {"given": 2.0, "limit": 4.0, "marks": [1, 2], "text": "b", "more": 1}
    assert departures(config) == {}
    ours = plugin({"mine": {"defaults": ["uniform"], "order": 1}})
    assert (ours.method.interval, ours.method.order, ours.method.reuse) == (4.0, 1, "velocity")


@pytest.mark.parametrize(
    "content, words",
    [
        (
            {"outer": {"defaults": ["unifrom"]}},
            "outer.yaml builds on unifrom, which is not there; did you mean uni",
        ),
        ({"a": {"defaults": ["b"]}, "b": {"defaults": ["a"]}}, r"a.yaml builds on itself \(a > b > a\)"),
    ],
)
def test_a_file_that_builds_on_nothing_or_on_itself_is_refused(plugin, content, words):
    with pytest.raises(ConfigError, match=words):
        plugin(content)


def test_a_class_whose_source_is_not_plain_is_imported(plugin):
    plugin({"own": {"_target_": "menu_plugin.Plain"}}, "method.given=1")  # puts the module on the path
    assert defaults_of("menu_plugin.Named")["count"] == 5
    assert defaults_of("menu_plugin.Undecorated") == defaults_of("baselines.uniform.Uniform")
    assert defaults_of("menu_plugin.Nothing") == {} == defaults_of("no.such.Thing") == defaults_of("pathlib.Path")


def test_models_that_share_settings_say_them_once():
    """`skyreels_mid` equals `skyreels` except for the settings in its file."""
    whole, small = in_full("model", "skyreels"), in_full("model", "skyreels_mid")
    said = yaml.safe_load(Path(CONF / "model" / "skyreels_mid.yaml").read_text())
    assert {k for k in whole if whole[k] != small[k]} == said.keys() - {"defaults"}
    assert small["architecture"] == {**whole["architecture"], **said["architecture"]}
