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

from functools import lru_cache
from typing import TYPE_CHECKING

import torch

from engine.course import Course, distance
from engine.row import Row

if TYPE_CHECKING:
    from torch import Tensor

    from engine.backbone import Backbone


def retrace(model: Backbone, latents: Tensor, velocity: Tensor, row: Row, course: Course) -> tuple[Tensor, Tensor]:
    """Latents and velocity of `row`, of which the unit of `course` is integrated again up to the present step.

    `velocity` (slots of the row, C, H, W) is not written to. Afterwards the sampler's state is that of the new course.
    """
    if course.begin.is_meta:  # the method's memory is weighed, there are no numbers
        return latents, velocity
    part = course.passed[-1]
    where = slice(part.slots.start, part.slots.stop)
    shares = interpolation(tuple(course.steps))[course.passed[0].progress :].to(latents)
    known = torch.stack(course.clean)
    latents[where] = course.begin
    for before, share in zip(course.passed[:-1], shares, strict=True):
        clean = (share.view(-1, *[1] * course.begin.dim()) * known).sum(0)
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
