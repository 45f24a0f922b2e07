"""DSA: a head decides how far a pass leads; what that means for latents, cost and ledger; what is refused."""

from dataclasses import replace

import pytest
import torch

from baselines.dsa import DSA
from engine.confidence_head import NAMES, Head, pooled, read_about, read_weights, save_head
from engine.ledger import flops, plan
from engine.loop import generate
from engine.method import Original
from engine.row import VELOCITY, Mode, Row
from engine.visit import Visit
from sweep.peaks import state_bytes
from tests import far, tiny
from tests.counting import counted
from tests.test_magi1_backbone import _model as magi1

SETTINGS = {"steps": 8, "frames": 13, "chunk_partition": [1, 2, 1], "padding": "masked"}
FEATURES = 2 * 24 + 2
ABOUT = {"model": "far", "weights": "random", "steps": [4, 8]}


@pytest.fixture(scope="module")
def model():
    return far.build(**SETTINGS)


@pytest.fixture(scope="module")
def original(model):
    return far.video(model, Original())


def head(slope=0.0, offset=-1.0):
    """The expected error is 10^(offset + slope r), with r the noise level that the pass leads to."""
    outer = torch.zeros(1, 2)
    outer[0, 0] = 1.0
    inner = torch.zeros(2, FEATURES)
    inner[0, -1] = slope
    weights = (torch.zeros(FEATURES), torch.ones(FEATURES), inner, torch.tensor([20.0, 0.0]), outer)
    return Head(*weights, torch.tensor([offset - 20.0]))  # silu(20 + y) = 20 + y


@pytest.fixture
def made(tmp_path):
    """A function of the arguments of DSA and of `head`: the method, decided for the tiny model."""

    def make(model, about=ABOUT, slope=0.0, offset=-1.0, **settings):
        path = tmp_path / "head.safetensors"
        save_head(head(slope, offset), path, about)
        method = DSA(str(path), **settings)
        method.check(model)
        return method

    return make


def passes(ledger, mode=Mode.RECOMPUTE):
    """The steps of every chunk in this mode, clean passes left out."""
    units = {entry.unit for entry in ledger}
    found = [e for e in ledger if e.why != "clean pass" and e.mode is mode]
    return [[entry.step for entry in found if entry.unit == unit] for unit in sorted(units)]


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_a_threshold_that_never_stops_is_the_original_bit_for_bit(made, guidance):
    model, ledger = far.build(**SETTINGS, guidance=guidance), []
    method = made(model, stop=0)
    assert torch.equal(far.video(model, method, ledger=ledger), far.video(model, Original()))
    assert {entry.mode for entry in ledger} == {Mode.RECOMPUTE} and not any(method.counters().values())
    assert flops(ledger, model.price) == flops(plan(model.schedule()), model.price)


@pytest.mark.parametrize("stride,steps", [(2, 4), (4, 2), (8, 1)])
def test_a_stride_is_the_model_with_as_many_steps_less(made, model, stride, steps):
    """The noise levels of 4 steps are every second one of 8, and a pass over two steps is told where it leads."""
    fewer, ledger = far.build(**SETTINGS | {"steps": steps}), []
    found = far.video(model, made(model, stop=0, stride=stride), ledger=ledger)
    torch.testing.assert_close(found, far.video(fewer, Original()), atol=2e-5, rtol=0)
    assert passes(ledger) == [list(range(0, 8, stride))] * 3


def test_a_sure_head_ends_every_chunk_with_its_second_pass(made, model, original):
    method, ledger = made(model, stop=1.0), []
    found = far.video(model, method, ledger=ledger)
    assert passes(ledger) == [[0, 1]] * 3 and passes(ledger, Mode.CACHE) == [list(range(2, 8))] * 3
    assert torch.isfinite(found).all() and not torch.equal(found, original)
    assert method.counters() == {"stopped early": 3, "refined": 0}
    assert torch.equal(far.video(model, method), found), "nothing is left for the next video"


def test_the_last_pass_is_the_model_s_own_jump_from_there(made, model):
    ledger = []
    found = far.video(model, made(model, stop=1.0), ledger=ledger)
    latents = model.start(model.conditioning("a fox", model.texts(["a fox"])), 0)
    rows = model.schedule()
    latents = model.open(latents, rows[0])
    for row in (rows[0], replace(rows[1], aim=8)):
        whole = {"": [(row, Original().decide(row, None))]}
        velocity = model.velocity(latents, row, Visit(Original(), row, model.depth, whole))
        row = replace(row, sigma_next=rows[0].sigma_next) if not row.aim else replace(row, sigma_next=(0.0,))
        latents = model.advance(latents, row, velocity)
    torch.testing.assert_close(latents[:1], found[:1], atol=1e-5, rtol=0)


def test_doubt_takes_single_steps_and_then_the_chunk_ends(made, model):
    """The expected error 10^(4 r - 3) falls with the level r: single steps at first, then three, then the end."""
    method, ledger = made(model, slope=4.0, offset=-3.0, stop=1.0, refine=3.0, stride=3), []
    far.video(model, method, ledger=ledger)
    levels = [row.sigma[0] for row in model.schedule()[:8]] + [0.0]
    want, step = [0], 3
    while step < 8:
        want.append(step)
        doubt = 10 ** (4 * levels[step] - 3)
        step = 8 if doubt < 1 else step + 1 if doubt > 3 else step + 3
    assert passes(ledger) == [want] * 3 and method.counters()["refined"] > 0


def test_frames_are_judged_apart_and_the_chunk_by_the_least_sure_or_the_mean(made, model):
    method = made(model, stop=0.5)
    hidden = torch.randn(2, 8, 24)
    row = replace(model.schedule()[9], aim=2)
    method.until = 2
    method.keep(replace_site(model), row, hidden, hidden)
    assert method.doubts.shape == (2,)
    method.doubts = torch.tensor([0.2, 0.6])
    following = model.schedule()[11]
    assert method.narrow(following).aim == 3 and method.doubt == pytest.approx(0.6)
    method.over, method.until = "mean", 2
    assert method.narrow(following).aim == 8 and method.doubt == pytest.approx(0.4)


def replace_site(model):
    return DSA.sites(None, model.depth, model.schedule()[0])[1]


def test_features_do_not_depend_on_the_scale_of_the_states_and_hold_both_levels():
    hidden, before, after = torch.randn(3, 5, 8), torch.tensor([1.0, 0.5, 0.5]), torch.tensor([0.5, 0.2, 0.1])
    found = pooled(hidden, before, after)
    assert found.shape == (3, 18)
    torch.testing.assert_close(pooled(7 * hidden, before, after), found, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(found[:, -2:], torch.stack([before, after], 1))
    torch.testing.assert_close(pooled(hidden.flip(1), before, after), found)  # tokens have no order


def test_a_head_is_read_as_it_was_written(tmp_path):
    path, one = tmp_path / "head.safetensors", head(2.0)
    save_head(one, path, ABOUT)
    assert read_about(path) == ABOUT
    tensors = read_weights(path, "x")
    assert set(tensors) == set(NAMES)
    x = torch.randn(4, FEATURES)
    torch.testing.assert_close(Head(**tensors).log10(x), one.log10(x))


@pytest.mark.parametrize(
    "changes,about,told",
    [
        ({}, {"weights": "0123", "model": "far_tiny_dsa"}, "trained together with far_tiny_dsa, and far has other"),
        ({"steps": 6}, {}, r"trained for 4, 8 steps, and model.steps=6; set model.steps=4"),
        ({"steps": 1}, {}, r"trained for 4, 8 steps, and model.steps=1; set model.steps=4"),
        ({"steps": 50}, {}, r"set model.steps=8"),
        ({"use_mean_velocity": False}, {}, "set model.use_mean_velocity=true"),
    ],
)
def test_a_head_of_another_model_or_number_of_steps_is_refused(made, changes, about, told):
    with pytest.raises(ValueError, match=told):
        made(far.plan(**SETTINGS | changes), ABOUT | about, stop=0.1)


@pytest.mark.parametrize("other", [tiny.build, magi1], ids=["skyreels", "magi1"])
def test_a_model_that_is_not_told_where_a_step_leads_is_refused_with_the_reason(made, other):
    with pytest.raises(ValueError, match=r"needs aim.* not where it leads; set model=far_tiny_dsa"):
        made(other(), stop=0.1)


@pytest.mark.parametrize(
    "given,told",
    [
        ({"stop": -1}, "stop must lie"),
        ({"stop": 1, "refine": 0.5}, "refine must lie"),
        ({"stop": 1, "stride": 0}, "stride must lie"),
        ({"stop": 1, "over": "least"}, "over"),
    ],
)
def test_nonsense_is_refused(made, model, given, told):
    with pytest.raises(ValueError, match=told):
        made(model, **given)


def test_files_that_are_no_head_are_refused(tmp_path):
    path = tmp_path / "head.safetensors"
    with pytest.raises(ValueError, match=r"does not exist.*models.train_far_dsa"):
        DSA(str(path), 0.1)
    path.write_bytes(b"no")
    with pytest.raises(ValueError, match="not a safetensors file"):
        DSA(str(path), 0.1)
    save_head(head(), path, {})
    with pytest.raises(ValueError, match="does not say which model"):
        DSA(str(path), 0.1)


def test_flops_are_those_that_torch_counts_but_for_the_modulation_of_the_jumps(made, model):
    """It is computed once per video and pair of steps, (1, 8), and not counted: 2 (2 (f w + w w) + 6 w w) FLOPs."""
    method, ledger = made(model, stop=1.0), []
    ran = counted(lambda: far.video(model, method, ledger=ledger))
    jump = 2 * (2 * (256 * 24 + 24 * 24) + 24 * 6 * 24)
    mlp = 4 * 2 * (FEATURES * 2 + 2)  # the head, on every frame, in two passes of each of three chunks
    extra = ran - flops(ledger, model.price)[0] - jump
    assert 0 <= extra <= 2 * mlp


def test_a_row_without_a_chunk_to_denoise_is_left_as_it_is(made, model):
    method = made(model, stop=1.0)
    clean = next(row for row in model.schedule() if not row.updating)
    assert method.narrow(clean) is clean and isinstance(clean, Row) and VELOCITY in method.sites(model.depth, clean)


def test_it_holds_a_velocity_and_a_number_per_frame_of_the_chunk(made, model):
    method = made(model, stop=1.0)
    far.video(model, method)
    frames = max(SETTINGS["chunk_partition"])
    assert sum(tensor.numel() for tensor in method.state()) <= frames * (16 * 4 * 8 + 1)
    held = [0]
    text = model.conditioning("a fox", model.texts(["a fox"]))
    generate(model, method, text, 0, [], lambda row: held.append(sum(tensor.numel() * 4 for tensor in method.state())))
    assert max(held) == state_bytes(model, method) == 4 * frames * (16 * 4 * 8 + 1)
