"""The validity gate: broken videos are excluded from all means, with a reason.

`judge` compares the signals of a video (eval/signals.py) with the thresholds and, if there is one, with the Original of
the same prompt and noise: for example, a still video is valid if the Original stands still too. A video with a reason
is invalid and excluded from all means. A video that no longer follows its Original (eval/divergence.py) is `diverged`:
the means include it, and it is counted and marked. A warning is shown and has no effect.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from eval.beside import longest
from eval.signals import Signals

VERSION = "3"
CONTROLS = ("original", "reduced_steps", "lossless", "external_diffusers_none")  # they must not skip anything


@dataclass(frozen=True)
class Thresholds:
    """The limits of a valid video. Luma and changes are in levels 0–255, shares in [0, 1]."""

    black_mean: float = 8.0  # mean luma below which a frame may be black; raising it refuses dark scenes
    black_bright: float = 0.01  # ... if this share of its pixels or less has any light; raising it refuses night skies
    flat_std: float = 2.0  # largest spatial deviation of a channel below which a frame is blank; raising it refuses fog
    bad_frames: float = 0.05  # share of black, flat or noisy frames of an invalid video; raising it accepts more
    still_change: float = 0.1  # mean change below which two frames are the same; raising refuses slow motion
    still_share: float = 0.5  # share of still pairs from which a video is frozen; raising it accepts more
    still_excess: float = 0.25  # ... and how far above the Original's share; raising trusts the Original more
    still_seconds: float = 1.0  # a pause of this length and twice the Original's longest is frozen too
    noise_correlation: float = 0.5  # correlation of neighbours below which a frame is noise; raising it refuses texture
    noise_ratio: float = 10.0  # times the Original's fine detail from which it is noise; raising it accepts noise
    noise_detail: float = 500.0  # ... if the Laplacian's variance is at least this; raising it accepts smooth Originals
    flash_ratio: float = 8.0  # times the median change from which a step is a jump; raising it accepts rougher motion
    flash_change: float = 20.0  # ... if it is at least this large; raising it accepts weaker flashes
    flash_area: float = 0.5  # ... over this share of the frame; a jumping object is not a flash
    flash_seconds: float = 0.5  # a jump that is reversed within this time is a flash, another may be a cut
    saturated: float = 0.5  # share of samples at the ends of the scale; raising it accepts stronger contrast
    saturated_excess: float = 0.2  # ... and how far above the Original's; raising trusts the Original more
    blockiness: float = 1.6  # gradient at block borders over that inside; raising it accepts mosaics
    blockiness_ratio: float = 1.4  # ... and times the Original's; raising trusts the Original more
    blockiness_alone: float = 2.4  # ... without an Original; mosaics of 8 pixels reach 2.5, weak blocks of a decoder 2
    runaway: float = 0.98  # share of skipped decisions from which a method is runaway; 1: no check
    refuse_inert: bool = True  # False accepts a method that skipped nothing and equals the Original


@dataclass(frozen=True)
class Expected:
    """The requested properties of the video; None if unknown."""

    frames: int | None = None
    height: int | None = None
    width: int | None = None


@dataclass(frozen=True)
class Verdict:
    """The result: invalid if there is any reason, otherwise diverged if `diverged` is not empty, otherwise ok."""

    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    diverged: tuple[str, ...] = ()  # how it differs from its Original

    @property
    def status(self) -> str:
        """`ok`, `diverged` or `invalid`."""
        return "invalid" if self.reasons else "diverged" if self.diverged else "ok"

    def to_json(self) -> dict[str, Any]:
        """{"status", "reasons", "warnings"}, and "diverged" if it is not empty."""
        found = {"status": self.status, "reasons": list(self.reasons), "warnings": list(self.warnings)}
        return found | ({"diverged": list(self.diverged)} if self.diverged else {})


def judge(
    seen: Signals,
    original: Signals | None = None,
    expected: Expected | None = None,
    fps: float = 24,
    thresholds: Thresholds | None = None,
) -> Verdict:
    """The verdict on one video.

    Args:
        original: the signals of the Original of the same prompt and noise. Without it (or for the Original itself)
            a video is frozen only if all frames are equal, and a single cut is a warning.
        fps: frames per second, to convert the length of a pause.
    """
    limits = thresholds or Thresholds()
    reasons = _wrong_size(seen, expected or Expected())
    reasons += _bad_frames(seen, limits) + _noise(seen, original, limits) + _blocks(seen, original, limits)
    frozen, warnings = _frozen(seen, original, fps, limits)
    flash, cuts = _flash(seen, original, fps, limits)
    return Verdict(tuple(reasons + frozen + flash), tuple(warnings + cuts))


def judge_decisions(
    run: Mapping[str, Any], max_skip: int | None = None, identical: bool = False, thresholds: Thresholds | None = None
) -> Verdict:
    """The verdict on how often a method skipped, from run.json's `decisions`, `method` and `flops`.

    Args:
        max_skip: the longest run of skips that the method allows; None without such a limit.
        identical: whether the video equals the Original bit for bit.
    """
    limits = thresholds or Thresholds()
    decisions = run.get("decisions") or {}
    skipped, total = decisions.get("cache", 0) + decisions.get("predict", 0), sum(decisions.values())
    if not total or str(run.get("method", "")).startswith(CONTROLS):
        return Verdict()
    if skipped == 0:
        saved = 1 - ((run.get("flops") or {}).get("executed_fraction") or 1)
        why = f"inert: the method skipped nothing in {total} decisions; raise its thresholds"
        acted = saved > 1e-3 and not identical  # selective computation saves FLOPs without skipping
        return Verdict() if acted else Verdict((why,)) if limits.refuse_inert else Verdict((), (why,))
    # a run of max_skip skips, then one computed step; the margin is for a run at the end of the video
    bound = limits.runaway if max_skip is None else min(limits.runaway, 1 - 1 / (max_skip + 1) + 0.02)
    if skipped / total > bound:
        return Verdict(
            (f"runaway: {skipped} of {total} decisions skipped, more than {bound:.0%}; lower the method's thresholds",)
        )
    return Verdict()


def _wrong_size(seen: Signals, expected: Expected) -> list[str]:
    reasons = []
    if expected.frames not in (None, seen.frames):
        reasons.append(f"wrong count: {seen.frames} frames, {expected.frames} requested")
    if (expected.height or seen.height, expected.width or seen.width) != (seen.height, seen.width):
        reasons.append(f"wrong size: {seen.width}×{seen.height}, {expected.width}×{expected.height} requested")
    return reasons


def _bad_frames(seen: Signals, limits: Thresholds) -> list[str]:
    black = (seen.luma < limits.black_mean) & (seen.bright <= limits.black_bright)
    flat = (seen.spread < limits.flat_std) & ~black
    return [
        f"{name}: {bad.sum()} of {seen.frames} frames, the first is {int(bad.argmax())}"
        for name, bad in (("black", black), ("flat", flat))
        if bad.mean() > limits.bad_frames
    ]


def _noise(seen: Signals, original: Signals | None, limits: Thresholds) -> list[str]:
    noisy = seen.correlation < limits.noise_correlation
    if noisy.mean() > limits.bad_frames:
        return [
            f"noise: neighbouring pixels correlate by less than {limits.noise_correlation} in {noisy.sum()} of "
            f"{seen.frames} frames"
        ]
    if original is not None:
        detail, usual = float(np.median(seen.detail)), float(np.median(original.detail))
        if detail > limits.noise_detail and detail > limits.noise_ratio * usual:
            return [f"noise: {detail / max(usual, 1e-9):.0f} times the Original's fine detail"]
    return []


def _blocks(seen: Signals, original: Signals | None, limits: Thresholds) -> list[str]:
    """Reasons about saturation and blockiness, relative to the Original."""
    reasons = []
    clipped, usual = float(seen.clipped.mean()), float(original.clipped.mean()) if original else 0.0
    if clipped > limits.saturated and clipped > usual + limits.saturated_excess:
        reasons.append(f"saturated: {clipped:.0%} of the samples are at an end of the scale")
    bound = limits.blockiness_alone
    if original:
        bound = max(limits.blockiness, limits.blockiness_ratio * original.blockiness)
    if seen.blockiness > bound:
        reasons.append(f"blocky: gradients at block borders are {seen.blockiness:.1f} times those inside")
    return reasons


def _frozen(seen: Signals, original: Signals | None, fps: float, limits: Thresholds) -> tuple[list[str], list[str]]:
    """Reasons and warnings about frames that do not change."""
    if not len(seen.change):
        return [], []
    still = seen.change < limits.still_change
    share, pause = float(still.mean()), longest(still)
    what = f"{still.sum()} of {len(still)} steps have no change, the longest pause is {pause / fps:.1f} s"
    if original is None or not len(original.change):
        if np.all(seen.change == 0):
            return [f"frozen: all {seen.frames} frames are equal"], []
        return [], [f"stands still: {what}"] if share >= limits.still_share else []
    usual = original.change < limits.still_change
    stopped = share >= limits.still_share and share > float(usual.mean()) + limits.still_excess
    paused = pause >= limits.still_seconds * fps and pause > 2 * longest(usual)
    return [f"frozen: {what}; the Original moves"] if stopped or paused else [], []


def _flash(seen: Signals, original: Signals | None, fps: float, limits: Thresholds) -> tuple[list[str], list[str]]:
    """Reasons and warnings about steps in which most of the picture changes at once."""
    jumps = _jumps(seen, limits)
    if original is not None:
        own = _jumps(original, limits)
        jumps = [at for at in jumps if not any(abs(at - other) <= 2 for other in own)]
    near = max(2, round(limits.flash_seconds * fps))
    ends = {1, seen.frames - 1}  # a jump at the first or last frame is not a cut
    flashes = [
        at for at in jumps if original is not None or at in ends or any(0 < abs(at - other) <= near for other in jumps)
    ]
    cuts = [at for at in jumps if at not in flashes]
    return (
        [f"flash: most of the picture changes at once at frame {_some(flashes)}"] if flashes else [],
        [f"cut at frame {_some(cuts)}"] if cuts else [],
    )


def _jumps(seen: Signals, limits: Thresholds) -> list[int]:
    """The frames at which most of the picture changes by much more than usual."""
    usual = float(np.median(seen.change)) if len(seen.change) else 0.0
    large = (seen.change > limits.flash_change) & (seen.change > limits.flash_ratio * usual)
    return (1 + np.flatnonzero(large & (seen.area > limits.flash_area))).tolist()


def _some(frames: list[int]) -> str:
    return ", ".join(map(str, frames[:5])) + (" …" if len(frames) > 5 else "")
