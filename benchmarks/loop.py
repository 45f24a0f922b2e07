"""Makes README's looping picture from the videos of a store: one prompt and noise by several methods, side by side.

    python -m benchmarks.loop RESULTS [MODEL] [PROMPT]

Writes docs/loop.gif. PROMPT is the number of a prompt (0).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from eval.video import read
from reports import read as report
from reports.line import Line
from terminal import tolerate

OUT = Path(__file__).parents[1] / "docs" / "loop.gif"
SHOWN = ("original", "scope", "teacache")  # methods, in this order; of each the fastest line
SIDE, TITLE, EVERY, COLOURS = 192, 30, 4, 24  # pixels of a video and of its title; one frame in EVERY; colours


def main(arguments: list[str] | None = None) -> int:
    """Write the picture; returns 0."""
    tolerate()
    results, *rest = sys.argv[1:] if arguments is None else arguments
    found = report(results)
    model, number = (rest[0] if rest else found.study.models[0]), int(rest[1]) if len(rest) > 1 else 0
    lines = [line for line in found.lines if line.model == model]
    prompt = sorted(set(lines[0].valid["prompt_id"]), key=str)[number]
    tracks = []
    for method in SHOWN:
        line = max((one for one in lines if one.method == method), key=lambda one: one.value("flops_speedup"))
        video = line.valid[line.valid["prompt_id"] == prompt].iloc[0]
        frames = [frame for batch in read(found.study.record(video).path / "frames.mp4") for frame in batch]
        tracks.append((_title(line), frames[::EVERY]))
    pictures = [_picture([(title, frames[n]) for title, frames in tracks]) for n in range(len(tracks[0][1]))]
    fps = float(found.study.record(video).run["fps"])
    pictures[0].save(OUT, save_all=True, append_images=pictures[1:], duration=round(1000 * EVERY / fps), loop=0)
    print(f"{OUT}: {len(pictures)} frames, {OUT.stat().st_size / 1e3:.0f} kB")
    return 0


def _title(line: Line) -> str:
    name = line.name.partition(" (")[0]
    return name if line.method == "original" else f"{name}: {line.value('flops_speedup'):.1f}x fewer FLOPs"


def _picture(tracks: list[tuple[str, np.ndarray]]) -> Image.Image:
    """The frames of one moment side by side, each below its title."""
    sheet = Image.new("RGB", (len(tracks) * (SIDE + 6) - 6, SIDE + TITLE), "white")
    pen = ImageDraw.Draw(sheet)
    for place, (title, frame) in enumerate(tracks):
        left = place * (SIDE + 6)
        sheet.paste(Image.fromarray(frame).resize((SIDE, SIDE), Image.Resampling.NEAREST), (left, TITLE))
        pen.text((left, 10), title, fill="black", font_size=14)
    return sheet.quantize(COLOURS)


if __name__ == "__main__":
    sys.exit(main())
