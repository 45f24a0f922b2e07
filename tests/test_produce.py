"""One video from noise to frames: the measurements, the state after an error, and the account of its cost."""

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import engine.produce
from baselines.uniform import Uniform
from engine.environment import environment
from engine.fingerprint import code_of
from engine.ledger import flops, plan
from engine.loop import NonFinite, generate
from engine.meter import meter
from engine.method import Method, Original
from engine.produce import Produced, account, produce, warm_up
from models.skyreels import backbone
from scope.method import Scope
from tests.tiny import LONG, build, texts_of
from tests.toy import Toy, run

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def model():
    return build(frames=LONG)


def text_of(model):
    return model.conditioning("a fox", texts_of(model, "a fox"))


def made(model, method, **changes):
    frames = []
    return produce(model, method, text_of(model), 0, frames.extend), frames


def test_frames_are_uint8_rgb_of_the_whole_video(model):
    video, frames = made(model, Original())
    assert video.reason == ""
    whole = torch.cat(frames)
    assert whole.shape == (LONG, 32, 48, 3) and whole.dtype == torch.uint8
    assert len(video.ledger) == len(model.schedule())
    assert video.denoise.seconds > 0 and video.decode.seconds > 0
    assert video.denoise.allocated > 2**20


def test_the_account_is_a_function_of_the_ledger(model):
    method = Scope(9, 9, max_skip=2, selective="none")
    video, _ = made(model, method)
    found = account(model, video, model)
    computed = found["decisions"]["recompute"]
    assert found["iterations"] == len(model.schedule()) == sum(found["segments"]) == sum(found["decisions"].values())
    assert found["segments"] == [6 + 2 * 4, 6 + 2 * 2]
    assert found["forwards"] == 2 * computed
    assert found["flops"]["executed_fraction"] == pytest.approx(computed / len(model.schedule()))
    assert found["flops"]["dense"] > found["flops"]["masked"] > 0
    # three anchors of the six slots of the last segment, 16 x 4 x 6 float32 each, and their last signals, 6 x 24
    assert found["state_bytes"] == 4 * 6 * (3 * 16 * 4 * 6 + 6 * 24)
    original, _ = made(model, Original())
    assert account(model, original, model)["flops"]["executed_fraction"] == 1.0


def test_on_row_is_told_of_every_row_once(model):
    told = []
    produce(model, Original(), text_of(model), 0, list, told.append)
    assert [row.iteration for row in told] == list(range(len(model.schedule())))


@pytest.mark.parametrize("iteration,segment", [(0, 0), (12, 0), (14, 1)])
@pytest.mark.parametrize("method", [Original(), Uniform(2), Scope(9, 9, cooldown=1)], ids=lambda m: type(m).__name__)
def test_a_velocity_that_is_no_number_ends_the_video_and_says_where(model, method, iteration, segment, monkeypatch):
    """Every computed velocity is NaN from `iteration` on."""
    forward, rows = backbone.forward, []

    def broken(*arguments):
        out = forward(*arguments)
        return out * float("nan") if (rows and rows[-1] >= iteration - 1) or iteration == 0 else out

    monkeypatch.setattr(backbone, "forward", broken)
    frames = []
    video = produce(model, method, text_of(model), 0, frames.extend, lambda row: rows.append(row.iteration))
    assert frames == []
    last = [13, 23][segment]
    assert video.reason == f"latents of segment {segment} are not finite after iteration {last}"
    assert video.ledger and video.ledger[-1].iteration == last
    assert account(model, video, model)["flops"]["dense"] > 0


def test_the_next_video_is_whole_after_a_broken_one(model, monkeypatch):
    _, frames = made(model, Scope(9, 9))
    method = Scope(9, 9)
    forward = backbone.forward
    monkeypatch.setattr(backbone, "forward", lambda *a: forward(*a) * float("nan"))
    assert made(model, method)[0].reason
    monkeypatch.undo()
    again, same = made(model, method)
    assert not again.reason and all(torch.equal(a, b) for a, b in zip(frames, same, strict=True))


def test_infinity_counts_as_no_number():
    with pytest.raises(NonFinite, match="segment 0"):
        generate(Toy(field=lambda s: float("inf")), Original(), None, 0, [])


def test_denoising_and_decoding_are_measured_apart_and_storing_is_not(model, monkeypatch):
    """The time in the sink is not counted, because compression may take minutes."""
    events = []

    @contextmanager
    def listening(device):
        events.append("start")
        with meter(device) as cost:
            yield cost
        events.append("stop")

    monkeypatch.setattr(engine.produce, "meter", listening)
    produce(model, Original(), text_of(model), 0, lambda batches: events.append("sink"))
    assert events == ["start", "stop", "start", "stop", "sink"]


def test_warming_up_changes_no_video(model):
    latents = generate(model, Original(), text_of(model), 0, [])
    assert warm_up(model, text_of(model)) > 0
    assert torch.equal(generate(model, Original(), text_of(model), 0, []), latents)


def test_the_meter_sees_the_peak_of_its_own_span():
    with meter(torch.device("cpu")) as big:
        block = torch.ones(64 * 2**20 // 4)
        del block
    with meter(torch.device("cpu")) as small:
        pass
    assert big.allocated - small.allocated > 32 * 2**20
    assert big.allocated == big.reserved and big.seconds > small.seconds >= 0


def test_the_meter_reports_even_if_its_span_fails():
    with pytest.raises(ZeroDivisionError), meter(torch.device("cpu")) as cost:
        _ = 1 / 0
    assert cost.seconds > 0 and cost.allocated > 0


@pytest.mark.slow
def test_a_fingerprint_does_not_depend_on_what_else_is_imported():
    """In a process that has imported only the method, and in this process, which has imported all modules."""
    script = """
from engine.fingerprint import code_of
from engine.method import Original
print(code_of(Original))
from scope.method import Scope
print(code_of(Scope))
"""
    alone = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    assert alone.stdout.split() == [code_of(Original), code_of(Scope)]


def test_the_environment_says_what_a_number_was_measured_on():
    found = environment(torch.device("cpu"))
    assert found["packages"]["torch"] == torch.__version__.split("+")[0] or found["packages"]["torch"]
    assert found["device"] == "cpu" and found["threads"] >= 1 and found["python"].count(".") == 2
    assert {"commit", "dirty", "deterministic", "tf32", "cpu", "gpu", "platform"} <= set(found)


def test_the_default_answers_are_the_original():
    toy = Toy()
    latents, ledger = run(toy, Method())
    expected, _ = run(Toy(), Original())
    assert torch.equal(latents, expected) and {entry.mode for entry in ledger} == {"recompute"}
    assert Method().reseed(3) == 3 and list(Method().state()) == [] and Method().counters() == {}
    Method().check(toy)


def test_the_share_is_of_the_attention_that_ran_and_the_record_names_it():
    """A block-causal run compared with an Original of full attention and with a block-causal one."""
    full, causal = build(), build(attention="block_causal")
    made = Produced(plan(causal.schedule()))
    dense, masked = flops(made.ledger, causal.price)
    found = account(causal, made, full)
    assert found["attention"] == "block_causal" and masked < dense
    assert found["flops"] == {"dense": dense, "masked": masked, "executed_fraction": masked / dense}
    assert account(causal, made, causal)["flops"]["executed_fraction"] == 1
    assert account(full, Produced(plan(full.schedule())), full)["attention"] == "full"
