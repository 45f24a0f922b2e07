"""What a figure shows, in words and numbers, for those who do not see it."""

from __future__ import annotations

from collections.abc import Sequence

from reports.line import Line, shown
from reports.metric import EVERY

BY_NAME = {metric.name: metric for metric in EVERY}
SHOWS = {  # figure: what it is, the metrics whose numbers are told
    "speed_quality": ("Quality against speedup", ("speedup", "psnr", "ssim", "lpips")),
    "radar": ("Speed, memory and quality of each line", ("speedup", "flops_speedup", "psnr", "peak_memory_gb")),
    "memory": ("Peak memory of a video", ("peak_memory_gb",)),
    "timeline": ("Decisions at each iteration; what they save", ("flops_speedup",)),
    "own_drift": (
        "Sharpness, colour, saturation and motion over the chunks of the video; drift of sharpness and colour",
        ("drift_sharpness", "drift_colour"),
    ),
    "drift": ("Distance from the Original over the time of the video; its mean", ("lpips", "psnr")),
}


def describe(kind: str, caption: str, lines: Sequence[Line]) -> str:
    """The caption of a figure without known numbers; else each line with its numbers.

    kind: the name of the figure; lines: those of its model, in the order of the table.
    """
    if kind not in SHOWS:
        return caption
    what, names = SHOWS[kind]
    told = []
    for line in lines:
        numbers = [f"{BY_NAME[name].title} {shown(line, BY_NAME[name])}" for name in names if line.known(name)]
        if numbers and not line.variant:
            told.append(f"{line.name}: {', '.join(numbers)}")
    return f"{what}. {'; '.join(told)}." if told else caption
