"""The overlap: clean latents of the previous segment, to which a little noise is added before every forward."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from engine.row import Row
from engine.to_device import carried
from models.skyreels.settings import SkyReels


def noised_overlap(x: Tensor, row: Row, settings: SkyReels, seed: int) -> Tensor:
    """`x` (slots of `row`, C, H, W) with noise on the overlap, new at every row or the same for a whole segment.

    The noise has a generator of its own, seeded by `seed`, segment and row. So it does not depend on the forwards that
    a method skips, nor on other uses of the global generator.
    """
    segment = settings.segments[row.segment]
    overlap = segment.first + segment.prefix - row.slots.start
    if overlap <= 0 or not settings.addnoise:
        return x
    when = row.iteration if settings.overlap_noise == "row" else "once"
    name = f"{seed}/{row.segment}/{when}".encode()
    generator = torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(name).digest()[:7], "little"))
    level = 0.001 * settings.addnoise
    noise = torch.randn(segment.prefix, *x.shape[1:], generator=generator)[-overlap:]
    noise = carried(noise, x.device).to(x.dtype)
    return torch.cat([(1 - level) * x[:overlap] + level * noise, x[overlap:]])
