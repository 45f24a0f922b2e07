"""What sets a method's cost: the settings that a search turns to meet a wanted one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Knob:
    """One numeric setting of a method, from the value that computes most to the one that computes least.

    Steps are of 1 for a whole number, else of half an octave.
    """

    name: str
    dear: float  # where a search stops towards more computation
    cheap: float  # where it stops towards less; with `dear` this says which direction is which
    whole: bool = False  # only integers mean something
    follows: Mapping[str, float] = field(default_factory=dict)  # settings that move along, as a share of this one

    @property
    def begin(self) -> float:
        """Where a search begins if nothing gives the setting a value: the middle of the range."""
        return round((self.dear + self.cheap) / 2) if self.whole else math.sqrt(self.dear * self.cheap)

    def at(self, value: float) -> dict[str, float]:
        """The settings for `value`, rounded to four digits.

        >>> Knob("tau_predict", 0.001, 10, follows={"tau_cache": 0.4}).at(0.123456)
        {'tau_predict': 0.1235, 'tau_cache': 0.0494}
        """
        rounded = round(value) if self.whole else float(f"{value:.4g}")
        return {self.name: rounded, **{name: float(f"{share * rounded:.4g}") for name, share in self.follows.items()}}

    def moved(self, value: float, steps: float) -> float:
        """`value` turned by `steps` towards the cheap end (negative: the dear end), no further than the range goes."""
        sign = math.copysign(steps, steps * (self.cheap - self.dear))
        there = value + sign if self.whole else value * 2 ** (sign / 2)
        return self.held(there)

    def held(self, value: float) -> float:
        """`value`, or the end of the range that it lies beyond."""
        low, high = sorted((self.dear, self.cheap))
        return min(max(value, low), high)

    def between(self, a: float, b: float) -> float | None:
        """The middle of two values; None if nothing lies between that makes a difference (0.1 %)."""
        if self.whole:
            return (a + b) // 2 if abs(a - b) > 1 else None
        return math.sqrt(a * b) if abs(math.log(a / b)) > 1e-3 else None
