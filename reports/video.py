"""A record as a line of `Study.videos`: what was generated, whether it is valid, and its numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from reports import streaming
from reports.metric import CLIPS, DRIFT, FRAMES
from store import Record

NUMBERS = (
    "time_s",
    "denoise_s",
    "decode_s",
    "text_s",
    "flops",
    "flops_masked",
    "memory",
    "memory_reserved",
    "memory_denoise",
    "forwards",
    "iterations",
    "frames",
    "fps",
    "psnr",
    "ssim",
    "lpips",
)
COLUMNS = [
    "record",
    "key",
    "model",
    "method",
    "speed",
    "variant",
    "label",
    "prompt_id",
    "prompt",
    "seed",
    "status",
    "reason",
    "reference",
    "weights",
    "attention",
    "estimated",
    "of_paper",
    "turned",
    "identical",
    "scored",
    "device",
    "changed",
    "diverged",
    "again_s",  # seconds of its Original, timed again beside it; NaN if it was not
    "again_denoise_s",
    "text_encoded",  # False: the text was read from the cache
    *NUMBERS,
    *streaming.NUMBERS,
    *(metric.source for metric in DRIFT),
]


REPEATS = "method.made_for"  # a schedule's check against the model: it repeats settings of the model


def line(record: Record, n: int) -> dict[str, Any]:
    """`COLUMNS` of the n-th record, except its variant, which depends on the other records."""
    quality = record.scores or {}
    return {
        "record": n,
        "key": record.path.name,
        **_identity(record, quality),
        **_outcome(record, quality),
        **_numbers(record.run, quality),
    }


def settings(record: Record) -> dict[str, Any]:
    """The settings that produced a video: `produced_by` of its run.json, or config.yaml for an older record."""
    return record.run.get("produced_by") or record.config


def executed(run: Mapping[str, Any]) -> float:
    """FLOPs with the attention that ran: masked if it was block-causal, else dense (also if it is not recorded)."""
    flops = run.get("flops") or {}
    return number(flops.get("masked" if run.get("attention") == "block_causal" else "dense"))


def number(value: Any) -> float:
    """A float; NaN if the value is missing or not a number.

    >>> number("3.5"), number(None)
    (3.5, nan)
    """
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _identity(record: Record, quality: Mapping[str, Any]) -> dict[str, Any]:
    """What was generated: model, method, operating point, prompt, seed, Original, device."""
    run = record.run
    model, cell = record.path.parts[-3:-1]
    environment, point = run.get("environment") or {}, run.get("point") or {}
    return {
        "model": run.get("model", model),
        "method": run.get("method", cell),
        "speed": record.speed,
        "label": run.get("method_label") or "",
        "prompt_id": run.get("prompt_id", record.path.name),
        "prompt": str(run.get("prompt", "")),
        "seed": run.get("seed", 0),
        "reference": run.get("reference_key") or quality.get("reference") or "",
        "weights": run.get("weights") or "",
        "attention": run.get("attention") or "",
        "estimated": bool(run.get("estimated")),
        "of_paper": bool(point.get("paper")),
        "turned": tuple(point.get("turned") or ()),
        "device": str(environment.get("gpu") or environment.get("cpu") or ""),
        "changed": {name: value for name, value in (run.get("changed") or {}).items() if name != REPEATS},
        "text_encoded": bool(run.get("text_encoded", True)),
    }


def _outcome(record: Record, quality: Mapping[str, Any]) -> dict[str, Any]:
    """Whether the video is valid, and why not. A diverged video (it no longer follows its Original) is valid."""
    validity, status = quality.get("validity") or {}, record.status
    if status == "ok" and validity.get("status") == "invalid":
        status = "invalid"
    return {
        "status": status,
        "diverged": status == "ok" and validity.get("status") == "diverged",
        "reason": record.run.get("reason") or "; ".join(map(str, validity.get("reasons") or ())),
        "identical": bool(quality.get("identical")),
        "scored": bool(quality),
    }


def _numbers(run: Mapping[str, Any], quality: Mapping[str, Any]) -> dict[str, float]:
    """`NUMBERS`: seconds, FLOPs, bytes, counts and similarities; NaN if the record has none."""
    seconds, memory, flops = (run.get(name) or {} for name in ("seconds", "peak_memory", "flops"))
    again = (run.get("original_again") or {}).get("seconds") or {}
    return {
        "again_s": _seconds(again),
        "again_denoise_s": number(again.get("denoise")),
        "time_s": _seconds(seconds),
        **{f"{part}_s": number(seconds.get(part)) for part in ("denoise", "decode", "text")},
        "flops": executed(run),
        "flops_masked": number(flops.get("masked")),
        "memory": number(memory.get("allocated")),
        "memory_reserved": number(memory.get("reserved")),
        "memory_denoise": number((run.get("peak_memory_denoise") or {}).get("allocated")),
        "psnr": np.inf if quality.get("identical") else number(quality.get("psnr")),
        **{name: number(quality.get(name)) for name in ("ssim", "lpips")},
        **{name: number(run.get(name)) for name in ("forwards", "iterations", "frames", "fps")},
        **streaming.numbers(run),
        **_drifts(quality),
    }


def _drifts(quality: Mapping[str, Any]) -> dict[str, float]:
    """The drift of each measure of eval/alone.py, and of the dimensions that VBench-Long scored."""
    own, of_vbench = (quality.get("alone") or {}).get("drift") or {}, quality.get("vbench_long_drift") or {}
    found = {name: own.get(name) for name in FRAMES} | {name: of_vbench.get(name) for name in CLIPS}
    return {f"drift_{name}": number(value) for name, value in found.items()}


def _seconds(seconds: Mapping[str, Any]) -> float:
    """Denoising and decoding. Text encoding is excluded, since only the first cell with a prompt does it; old totals
    include it."""
    parts = number(seconds.get("denoise")) + number(seconds.get("decode"))
    return number(seconds.get("total")) if math.isnan(parts) else parts
