"""The memory of a video is told before it is launched, and the doctor says what is lacking and which switch helps."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from baselines.shared.library_memory import bytes_per_slot
from benchmarks.rehearsal import SETTINGS
from benchmarks.rehearsal_table import read
from conf.schema import ConfigError, device_of
from engine.footprint import Footprint, Sizes
from engine.produce import warm_up
from sweep import api, doctor
from sweep.finding import MISSING, OK, WARNING
from sweep.gpu_checks import gpus, memory_line
from sweep.peaks import GB, Memory, memory, state_bytes
from tests import tiny
from tests.menu import MENU, make, size_of
from tests.pretended_device import pretended
from tests.test_menu_identities import SMALL


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Nothing that an earlier run found."""
    monkeypatch.setenv("SCOPE_CACHE", str(tmp_path))


@pytest.mark.parametrize(
    ("words", "denoising", "state"),
    [  # GB on the pretended device at full size (docs/gpu.md)
        ("skyreels original", 6.3, 0),
        ("skyreels teacache", 6.6, 0.31),
        ("skyreels pab", 25.1, 18.8),
        ("skyreels adacache", 34.5, 28.2),
        ("skyreels taylorseer", 62.7, 56.4),
        ("skyreels scope method.decide_per=unit method.selective=none", 25.0, 0.04),
        ("magi1 original", 20.6, 0),
        ("magi1 scope", 20.9, 0.28),
        ("magi1 pab", 32.0, 11.28),
        ("magi1 taylorseer", 54.6, 33.84),
    ],
)
def test_peak_and_state_are_those_of_the_rehearsal(words, denoising, state):
    model, method, *more = words.split()
    cell = api.cell_of(f"model={model}", f"method={method}", "model.weights=random", "device=cpu", *more)
    found = memory(cell.model, cell.method)
    assert found.denoising / GB == pytest.approx(denoising, rel=0.04)
    assert found.state / GB == pytest.approx(state, rel=0.02, abs=0.02)


REHEARSED = read(Path(__file__).parents[1] / "docs" / "rehearsal.csv")


@pytest.mark.parametrize(
    "line", [of for of in REHEARSED if of["peak_gb"] and of["method"].startswith("external_")], ids=str
)
def test_what_the_hooks_of_a_library_hold_follows_from_their_options_as_it_was_rehearsed(line):
    method, *more = line["method"].split()
    settings = ("model=skyreels", *SETTINGS["skyreels"], "model.weights=random", "device=cpu", *more)
    cell = api.cell_of(f"method={method}", *settings)
    found = memory(cell.model, cell.method)
    assert found.denoising / GB == pytest.approx(float(line["peak_gb"]), rel=0.02)
    assert found.state / GB == pytest.approx(float(line["state_gb"]), rel=0.02, abs=0.005)


def test_options_change_what_the_hooks_hold_and_an_unknown_module_is_not_guessed():
    sizes, hidden = Sizes(tokens=10, width=6, latent=64, itemsize=2), 60
    taylor = {"max_order": 1, "cache_identifiers": [r"blocks\.\d+\.attn1"]}

    def held(technique, options):
        return bytes_per_slot(technique, options, sizes, depth=3, branches=2)

    assert held("taylorseer", taylor) == 2 * 2 * 3 * hidden * 2
    assert held("taylorseer", taylor | {"max_order": 2}) == 1.5 * held("taylorseer", taylor)
    assert held("taylorseer", taylor | {"taylor_factors_dtype": "float32"}) == 2 * held("taylorseer", taylor)
    assert held("taylorseer", {"use_lite_mode": True}) == 2 * 2 * 64 * 2
    assert held("taylorseer", {"cache_identifiers": [r".*"]}) is None and held("taylorseer", {}) is None
    assert held("sea_cache", {"residual_order": 0}) == 2 * (hidden + 64) * 2
    assert held("pyramid_attention_broadcast", {"cross_attention_block_skip_range": 2}) == 3 * hidden * 2


@pytest.mark.parametrize("method", ["scope", "adacache", "bwcache", "dicache", "first_block_cache", "taylorseer"])
def test_the_state_is_counted_as_a_real_video_holds_it(method):
    model, made = tiny.build(**SMALL), make(method, MENU[method].on)
    thought = state_bytes(model, made)
    tiny.video(model, made)
    real = sum(t.numel() * t.element_size() for t in made.state())
    assert thought == pytest.approx(real, rel=0.1, abs=64 * size_of(model).steps)


@pytest.mark.parametrize("model", ["skyreels_mid"])
def test_a_mid_presets_peak_is_predicted_within_a_tenth(model):
    """Against the bytes that a real forward holds on the pretended device."""
    from benchmarks.common import composed

    with pretended("meta") as card:
        _, real, _ = composed([f"model={model}", "method=original", "device=cuda"])
        real.load()
        text = real.conditioning("a fox", real.texts(["a fox"]))
        card.restart()
        warm_up(real, text)
        held = sum(x.numel() * x.element_size() for x in real.vae.parameters())
        stages = real.footprint(real.schedule())
        assert stages.denoising - 0.51e9 * (8 / 96) ** 2 == pytest.approx(card.peak - held, rel=0.1)


def test_exact_selection_keeps_settled_slots_and_a_decision_per_unit_keeps_the_window():
    causal = ("model.attention=block_causal", "model.overlap_noise=segment", "model.weights=random", "device=cpu")

    def peak(*words):
        cell = api.cell_of("model=skyreels", *causal, *words)
        return memory(cell.model, cell.method).stages.denoising / GB

    original, exact = peak("method=original"), peak("method=lossless")
    unit = peak("method=scope", "method.decide_per=unit", "method.selective=none")
    slot = 0.752
    assert unit - original == pytest.approx(25 * slot, rel=0.01)
    assert 12 * slot < exact - original < 20 * slot


@pytest.mark.parametrize(
    ("model", "parameters", "pflop", "peak"),
    [
        ("skyreels_14b_540p", 14.29, 1349, 39.6),
        ("skyreels_14b_720p", 14.29, 3531, 47.7),
        ("magi1_base", 4.46, 140, 19.0),
        ("magi1_24b_base", 23.9, 623, 60.1),
        ("magi1_24b_distill", 23.9, 324, 65.4),
    ],
)
def test_every_published_size_has_a_plan_and_its_memory(model, parameters, pflop, peak):
    found = api.plan(f"model={model}", "device=cpu", results="nowhere")
    assert found["parameters"] / 1e9 == pytest.approx(parameters, rel=0.005)
    assert found["planned_pf"]["dense"] == pytest.approx(pflop, rel=0.005)
    assert found["memory_gb"]["most"] == pytest.approx(peak, rel=0.01)
    assert found["memory_gb"]["fits"]["80 GB"] == "yes" and found["memory_gb"]["fits"]["24 GB"] == (
        "yes" if peak < 22 else "no"
    )


def of(encoding=0, loading=0, denoising=0, decoding=0, state=0, denoiser=0):
    return Memory(Footprint(*(GB * x for x in (encoding, loading, denoising, decoding, denoiser))), int(GB * state))


@pytest.mark.parametrize(
    ("wanted", "there", "state", "remedy"),
    [
        (of(11.4, 3.4, 6.1, 7), 24, OK, ""),
        (of(11.4, 3.4, 6.1, 7), 10, WARNING, "offload=text"),
        (of(0, 3.4, 6.1, 7, state=56), 24, WARNING, "a method with less memory"),
        (of(0, 3.4, 6.1, 14), 12, WARNING, "model.height"),
        (of(11.4, 3.4, 6.1, 14, denoiser=2.9), 12, WARNING, "offload=all"),
        (of(11.4, 3.4, 12, 14, denoiser=2.9), 12, WARNING, "model.height"),
    ],
)
def test_a_card_that_is_too_small_is_told_what_is_lacking_and_which_switch_helps(wanted, there, state, remedy):
    line = memory_line(wanted, there)
    assert line.state == state and remedy in line.remedy
    assert state == OK or "GB are lacking" in line.remedy


def card(monkeypatch, name="NVIDIA A100", total=80e9, capability=(8, 0), count=1):
    own = SimpleNamespace(name=name, total_memory=total, major=capability[0], minor=capability[1])
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda n: own)
    monkeypatch.setattr("torch.cuda.get_arch_list", lambda: ["sm_75", "sm_80", "sm_90", "compute_90"])


def test_a_mig_slice_is_named_with_its_memory(monkeypatch):
    card(monkeypatch, name="NVIDIA A100-SXM4-80GB MIG 1g.10gb", total=10e9)
    found = {line.what: line for line in gpus(lambda *command: "550.1")}
    assert found["MIG"].state == WARNING and "10 GB" in found["MIG"].found
    assert "CUDA_VISIBLE_DEVICES=MIG-UUID" in found["MIG"].remedy


def test_a_card_without_kernels_in_this_torch_is_missing(monkeypatch):
    card(monkeypatch, name="Tesla V100", capability=(7, 0))
    found = {line.what: line for line in gpus(lambda *command: "550.1")}
    assert found["GPU kernels"].state == MISSING and "sm_70" in found["GPU kernels"].found
    card(monkeypatch)
    assert {line.what for line in gpus(lambda *command: "550.1")} == {"GPU", "driver"}


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({}, "none; the tiny models run on the CPU"),
        ({"driver_version": "470.1", "": "| CUDA Version: 11.4  |"}, "supports CUDA up to 11.4, but torch"),
        ({"driver_version": "550.1", "mig.mode": "Enabled"}, "MIG is on, but torch sees no slice"),
    ],
)
def test_why_torch_sees_no_gpu_is_one_line(monkeypatch, answers, said):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)

    def program(*command):
        asked = " ".join(command[1:])
        return next((answer for key, answer in answers.items() if (key in asked if key else not asked)), None)

    (line,) = gpus(program)
    assert said in line.found and "\n" not in line.found + line.remedy and line.state == WARNING


def test_a_device_that_is_not_there_is_refused_in_one_line(monkeypatch):
    card(monkeypatch, count=2)
    with pytest.raises(ConfigError, match=r"device=cuda:7, but there are only 2 GPUs; the first is cuda:0"):
        device_of("cuda:7")


def test_the_doctor_ends_in_one_line_with_the_first_thing_to_do():
    fine = doctor.Finding("GPU", OK, "A100")
    assert doctor.verdict("skyreels", [fine]) == "ready: model=skyreels can run here"
    missing = doctor.Finding("weights", MISSING, "no weights", "hf download them")
    assert doctor.verdict("skyreels", [fine, missing]) == "not ready: weights is missing; first hf download them"
    wrong = doctor.Finding("model", MISSING, "model.frames=38 does not fill the chunks; the nearest that does is 37")
    assert doctor.verdict("far", [fine, wrong]) == f"not ready: {wrong.found}"
    tight = doctor.Finding("GPU memory", WARNING, "8 GB", "3 GB are lacking: offload=text")
    assert "first see to GPU memory: 3 GB are lacking" in doctor.verdict("skyreels", [tight])
    assert doctor.verdict("skyreels_tiny", [tight]).startswith("ready")


def test_an_unknown_offload_is_refused():
    with pytest.raises(ConfigError, match="offload=cpu is unknown; want none, text"):
        api.cell_of("model=skyreels_tiny", "offload=cpu", "device=cpu")
