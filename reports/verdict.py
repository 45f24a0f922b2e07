"""The result of comparing one of our numbers with a published one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

TOLERANCE = {  # (tolerance, whether it is relative to the printed number)
    "speedup": (0.05, True),
    "flops_pf": (0.005, True),
    "flops_speedup": (0.01, True),
    "vbench": (0.5, False),
    "lpips": (0.02, False),
    "ssim": (0.02, False),
    "psnr": (0.5, False),
    "peak_memory_gb": (0.05, True),
}


class Outcome(Enum):
    """The kinds of verdict; the value is its text."""

    MATCHES = "matches"
    FLOPS_MATCH = "FLOPs match"  # counted by a dry run: no video was generated
    DIFFERS = "differs"
    NOT_COMPARABLE = "not comparable"
    NOT_RUN = "not run"
    BY_DEFINITION = "by definition"

    @property
    def style(self) -> str:
        """Its class in the style sheet of the page."""
        return self.value.replace(" ", "-")


@dataclass(frozen=True)
class Verdict:
    """An outcome, and why or by how much; as text `differs: +0.02`."""

    outcome: Outcome
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.outcome.value}: {self.reason}" if self.reason else self.outcome.value


MATCHES = Verdict(Outcome.MATCHES)


def compare(name: str, ours: float, printed: float) -> Verdict:
    """Whether two numbers of the column `name` match within its tolerance, or by how much they differ."""
    amount, relative = TOLERANCE[name]
    if abs(ours - printed) <= amount * (abs(printed) if relative else 1):
        return MATCHES
    share = f" ({(ours - printed) / printed:+.1%})" if printed else ""
    return Verdict(Outcome.DIFFERS, f"{ours - printed:+.4g}{share}")
