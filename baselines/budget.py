"""A control: the best fixed schedule of a given cost, found by search (BudCache, arXiv 2606.13496).

    M_u = the steps of AR unit u that are computed, |M_u| = the budget                    the same for every prompt
    v(s) = v0 + (s - s0) (v0 - v1) / (s0 - s1)        in between: Newton's line through the last two computed ones
    M    = argmin mean over calibration prompts of ||z_M - z||^2 / ||z||^2                z: the final latents

The schedule does not depend on the content. So the gain of an adaptive rule is its difference from this control at the
same cost. BudCache searches one mask for all frames by annealing, then by exchanges, and reuses the last output.
`experiment=search_schedule` does the same for every AR unit of a segment; units after the last list use the last list.
`computed: []` computes every step and is the Original.

Site: velocity.
Signal: none, a fixed schedule.
Memory: order + 1 latents.
Changed: there is one mask per AR unit, since units are at different steps in the same row; velocities are extrapolated
instead of reused; a schedule that was made for another model, length or number of steps is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from baselines.shared.schedule import Scheduled


@dataclass
class Budget(Scheduled):
    """Extrapolates by Newton's polynomial through the last computed velocities; `Scheduled` decides and stores."""

    computed: list[list[int]] = field(default_factory=list)  # computed steps per AR unit; more: slower, smaller errors
    order: int = 1  # order of the extrapolation; raising it: better on a smooth trajectory, amplifies noise more
    selective: str = "none"  # covers: none | prefix (no waiting frames) | exact (block-causal) | stored (see Scheduled)
    made_for: dict[str, Any] = field(default_factory=dict)  # settings of the searched model; others are refused
