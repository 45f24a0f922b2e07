"""Merges earlier and new scores of a record. An error never replaces a number. Nothing here needs torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

NETS = ("alex", "vgg")  # backbones of LPIPS
PREVIEW = "video.mp4"  # a lossy copy of the frames for people
NOTES = ("reference_missing", "lpips_missing", "unreadable")  # notes on missing things, written again each time
CURVES = ("per_frame", "drift", "by_segment", "border_jumps")  # names in quality.json, each with one entry per metric


def lost(earlier: Mapping[str, Any], fresh: Mapping[str, Any]) -> str | None:
    """Why `fresh` must not replace `earlier`: an error removed a number that `earlier` has. None if it may.

    An Original that was found invalid is not an error. In this case the comparison is removed.
    """
    if fresh.get("unreadable") and "validity" in earlier and not earlier.get("unreadable"):
        return str(fresh["unreadable"])
    missing = fresh.get("reference_missing")
    compared = earlier.get("psnr_frame_mean") is not None
    if compared and missing and fresh.get("psnr_frame_mean") is None and "itself no valid video" not in missing:
        return str(missing)
    return None


def merged(earlier: Mapping[str, Any], fresh: Mapping[str, Any]) -> dict[str, Any]:
    """The content of quality.json: `fresh`, and values of `earlier` that `fresh` does not have. These are scores of
    other programs, and LPIPS if its weights are missing now and the frames are the same."""
    both = {name: value for name, value in earlier.items() if name not in NOTES} | dict(fresh)
    same = all(earlier.get(name) == fresh.get(name) for name in ("psnr_frame_mean", "ssim", "frames", "reference"))
    if same and fresh.get("lpips") is None and earlier.get("lpips") is not None:
        both["lpips"] = earlier["lpips"]
        both.pop("lpips_missing", None)
        for name in CURVES:
            if (earlier.get(name) or {}).get("lpips"):
                both[name] = dict(both.get(name) or {}) | {"lpips": earlier[name]["lpips"]}
        both["metric_versions"] = dict(fresh["metric_versions"]) | {"lpips": earlier["metric_versions"]["lpips"]}
    then, now = earlier.get("preview") or {}, fresh.get("preview") or {}
    if now.get("lpips", 0) is None and then.get("lpips") is not None and then.get("psnr") == now.get("psnr"):
        both["preview"] = dict(now) | {"lpips": then["lpips"]}
    return both


def wants_preview(folder: Path, run: Mapping[str, Any]) -> bool:
    """Whether this is an Original, not its repeat, that has a lossy copy."""
    return run.get("method") == "original" and not run.get("reference_key") and (folder / PREVIEW).is_file()
