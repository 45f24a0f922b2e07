"""The doctor lists what is ready, what is missing and the remedy; its exit status says whether the model can run."""

import numpy as np
import pytest

from sweep import doctor
from sweep.doctor import MISSING, OK, WARNING, examine, main


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """The doctor starts no other programs."""
    monkeypatch.setattr(doctor, "_said", lambda *command: None)


def found(*words):
    return {finding.what: finding for finding in examine(words)}


def test_the_shipped_model_can_run_and_every_line_has_a_state(tmp_path, capsys):
    assert main(["model=skyreels_tiny", f"results={tmp_path / 'r'}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "ready: model=skyreels_tiny can run here" and not (tmp_path / "r").exists()
    assert all(line.split()[0] in (OK, WARNING) for line in lines[:-1])
    named = {line.split()[1] for line in lines[:-1]}
    assert {"Python", "torch", "GPU", "weights", "free", "codecs", "LPIPS", "VBench", "W&B", "SLURM", "ray"} <= named


def test_missing_weights_come_with_the_command_that_gets_them(tmp_path, capsys):
    assert main(["model=skyreels", "model.checkpoint=nobody/nothing", f"results={tmp_path}"]) == 1
    said = capsys.readouterr().out
    line = next(line for line in said.splitlines() if line.startswith(MISSING))
    assert "weights" in line and "hf download nobody/nothing" in line
    assert said.splitlines()[-1].startswith("not ready: weights is missing; first ")


@pytest.mark.parametrize(
    "words,said",
    [
        (["model=skyreel"], "mean skyreels"),
        (["prompts=2"], "prompts is not a setting"),
        (["model"], "model is not a setting"),
    ],
)
def test_a_wrong_word_is_status_2(words, said, capsys):
    assert main(words) == 2 and said in capsys.readouterr().err


def test_settings_that_cannot_be_run_are_a_finding(tmp_path):
    finding = found("model=skyreels_tiny", "model.frames=100", f"results={tmp_path}")["model"]
    assert finding.state == MISSING and "model.frames=100" in finding.found


def test_a_codec_that_loses_a_byte_is_missing(monkeypatch):
    real = doctor.read
    monkeypatch.setattr(doctor, "read", lambda path: (np.bitwise_xor(batch, 1) for batch in real(path)))
    assert found()["codecs"].state == MISSING


def test_a_full_disk_is_missing_and_a_small_one_a_warning(monkeypatch, tmp_path):
    for free, state in ((10, MISSING), (10**6 * 5, WARNING), (10**12, OK)):
        monkeypatch.setattr("shutil.disk_usage", lambda path, free=free: type("Usage", (), {"free": free}))
        assert found("model=skyreels_tiny", f"results={tmp_path}")["free disk"].state == state


def test_results_that_cannot_be_written_are_missing(tmp_path):
    (tmp_path / "file").write_text("")
    finding = found("model=skyreels_tiny", f"results={tmp_path / 'file'}")["results"]
    assert finding.state == MISSING and "choose another results=FOLDER" in finding.found


def test_a_check_that_breaks_is_a_line_and_stops_no_other(monkeypatch):
    monkeypatch.setattr(doctor, "_codecs", lambda: 1 / 0)
    findings = found()
    assert any("ZeroDivisionError" in f.found and f.state == MISSING for f in findings.values()) and "LPIPS" in findings


def test_vbench_that_is_not_installed_is_a_warning_and_says_what_to_run(monkeypatch, tmp_path):
    monkeypatch.setenv("SCOPE_VBENCH", str(tmp_path))
    finding = found("model=skyreels_tiny", f"results={tmp_path}")["VBench"]
    assert finding.state == WARNING and "python -m eval.vbench setup" in finding.found
    (tmp_path / "installed.json").write_text('{"requirements": []}')
    assert "other requirements" in found("model=skyreels_tiny", f"results={tmp_path}")["VBench"].found


def test_a_driver_without_a_gpu_for_torch_is_explained(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(doctor, "_said", lambda *command: "550.1" if command[0] == "nvidia-smi" else None)
    gpu = found()["GPU"]
    assert gpu.state == WARNING and "driver 550.1" in gpu.found and "CUDA" in gpu.remedy


LARGE = [f"model.architecture.{size}" for size in ("num_attention_heads=40", "ffn_dim=13824", "num_layers=40")]  # 14B
RANDOM = ["model.weights=random"]  # no text encoder


@pytest.mark.parametrize(
    "words, measured",
    [
        (["model=skyreels"], 13.9),
        (["model=skyreels", "model.frames=97"], 13.9),
        (["model=skyreels", *LARGE, "model.height=720", "model.width=1280"], 48.1),
        (["model=magi1"], 20.6),
        (["model=magi1", "model.frames=480"], 28.2),
        (["model=magi1", *RANDOM, "model.distill=false", "model.kv_range=[5,4,3,2]"], 18.0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_memory_that_a_video_takes_is_predicted_at_every_size(words, measured):
    """GB that were measured on a simulated GPU, denoising and decoding."""
    assert doctor._composed(words).model.peak_bytes / 1e9 == pytest.approx(measured, rel=0.025)


@pytest.mark.parametrize(
    "smaller",
    [["model.height=272", "model.width=480"], ["model.base_frames=37", "model.frames=37"]],
    ids=" ".join,
)
def test_a_smaller_setting_is_predicted_to_take_less(smaller):
    full, small = (doctor._composed(["model=skyreels", *RANDOM, *words]).model for words in ([], smaller))
    decoding = small.settings.height == full.settings.height  # which sees no window
    assert small.peak_bytes < 0.7 * full.peak_bytes or (decoding and small.peak_bytes == full.peak_bytes)
    encoding = doctor._composed(["model=skyreels", *smaller]).model.peak_bytes
    assert encoding == max(11.4e9, small.peak_bytes), "the text encoder is on the device first"
