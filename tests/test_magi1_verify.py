"""Our MAGI-1 compared with numbers recorded from the official code, and the command that compares them."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.magi1.embed import TimeEmbedder
from models.magi1.recorded import Recording
from models.magi1.recorded_forwards import Forwards
from models.magi1.verify import main, verify

FOLDER = Path(__file__).parent / "fixtures" / "magi1"
SCENARIOS = ("distill", "distill_fullkv", "base_cfg3", "distill_prefix_v2v", "distill_prefix_i2v")
ROLLOUTS = {f"rollout_{name}" for name in SCENARIOS}


@pytest.fixture(scope="module")
def report():
    return verify(FOLDER)["cases"]


def test_every_recorded_number_comes_out(report):
    assert ROLLOUTS | {"reuse_baselines.orig_fullkv", "vae.dec.tiled.out", "vae.enc.tiled.mode"} <= set(report)
    assert {f"dit_forward.ii.{k}.pass{i}" for k in ("distill", "base") for i in (1, 2)} <= set(report)
    assert all(case["passed"] for case in report.values())
    assert max(case["max_abs_error"] for name, case in report.items() if "bf16" not in name) <= 1e-5


def test_bfloat16_is_far_closer_to_the_recording_than_to_float32(report):
    for name in ("dit_forward_bf16.out", "dit_forward_bf16.out_mean"):
        assert report[name]["max_abs_error"] <= report[name]["tolerance"] / 2


def test_the_kernels_that_make_videos_agree_as_well():
    cases = verify(FOLDER, reference=False)["cases"]
    assert all(case["passed"] for case in cases.values())
    assert max(case["max_abs_error"] for name, case in cases.items() if "bf16" not in name) <= 1e-5


def test_a_recording_made_on_another_processor_is_checked_with_its_last_bits(copy):
    """exp() differs there by one unit in the last place; a time of 1000 magnifies the difference."""
    model = Recording(copy).model
    model.t_embedder.last_bits = theirs = {3: -1, 12: 1, 20: 1}
    recorded, forwards = load_file(copy / "dit_forward.safetensors"), Forwards(Recording(copy))
    call = forwards._call(model, forwards._inputs(recorded, "i"), forwards._step_length("distill", "i"))
    recorded["i.distill.condition"] = call.condition[None].detach()
    save_file(recorded, copy / "dit_forward.safetensors")
    assert Recording(copy).model.t_embedder.last_bits == theirs
    assert Recording(copy, reference=False).model.t_embedder.last_bits == TimeEmbedder.last_bits


@pytest.fixture
def copy(tmp_path):
    folder = tmp_path / "recorded"
    shutil.copytree(FOLDER, folder, copy_function=shutil.copyfile)
    for name in ("reuse_baselines", "vae_io", *(f"rollout_{name}" for name in SCENARIOS[1:4])):
        (folder / f"{name}.safetensors").unlink()
    return folder


def _last_line(capsys):
    return json.loads(capsys.readouterr().out.strip().splitlines()[-1])


@pytest.mark.parametrize(
    "file, tensor, case",
    [
        ("dit_forward", "ii.distill.pass2.out", "dit_forward.ii.distill.pass2"),
        ("rollout_distill", "chunk.03", "rollout_distill"),
    ],
)
def test_a_number_that_is_off_fails_its_case_and_no_other(copy, capsys, file, tensor, case):
    recorded = load_file(copy / f"{file}.safetensors")
    recorded[tensor][0, 0, 0, 0, 0] += 1e-3
    save_file(recorded, copy / f"{file}.safetensors")
    assert main([str(copy)]) == 1
    cases = _last_line(capsys)["cases"]
    assert [name for name, entry in cases.items() if not entry["passed"]] == [case]
    assert cases[case]["max_abs_error"] == pytest.approx(1e-3, rel=0.01)


def test_a_recorded_nan_is_a_failure_and_still_valid_json(copy, capsys):
    recorded = load_file(copy / "rollout_distill.safetensors")
    recorded["final_x"][0, 0, 0, 0, 0] = torch.nan
    save_file(recorded, copy / "rollout_distill.safetensors")
    assert main([str(copy)]) == 1
    assert _last_line(capsys)["cases"]["rollout_distill"] == {"max_abs_error": None, "tolerance": 1e-5, "passed": False}


def test_weights_of_another_model_are_named(copy, capsys):
    weights = load_file(copy / "state_dict.safetensors")
    weights["extra"] = weights.pop("rope.bands")
    save_file(weights, copy / "state_dict.safetensors")
    assert main([str(copy)]) == 1
    error = _last_line(capsys)["error"]
    assert "missing: rope.bands" in error and "unexpected: extra" in error and "\n" not in error


def test_a_folder_without_a_recording_is_refused(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    assert "config.json" in _last_line(capsys)["error"]
