"""Integrate AR units again from their first step, with better velocities for the steps that were not computed.

    D_j = x_j + (end - sigma_j) v_j                      clean estimate of a computed step
    D   = cubic spline through the computed D_j          over the number of the step
    v_j = (D(j) - y_j) / (end - sigma_j)                 the sampler steps y with it, from y_0 = x_0 to y_k

A method extrapolates between computed steps. When the next step is computed, the velocities of the gap can be
interpolated, which is far more exact. So the latents move from the extrapolated place x_k to the interpolated y_k, and
the step continues from there with v_k = (D_k - y_k) / (end - sigma_k). No forward of the model is needed.

This is the corrector of a predictor-corrector method, over gaps of several steps, in the form that evaluates each step
once (PEC). It holds the clean estimate at the corrected place, not the velocity.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import torch

from engine.row import Row

if TYPE_CHECKING:
    from torch import Tensor

    from engine.backbone import Backbone


@dataclass
class Course:
    """What one AR unit went through: the rows of its steps, and the clean estimates of the computed ones."""

    begin: Tensor  # latents of the unit before the first of `passed`, which is computed, (slots, C, H, W)
    passed: list[Row] = field(default_factory=list)  # the unit's part of every row so far, the present one last
    steps: list[int] = field(default_factory=list)  # the computed ones, rising
    clean: list[Tensor] = field(default_factory=list)  # clean estimates of these steps, like `begin`

    def computed(self, x: Tensor, velocity: Tensor) -> None:
        """Note that the present step was computed at the latents `x`."""
        part = self.passed[-1]
        self.steps.append(part.progress)
        self.clean.append(x + distance(part) * velocity)

    @property
    def closed(self) -> bool:
        """Whether the present step is computed and the one before it is not."""
        return len(self.steps) > 1 and self.steps[-1] == self.passed[-1].progress > self.steps[-2] + 1

    def tensors(self) -> list[Tensor]:
        return [self.begin, *self.clean]


def distance(part: Row) -> float:
    """The signed change of the noise level from the present step of `part` to the end, of its first active slot.

    >>> distance(Row(0, 0, range(2), 4, (1, 1), (0.75, 0.75), (0.5, 0.5), (True, True), 2))
    -0.75
    >>> distance(Row(0, 0, range(2), 4, (1, 1), (0.25, 0.25), (0.5, 0.5), (True, True), 2))
    0.75
    """
    at = part.active.index(True)
    sigma, after = part.sigma[at], part.sigma_next[at]
    return (0.0 if after < sigma else 1.0) - sigma


def retrace(model: Backbone, latents: Tensor, velocity: Tensor, row: Row, course: Course) -> tuple[Tensor, Tensor]:
    """Latents and velocity of `row`, of which the unit of `course` is integrated again up to the present step.

    `velocity` (slots of the row, C, H, W) is not written to. Afterwards the sampler's state is that of the new course.
    """
    part = course.passed[-1]
    where = slice(part.slots.start, part.slots.stop)
    shares = interpolation(tuple(course.steps))[course.passed[0].progress :].to(latents)
    known = torch.stack(course.clean)
    latents[where] = course.begin
    for before, share in zip(course.passed[:-1], shares, strict=True):
        clean = torch.tensordot(share, known, 1)
        latents = model.advance(latents, before, (clean - latents[where]) / distance(before))
    a = part.slots.start - row.slots.start
    velocity = velocity.clone()
    velocity[a : a + len(part.slots)] = (course.clean[-1] - latents[where]) / distance(part)
    return latents, velocity


@lru_cache(maxsize=256)
def interpolation(steps: tuple[int, ...]) -> Tensor:
    """The weights (steps before the last of `steps`, computed steps) of a cubic spline through values at `steps`.

    A parabola through three values, a line through two. At a computed step its own weight is 1.

    >>> interpolation((0, 4))
    tensor([[1.0000, 0.0000],
            [0.7500, 0.2500],
            [0.5000, 0.5000],
            [0.2500, 0.7500]])
    """
    import numpy as np
    from scipy.interpolate import CubicSpline

    weights = CubicSpline(steps, np.eye(len(steps)))(np.arange(steps[-1]))
    return torch.from_numpy(weights).float()
