"""Settings of a method that change its cost. A calibration searches their values for a wanted cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Knob:
    """One numeric setting of a method, with the range of a search.

    `dear` is the value with the most computation, `cheap` the value with the least. A search moves a whole number in
    steps of 1, any other value in steps of a factor sqrt(2).
    """

    name: str
    dear: float  # end of the range with more computation
    cheap: float  # end of the range with less computation; may be above or below `dear`
    whole: bool = False  # whether only integers are valid
    follows: Mapping[str, float] = field(default_factory=dict)  # settings that change in proportion: {name: factor}

    @property
    def begin(self) -> float:
        """The start of a search if the setting has no value: the middle of the range (geometric if not whole)."""
        return round((self.dear + self.cheap) / 2) if self.whole else math.sqrt(self.dear * self.cheap)

    def at(self, value: float) -> dict[str, float]:
        """The settings for `value`, {name: value}, rounded to four significant digits.

        >>> Knob("tau_predict", 0.001, 10, follows={"tau_cache": 0.4}).at(0.123456)
        {'tau_predict': 0.1235, 'tau_cache': 0.0494}
        """
        rounded = round(value) if self.whole else float(f"{value:.4g}")
        return {self.name: rounded, **{name: float(f"{share * rounded:.4g}") for name, share in self.follows.items()}}

    def moved(self, value: float, steps: float) -> float:
        """`value` moved by `steps` towards `cheap` (negative: towards `dear`), limited to the range."""
        sign = math.copysign(steps, steps * (self.cheap - self.dear))
        there = value + sign if self.whole else value * 2 ** (sign / 2)
        return self.held(there)

    def held(self, value: float) -> float:
        """`value` limited to the range."""
        low, high = sorted((self.dear, self.cheap))
        return min(max(value, low), high)

    def between(self, a: float, b: float) -> float | None:
        """The middle of two values. None if they are adjacent integers, or differ by at most 0.1 %."""
        if self.whole:
            return (a + b) // 2 if abs(a - b) > 1 else None
        return math.sqrt(a * b) if abs(math.log(a / b)) > 1e-3 else None
