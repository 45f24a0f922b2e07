"""What of a record's earlier scores stays when it is scored again: an error never takes the place of a number."""

from collections.abc import Mapping
from typing import Any

NOTES = ("reference_missing", "lpips_missing", "unreadable")  # what was lacking then, said anew each time
CURVES = ("per_frame", "drift", "by_segment", "border_jumps")  # of quality.json, each with an entry per metric


def lost(earlier: Mapping[str, Any], fresh: Mapping[str, Any]) -> str | None:
    """Why `fresh` may not replace `earlier`: it lacks, because of an error, a number that is there. None if it may.

    That the Original was found to be no valid video is no error, but a finding: it takes the comparison with it.
    """
    if fresh.get("unreadable") and "validity" in earlier and not earlier.get("unreadable"):
        return str(fresh["unreadable"])
    missing = fresh.get("reference_missing")
    compared = earlier.get("psnr_frame_mean") is not None
    if compared and missing and fresh.get("psnr_frame_mean") is None and "itself no valid video" not in missing:
        return str(missing)
    return None


def merged(earlier: Mapping[str, Any], fresh: Mapping[str, Any]) -> dict[str, Any]:
    """The content of quality.json: `fresh`, and of `earlier` what `fresh` does not say: others' scores, and LPIPS
    where its weights have gone since and the frames are the same."""
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
