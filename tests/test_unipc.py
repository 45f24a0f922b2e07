"""The table of UniPC coefficients against diffusers' scheduler objects, one per slot."""

import pytest
import torch
from diffusers import UniPCMultistepScheduler

from models.skyreels.unipc import UniPC, coefficients

SLOTS = 5


def schedulers(steps, shift, count=SLOTS):
    made = [
        UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)
        for _ in range(count)
    ]
    for scheduler in made:
        scheduler.set_timesteps(steps)
    return made


@pytest.mark.parametrize("in_place", [False, True], ids=["copies", "views of the latents"])
@pytest.mark.parametrize("steps,shift", [(1, 8.0), (2, 1.0), (3, 8.0), (7, 5.0), (20, 3.0), (50, 8.0)])
def test_slots_at_different_steps_equal_a_scheduler_for_each(steps, shift, in_place):
    """A staircase of lag 2 with a slot that never starts; stepping views is what the stock pipelines do."""
    stock = schedulers(steps, shift)
    sigmas, times = stock[0].sigmas.tolist(), stock[0].timesteps
    ours = UniPC(sigmas, torch.device("cpu"), in_place=in_place)
    torch.manual_seed(0)
    theirs = torch.randn(SLOTS, 3, 2, 2)
    mine = theirs.clone()
    ours.reset(mine)
    for row in range(steps + 2 * (SLOTS - 2)):
        live = [s for s in range(SLOTS - 1) if 0 <= row - 2 * s < steps]
        if not live:
            continue
        index = torch.tensor([row - 2 * s for s in live])
        velocity = torch.randn(len(live), 3, 2, 2)
        window = slice(live[0], live[-1] + 1)
        mine[window] = ours.step(mine[window], velocity, window, index)
        for i, s in enumerate(live):
            x = theirs[s : s + 1] if in_place else theirs[s : s + 1].clone()
            theirs[s : s + 1] = stock[s].step(velocity[i : i + 1], times[index[i]], x, return_dict=False)[0]
        assert torch.equal(mine, theirs)  # to the bit: an error would grow along the trajectory


def test_stepping_views_is_not_stepping_copies():
    sigmas = schedulers(6, 8.0)[0].sigmas.tolist()
    ends = []
    for in_place in (False, True):
        sampler, x = UniPC(sigmas, torch.device("cpu"), in_place), torch.ones(1, 1, 1, 1)
        sampler.reset(x)
        for k in range(6):
            x = sampler.step(x, x.clone(), slice(0, 1), torch.tensor([k]))
        ends.append(x.item())
    assert abs(ends[0] - ends[1]) > 1e-3


def test_a_straight_path_is_integrated_exactly():
    """v = noise - data, constant: any consistent solver of flow matching lands on the data."""
    sigmas = schedulers(9, 8.0)[0].sigmas.tolist()
    data, noise = torch.randn(2, 4, 2, 2)
    x = sigmas[0] * noise + (1 - sigmas[0]) * data
    sampler, x = UniPC(sigmas, torch.device("cpu")), x[None]
    sampler.reset(x)
    for k in range(9):
        x = sampler.step(x, (noise - data)[None], slice(0, 1), torch.tensor([k]))
    torch.testing.assert_close(x[0], data, atol=1e-5, rtol=0)


def test_every_step_leaves_a_constant_signal_alone():
    """With v = 0 every clean estimate is x. So the terms with differences are 0, and the other weights sum to 1."""
    corrector, predictor = coefficients(schedulers(12, 8.0)[0].sigmas.tolist()).split(6, dim=1)
    assert (corrector[1:, 0] - corrector[1:, 1]).tolist() == pytest.approx([1] * 11, abs=1e-5)
    assert (predictor[:, 0] - predictor[:, 1]).tolist() == pytest.approx([1] * 12, abs=1e-5)
