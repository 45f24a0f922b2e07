"""The verdict `diverged`: the video is valid, but it no longer follows its Original.

The means include diverged videos: without the worst videos of a method, the mean would be too good. They are counted
and marked, because the mean of diverged videos is not a small quality loss. Invalid videos are excluded from the means.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The limits from which a video is diverged.

    In brackets: first the worst value of 80 videos of five methods at two speeds on both tiny models, at 21.9 to 55.6
    dB from their Originals (nearly all from `flowcache`); then the weakest fault in tests/test_divergence.py that must
    be found. A video beyond a limit is diverged: above it, or below it if the comment says so.
    """

    psnr: float = 10.0  # dB; below
    lpips: float = 0.8  # above
    tint: float = 12.0  # levels [6.2; 20]
    brightness: float = 18.0  # levels [6.0; 28.9]
    flicker: float = 3.5  # levels [1.5; 4.57]
    turned: float = 0.08  # share of frames [0; 0.12]
    displaced: float = 0.1  # share of frames [0.04; 0.22]
    displaced_run: float = 8.0  # consecutive frames, for a fault in a part of a long video [4; 12]
    stands_seconds: float = 0.3  # [0; 0.46]
    detail: float = 0.3  # relative to the Original's gradients; below [0.50; 0.21]
    motion: float = 0.15  # correlation; below [0.29; 0.03]
    explained: float = -0.1  # share; below [0.10; -1.6]


def diverged(
    measures: Mapping[str, float],
    psnr: float | None,
    lpips: float | None,
    fps: float = 24,
    limits: Limits | None = None,
) -> tuple[str, ...]:
    """The ways in which a video has diverged from its Original, one text each; empty if it has not.

    Args:
        measures: the measures of eval/beside.py.
        psnr: dB; None for an identical video. lpips: None if it is unknown.
        fps: frames per second, to convert the length of a stop.
    """
    found, limit = measures, limits or Limits()
    frames = max(4, round(limit.stands_seconds * fps))
    cases = {
        "it has little in common with its Original": (psnr is not None and psnr < limit.psnr)
        or (lpips or 0) > limit.lpips,
        f"tint: colours differ by {found['tint']:.0f} levels": found["tint"] > limit.tint,
        f"brightness: it differs by {found['brightness']:.0f} levels": found["brightness"] > limit.brightness,
        f"flicker: brightness or colour jumps by {found['flicker']:.1f} levels beyond the Original's": found["flicker"]
        > limit.flicker,
        f"turned: {found['turned']:.0%} of the frames are inverted, mirrored or grey frames of the Original, or "
        "have exchanged channels": found["turned"] > limit.turned,
        f"displaced: {found['displaced']:.0%} of the frames show another moment of the Original": found["displaced"]
        > limit.displaced
        or found["displaced_run"] >= limit.displaced_run,
        f"stands still for {found['stands'] / fps:.1f} s while the Original moves": found["stands"] >= frames,
        f"smeared: parts have {found['detail']:.0%} of the Original's detail": found["detail"] < limit.detail,
        f"motion: it differs from the Original's (correlation {found['motion']:.2f})": found["motion"] < limit.motion,
        "another picture: one colour per frame would be closer to the Original": found["explained"] < limit.explained,
    }
    return tuple(text for text, is_so in cases.items() if is_so)
