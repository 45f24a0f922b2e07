"""A control: the Original from another seed, compared with the Original of the run's own seed.

The two videos have the same prompt and different noise. LPIPS, SSIM and PSNR of such a pair give the other end of their
scale: a method with the same values has lost all content of its Original, even if its frames look good. Nothing is
skipped.

Site: none.
Signal: none.
Memory: none.
Changed: a control of our own.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.method import Method


@dataclass
class OriginalSeed(Method):
    """Changes the seed and nothing else."""

    offset: int = 1000  # added to every seed; raising it: another control; choose seeds that the run does not use

    def __post_init__(self) -> None:
        if not self.offset:
            raise ValueError("offset=0 repeats the Original; set another number, or use method=original_repeat")

    def reseed(self, seed: int) -> int:
        return seed + self.offset
