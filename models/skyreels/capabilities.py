"""What SkyReels-V2 offers to methods at given settings, and the advice if a method needs more."""

from __future__ import annotations

from models.skyreels.settings import SkyReels

SIGNALS = frozenset({"time_projection", "time_embedding", "latent", "patch_embedding"})
SITES = frozenset(
    {
        "blocks",
        "branches",
        "cross_attention",
        "guidance",
        "narrow",
        "nested",
        "partial",
        "retrace",
        "tokens",
        "transformer",
    }
)


def offers(settings: SkyReels) -> frozenset[str]:
    """Capabilities and signals, see Method.requires. Under full attention no slot settles."""
    found = SITES | SIGNALS
    if settings.attention == "block_causal":
        found |= {"settled"}
        if any(segment.prefix for segment in settings.segments) and settings.steady_overlap:
            found |= {"given"}
    return found


def advice(settings: SkyReels, lacking: str) -> str:
    """What to change if a method needs `lacking`."""
    if lacking in ("settled", "given") and settings.attention == "full":
        return (
            "under full attention every frame attends to all others, so the keys and values of no frame stay the same; "
            "set model.attention=block_causal (another model: compare it with its own Original)"
        )
    if lacking == "given" and settings.steady_overlap:
        return "the video is one segment, so no frame is clean at its start; set model.frames above model.base_frames"
    if lacking == "given":
        return (
            "new noise is added to the overlap at every row, so its keys and values change at every row; set "
            "model.overlap_noise=segment or model.addnoise=0"
        )
    if lacking == "aim":
        return "this model is told where a step starts but not where it leads; set model=far_tiny_dsa"
    return "choose another method or another signal"
