"""The data of the synchronised videos on the page: for each Original, one player per video."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from reports import previews, streaming, style
from reports.contrast import GROUNDS, legible
from reports.curves import MODES, decisions
from reports.records import MOST_LINES, Study, label, originals
from store import Record

MOST_VIDEOS = 400  # raising it: more prompts on the page, which then opens more slowly
KEY = 12  # letters of an Original's key in a link to its prompt
CODES = "cpr"  # cache, predict, recompute in the data of the page


def colours(method: str) -> dict[str, str]:
    """The colour of a method on a light and on a dark page."""
    return {scheme: legible(style.colour(method), ground) for scheme, ground in GROUNDS.items()}


def prompts(study: Study, videos: str = "..") -> tuple[list[dict[str, Any]], int]:
    """For each Original its players, the Original first; and how many videos are not on the page.

    videos: the path from the page to the folder that holds the videos as the store does.
    """
    found: list[dict[str, Any]] = []
    count = 0
    for (model, key), group in study.videos.groupby(["model", originals(study.videos)], sort=False):
        seed = group["seed"].where(group["key"] == key).dropna().astype(object)
        seed = int(seed.iloc[0]) if len(seed) else group["seed"].iloc[0]  # of the Original: another seed's beside it
        if found and count + len(group) > MOST_VIDEOS:
            break
        count += len(group)
        players = [_player(study, video, videos) for _, video in group.iterrows()]
        variants = sum(player["variant"] for player in players) if len(players) > MOST_LINES else 0
        found.append(
            {
                "model": model,
                "key": key[:KEY],
                "prompt": group["prompt"].iloc[0],
                "seed": seed,
                "players": players,
                "variants": variants,
            }
        )
    return found, len(study.videos) - count


def _player(study: Study, video: pd.Series, videos: str) -> dict[str, Any]:
    """The data of one player: path of the video, decisions and errors over time."""
    record = study.record(video)
    random = video["weights"] == "random"
    per_frame = {} if random else (record.quality or {}).get("per_frame") or {}
    name, errors = "LPIPS", per_frame.get("lpips") or []
    if not errors and per_frame.get("ssim"):
        name, errors = "1 − SSIM", [1 - value for value in per_frame["ssim"]]
    grid = decisions(record.trace())
    steps = ["".join(CODES[mode] for mode in slot if mode >= 0) for slot in grid]
    validity = (record.quality or {}).get("validity") or {}
    numbers = [f"{video['speedup']:.2f}×"] if not math.isnan(video["speedup"]) else []
    numbers += [f"{video['psnr']:.1f} dB"] if math.isfinite(video["psnr"]) and not random else []
    return {
        "name": label(video),
        "original": video["method"] == "original",
        "variant": bool(video["variant"]),
        "colours": colours(video["method"]),
        "video": _video(study, record, videos),
        "numbers": ", ".join(numbers),
        "slots": steps,
        "decided": _decided(steps),
        "ready": _ready(record.run, float(video["fps"])),
        "fps": float(video["fps"]) if video["fps"] > 0 else 0.0,
        "status": "" if video["status"] == "ok" else f"{video['status']}: {video['reason'] or 'no reason recorded'}",
        "warning": "; ".join(
            [*(f"diverged: {text}" for text in validity.get("diverged") or ()), *(validity.get("warnings") or ())]
        ),
        "errors": [round(float(value), 4) for value in errors],
        "measure": name,
    }


def _ready(run: Mapping[str, Any], fps: float) -> dict[str, Any] | None:
    """Seconds of playing at which each chunk starts and stops, when it was ready, and whether it was late."""
    chunks = streaming.ready(run)
    if not chunks or not fps > 0:
        return None
    late = streaming.late(chunks, fps)
    starts = [0, *(frames for frames, _ in chunks)]
    bars = [
        [round(start / fps, 3), round(frames / fps, 3), round(seconds, 4), missed]
        for start, (frames, seconds), missed in zip(starts, chunks, late, strict=False)
    ]
    first, total = (float(f"{seconds:.2g}") for seconds in (chunks[0][1], chunks[-1][1]))
    length = round(chunks[-1][0] / fps, 3)
    return {"chunks": bars, "length": length, "first": first, "total": total, "late": sum(late), "of": len(late) - 1}


def _video(study: Study, record: Record, videos: str) -> str:
    """The path from the page to the video of a record, or to its small copy from a bundle; "" if it has neither."""
    if (record.path / "video.mp4").exists():
        path = "/".join(quote(part) for part in Path(os.path.relpath(record.path, study.root)).parts)
        return f"{videos}/{path}/video.mp4"
    return previews.name(record)


def _decided(steps: list[str]) -> str:
    """How often each decision was taken, over all slots, in words."""
    counts = {mode: sum(slot.count(code) for slot in steps) for code, mode in zip(CODES, MODES, strict=True)}
    return ", ".join(f"{count} {mode}" for mode, count in reversed(counts.items()) if count)
