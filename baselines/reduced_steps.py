"""A control: the Original with fewer sampler steps, which needs no method (SCOPE's same-time comparison).

The lag of the staircase is reduced in proportion to the steps. The paper's time for SkyReels-V2 with 10 steps fits 40
iterations, that is, ar_step 1 instead of the 5 of 50 steps. With ar_step 5 there would be 80 iterations.

Site: none; the sampler itself is changed.
Signal: none.
Memory: none.
Changed: a control; the lag's scaling is inferred from the paper's time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from baselines.shared.model_settings import by_name
from engine.method import Method


@dataclass
class ReducedSteps(Method):
    """Changes the number of sampler steps and nothing else."""

    fraction: float  # share of the model's steps that are kept; raising it: slower, closer to the Original

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction must lie in (0, 1], got {self.fraction}")

    def reschedule(self, settings: Any) -> Any:
        given = by_name(settings)
        counts = [name for name in ("steps", "ar_step") if given.get(name)]
        return replace(settings, **{name: max(1, round(given[name] * self.fraction)) for name in counts})
