"""What a method may ask of SkyReels-V2 at a setting, and what to change where it asks for more."""

from __future__ import annotations

from models.skyreels.settings import SkyReels
from models.skyreels.signals import SIGNALS

SITES = frozenset({"blocks", "branches", "cross_attention", "guidance", "nested", "narrow", "partial", "transformer"})


def offers(settings: SkyReels) -> frozenset[str]:
    """Capabilities and signals (Method.requires); nothing settles where every frame sees all others."""
    found = SITES | SIGNALS
    if settings.attention == "block_causal":
        found |= {"settled"}
        if any(segment.prefix for segment in settings.segments) and settings.steady_overlap:
            found |= {"given"}
    return found


def advice(settings: SkyReels, lacking: str) -> str:
    """What to change when a method asks for `lacking`."""
    if lacking in ("settled", "given") and settings.attention == "full":
        return (
            "under full attention every frame sees all others, so that no frame's keys and values stay the same; "
            "set model.attention=block_causal (another model: compare it with its own Original)"
        )
    if lacking == "given" and settings.steady_overlap:
        return "the video is one segment, so nothing is given; set model.frames above model.base_frames"
    if lacking == "given":
        return (
            "the overlap is noised anew at every row, so that its keys and values are never the same twice; set "
            "model.overlap_noise=segment or model.addnoise=0"
        )
    return "choose another method or another signal"
