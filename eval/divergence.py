"""Has a video left its Original? The verdict `diverged`: it is a video, but not an accelerated copy of that one.

A diverged video stays in the means, since leaving out what a method does worst would flatter it; it is counted and
marked, so that nobody takes a mean over such videos for a small loss. An invalid video is none at all and is left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Where a video has left its Original.

    In brackets: the worst of 80 videos of five methods at two speeds on both tiny models, 21.9 to 55.6 dB from their
    Originals (`flowcache` is the farthest and sets nearly all of them); and the weakest of the faults that
    tests/test_divergence.py wants to be named so. Raising a limit lets more pass, but see "below".
    """

    psnr: float = 10.0  # dB; below: little in common
    lpips: float = 0.8  # above: little in common
    tint: float = 12.0  # levels [6.2; 20]
    brightness: float = 18.0  # levels [6.0; 28.9]
    flicker: float = 3.5  # levels [1.5; 4.57]
    turned: float = 0.08  # share of frames [0; 0.12]
    displaced: float = 0.1  # share of frames [0.04; 0.22]
    displaced_run: float = 8.0  # frames in a row, for a fault in a part of a long video [4; 12]
    stands_seconds: float = 0.3  # [0; 0.46]
    detail: float = 0.3  # of the Original's steepness; below [0.50; 0.21]
    motion: float = 0.15  # correlation; below [0.29; 0.03]
    explained: float = -0.1  # share; below [0.10; -1.6]


def diverged(
    measures: Mapping[str, float],
    psnr: float | None,
    lpips: float | None,
    fps: float = 24,
    limits: Limits | None = None,
) -> tuple[str, ...]:
    """In what a video has left its Original, a text each, none if it has not.

    Args:
        measures: of eval/beside.py.
        psnr: dB, None for an identical video; lpips: None where it is not known.
        fps: frames per second, to tell a stop from a slow step.
    """
    found, limit = measures, limits or Limits()
    frames = max(4, round(limit.stands_seconds * fps))
    cases = {
        "it has little in common with its Original": (psnr is not None and psnr < limit.psnr)
        or (lpips or 0) > limit.lpips,
        f"tint: colours are off by {found['tint']:.0f} levels": found["tint"] > limit.tint,
        f"brightness: it is off by {found['brightness']:.0f} levels": found["brightness"] > limit.brightness,
        f"flicker: brightness or colour jumps by {found['flicker']:.1f} levels beyond the Original's": found["flicker"]
        > limit.flicker,
        f"turned: {found['turned']:.0%} of the frames are the Original's as a negative, mirrored, with channels "
        "exchanged or in grey": found["turned"] > limit.turned,
        f"displaced: {found['displaced']:.0%} of the frames show another moment of the Original": found["displaced"]
        > limit.displaced
        or found["displaced_run"] >= limit.displaced_run,
        f"stands still for {found['stands'] / fps:.1f} s while the Original moves": found["stands"] >= frames,
        f"smeared: parts have {found['detail']:.0%} of the Original's detail": found["detail"] < limit.detail,
        f"motion: what moves is unlike the Original's (correlation {found['motion']:.2f})": found["motion"]
        < limit.motion,
        "another picture: one colour a frame would be nearer to the Original": found["explained"] < limit.explained,
    }
    return tuple(text for text, is_so in cases.items() if is_so)
