"""Reusing the latent's increment is reusing the velocity at the length of the last step."""

import pytest
import torch

from baselines.uniform import Uniform
from engine.row import VELOCITY, Mode, Row
from scope.method import Scope


def row(sigma: float, after: float) -> Row:
    return Row(0, 0, range(2), 10, (3, 3), (sigma,) * 2, (after,) * 2, (True, True), 2)


@pytest.mark.parametrize("make", [lambda reuse: Uniform(2, reuse=reuse), lambda reuse: Scope(0.1, 0.1, reuse=reuse)])
def test_an_increment_is_handed_back_whole_whatever_the_step(make):
    velocity = torch.arange(8.0).view(2, 1, 2, 2)
    for reuse, factor in (("velocity", 1.0), ("increment", 2.0)):  # steps of 0.2, then of 0.1
        method = make(reuse)
        method.keep(VELOCITY, row(0.8, 0.6), velocity, velocity)
        filled = method.fill(VELOCITY, row(0.6, 0.5), Mode.CACHE, velocity)
        assert torch.allclose(filled, factor * velocity)


def test_an_increment_cannot_be_extrapolated():
    with pytest.raises(ValueError, match="increment at order 0"):
        Uniform(2, order=1, reuse="increment")
