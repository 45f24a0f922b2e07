"""What is told before a model is built: without torch, and equal to what the classes themselves say."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import SkyReelsV2Transformer3DModel, UniPCMultistepScheduler

from conf.classes import LIGHT
from engine.deferred import deferred
from engine.fingerprint import Written, code_of
from engine.kept import kept
from models.magi1.backbone import Magi1Backbone
from models.magi1.checkpoint import empty_dit
from models.magi1.config import ModelConfig
from models.magi1.plan import Magi1Plan, parameters
from models.magi1.schedule import time_grid
from models.skyreels.backbone import SkyReelsV2
from models.skyreels.plan import SkyReelsPlan, noise_levels
from models.skyreels.shape import Shape

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "diffusers", "transformers", "matplotlib", "pandas", "wandb")
TELL = f"import runpy, sys; sys.argv = ['run.py', *sys.argv[1:]]\ntry: runpy.run_path({str(ROOT / 'run.py')!r}, "
TELL += f"run_name='__main__')\nfinally: print('IMPORTED', [name for name in {HEAVY} if name in sys.modules])"
LIBRARIES = ("diffusers", "transformers", "torchvision", "cache_dit")
SMALL = {"num_attention_heads": 2, "attention_head_dim": 12, "text_dim": 20, "freq_dim": 8, "ffn_dim": 50}


def imported(*arguments, cwd):
    """The slow modules that a command has imported."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", TELL, *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment)
    line = next(line for line in done.stdout.splitlines() if line.startswith("IMPORTED"))
    return line.removeprefix("IMPORTED "), done


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["method=scop"],
        [
            "-m",
            "model=skyreels,magi1_tiny",
            "method=scope,dsa_proxy",
            "method.tau_cache=0",
            "device=cpu",
            "dry_run=true",
        ],
    ],
    ids=["help", "a typo", "a dry run"],
)
def test_an_answer_that_needs_no_torch_does_not_import_it(arguments, tmp_path):
    found, done = imported(*arguments, cwd=tmp_path)
    assert found == "[]", done.stderr


def test_a_deferred_module_is_imported_when_something_of_it_is_used(monkeypatch):
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    with deferred("colorsys"):
        import colorsys as later
    assert "colorsys" not in sys.modules
    assert later.rgb_to_hsv(0, 0, 0) == (0.0, 0.0, 0) and "colorsys" in sys.modules
    with deferred("colorsys"):
        import colorsys as real
    assert real is sys.modules["colorsys"]


def test_what_is_read_without_torch_imports_nothing_below_it():
    """A module of torch, or a library that imports one, would be loaded twice while a stand-in is in torch's place."""
    files = [path for package in (*LIGHT, "engine") for path in (ROOT / package).rglob("*.py")]
    found = []
    for path in files:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [(path, n) for n in names if n.startswith("torch.") or n.partition(".")[0] in LIBRARIES]
    assert len(files) > 60 and not found


@pytest.mark.parametrize("kind", [SkyReelsV2, Magi1Backbone])
def test_the_code_of_a_class_is_the_same_whether_it_is_imported_or_read(kind):
    assert code_of(Written(kind.__module__, kind.__name__)) == code_of(kind)
    assert f"{kind.__module__}.{kind.__name__}" == kind.BUILDS and kind.__mro__[1] in (SkyReelsPlan, Magi1Plan)


@pytest.mark.parametrize("steps,shift", [(1, 5.0), (7, 1.0), (50, 8.0), (50, 5.0), (250, 3.0)])
def test_noise_levels_are_those_of_the_stock_scheduler(steps, shift):
    stock = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)
    stock.set_timesteps(steps)
    assert noise_levels(steps, shift) == (stock.sigmas.tolist(), stock.timesteps.tolist())


def test_the_times_of_magi1_are_those_of_torch_in_float32():
    for steps in (1, 8, 31, 64, 100):
        u = torch.linspace(0, 1, steps + 1) ** 2
        assert time_grid(steps) == ((1 / 3.0) * u / (1 + (1 / 3.0 - 1) * u)).tolist()


@pytest.mark.parametrize("more", [{}, {"inject_sample_info": True, "out_channels": 6}, {"cross_attn_norm": False}])
def test_the_parameters_of_a_shape_are_those_of_its_class(more):
    shape = SMALL | {"num_layers": 3, "in_channels": 4, "out_channels": 4} | more
    with torch.device("meta"):
        model = SkyReelsV2Transformer3DModel(**shape)
    assert Shape(**shape).parameters == sum(parameter.numel() for parameter in model.parameters())
    config = ModelConfig(num_layers=2, hidden_size=96, num_attention_heads=6, num_query_groups=3, kv_channels=16)
    assert parameters(config) == sum(parameter.numel() for parameter in empty_dit(config).parameters())


def test_a_kept_answer_is_asked_again_when_a_file_has_changed(tmp_path, monkeypatch):
    monkeypatch.setenv("SCOPE_CACHE", str(tmp_path / "cache"))
    file, asked = tmp_path / "weights", []
    file.write_bytes(b"one")

    def ask():
        return kept("what", [file], lambda: str(asked.append(1) or len(asked)))

    assert [ask(), ask()] == ["1", "1"]
    file.write_bytes(b"other")
    assert ask() == "2"
    with pytest.raises(ValueError, match="broken"):
        kept("other", [], lambda: (_ for _ in ()).throw(ValueError("broken")))
    monkeypatch.setenv("SCOPE_CACHE", str(file))  # no folder: nothing is kept, everything is answered
    assert [ask(), ask()] == ["3", "4"]
