"""The numeric columns of the tables: their source, how they are averaged, and how they are printed."""

from __future__ import annotations

from collections.abc import Callable
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
BY_NAME = {metric.name: metric for metric in METRICS}
SIMILARITIES = [BY_NAME[name] for name in ("lpips", "ssim", "psnr")]
ALSO = {  # more numbers for the csv and the figures: (column of Study.videos, scale, whether it is a ratio)
    "speedup_denoise": ("speedup_denoise", 1.0, True),
    "flops_pf_masked": ("flops_masked", 1e-15, False),
    "peak_reserved_gb": ("memory_reserved", 1e-9, False),
    "decode_s": ("decode_s", 1.0, False),
}
