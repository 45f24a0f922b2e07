"""The control: the Original from another noise, paired with the Original of the row's own seed.

The two videos share the prompt and nothing else. What LPIPS, SSIM and PSNR say of such a pair is the other end of
their scale: a row as far from its Original has kept nothing of it, however good its pictures look. Nothing is skipped.

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
    offset: int = 1000  # added to every seed; any value will do that gives a seed which the run does not use

    def __post_init__(self) -> None:
        if not self.offset:
            raise ValueError("offset=0 repeats the Original; want another number, or method=original_repeat")

    def reseed(self, seed: int) -> int:
        return seed + self.offset
