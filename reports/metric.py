"""The numeric columns of the tables: their source, how they are averaged, and how they are printed."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np

from reports.statistics import Shape


@dataclass(frozen=True)
class Metric:
    """A numeric column: how it is computed from the videos of a line, and how it is printed."""

    name: str
    title: str
    short: str  # the title in a narrow terminal
    source: str  # the column of Study.videos
    better: str  # "higher" or "lower"
    show: Callable[[float], str]
    scale: float = 1.0
    geometric: bool = False  # a ratio: averaged as one
    quality: bool = False  # has no meaning for random weights
    least: float = 0.0  # smallest possible value; intervals are cut there
    most: float = np.inf
    shape: Shape = "positive"  # distribution that its interval assumes
    group: str = ""  # of OPTIONAL; "" for a column of every table


def _plain(value: float) -> str:
    return f"{value:.2f}" if value >= 0.995 else f"{value:.3g}"


METRICS = (
    Metric("time_s", "time (s)", "sec", "time_s", "lower", _plain),
    Metric("speedup", "speedup", "speed", "speedup", "higher", "{:.2f}×".format, geometric=True),
    Metric("flops_pf", "PFLOP", "PFLOP", "flops", "lower", _plain, scale=1e-15),
    Metric("flops_speedup", "FLOPs speedup", "FLOPs", "flops_speedup", "higher", "{:.2f}×".format, geometric=True),
    Metric("vbench", "VBench", "VBench", "", "higher", "{:.2f}".format, quality=True),
    Metric("lpips", "LPIPS", "LPIPS", "lpips", "lower", "{:.4f}".format, quality=True),
    Metric(
        "ssim", "SSIM", "SSIM", "ssim", "higher", "{:.4f}".format, quality=True, least=-1, most=1, shape="below one"
    ),
    Metric("psnr", "PSNR (dB)", "PSNR", "psnr", "higher", "{:.2f}".format, quality=True, shape="normal"),
    Metric("peak_memory_gb", "memory (GB)", "GB", "memory", "lower", _plain, scale=1e-9),
)
_SHORT = "{:.3g}".format
STREAMING = (  # reports/streaming.py
    Metric("first_chunk_s", "first chunk (s)", "first", "first_chunk_s", "lower", _SHORT, group="streaming"),
    Metric("interval_s", "interval (s)", "gap", "interval_s", "lower", _SHORT, group="streaming"),
    Metric("interval_p95_s", "interval p95 (s)", "gap95", "interval_p95_s", "lower", _SHORT, group="streaming"),
    Metric("fps_vae", "frames/s", "fps", "fps_vae", "higher", _SHORT, group="streaming"),
    Metric("fps_denoise", "frames/s, no VAE", "no VAE", "fps_denoise", "higher", _SHORT, group="streaming"),
    Metric(
        "missed",
        "late chunks",
        "late",
        "missed",
        "lower",
        "{:.0f} %".format,
        100.0,
        most=100,
        shape="any",
        group="streaming",
    ),
)
FRAMES = ("sharpness", "colour", "saturation", "motion")  # measures of eval/alone.py
CLIPS = (  # dimensions that VBench-Long scores on any prompt
    "subject_consistency",
    "background_consistency",
    "motion_smoothness",
    "dynamic_degree",
    "aesthetic_quality",
    "imaging_quality",
)
SHORT = {  # titles in a narrow terminal
    "sharpness": "sharp",
    "saturation": "satur",
    "subject_consistency": "subject",
    "background_consistency": "background",
    "motion_smoothness": "smooth",
    "dynamic_degree": "dynamic",
    "aesthetic_quality": "aesthetic",
    "imaging_quality": "imaging",
}


def _drift(name: str) -> Metric:
    title = f"drift of {name.replace('_', ' ')}" + " (VBench)" * (name in CLIPS)
    source = f"drift_{name}"
    return Metric(source, title, SHORT.get(name, name), source, "lower", _SHORT, quality=True, group="drift")


DRIFT = tuple(_drift(name) for name in (*FRAMES, *CLIPS))
OPTIONAL = {"streaming": STREAMING, "drift": DRIFT}  # columns that a table has if it is asked for them
EVERY = (*METRICS, *STREAMING, *DRIFT)
BY_NAME = {metric.name: metric for metric in METRICS}
SIMILARITIES = [BY_NAME[name] for name in ("lpips", "ssim", "psnr")]
ALSO = {  # more numbers for the csv and the figures: (column of Study.videos, scale, whether it is a ratio)
    "speedup_denoise": ("speedup_denoise", 1.0, True),
    "flops_pf_masked": ("flops_masked", 1e-15, False),
    "peak_reserved_gb": ("memory_reserved", 1e-9, False),
    "decode_s": ("decode_s", 1.0, False),
    **{metric.name: (metric.source, metric.scale, False) for metric in (*STREAMING, *DRIFT)},
}


def chosen(asked: Collection[str]) -> tuple[Metric, ...]:
    """The columns of a table that was asked for some groups of `OPTIONAL`."""
    return tuple(metric for metric in EVERY if not metric.group or metric.group in asked)
