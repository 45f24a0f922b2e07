"""What one AR unit went through, for a method that integrates it again (engine/retrace.py)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from engine.row import Row

if TYPE_CHECKING:
    from torch import Tensor


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
