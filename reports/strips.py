"""Film strips: the same prompt and noise under every method (Figure 5), and fewer steps in the same time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from reports import style
from reports.records import Study, label, originals

SHOWN = 7  # frames of a strip, evenly spaced over the video
LONGEST = 90  # letters of a prompt above a strip

Wanted = Callable[[dict[str, str]], bool]


def methods(identity: dict[str, str]) -> bool:
    """Figure 5: the Original and the fast point of every method."""
    return identity["variant"] == "" and (identity["method"] == "original" or identity["speed"] == "fast")


def fewer_steps(identity: dict[str, str]) -> bool:
    """The Original, the Original with fewer steps, and SCOPE."""
    return identity["method"] == "reduced_steps" or (methods(identity) and identity["method"] in ("original", "scope"))


def frames(path: Path, count: int = SHOWN) -> np.ndarray | None:
    """`count` frames evenly spaced over a video, (count, H, W, 3) uint8; None if it cannot be read."""
    try:
        with av.open(str(path.absolute())) as container:
            total = sum(1 for _ in container.decode(video=0))  # a file's own count includes what an edit list hides
        wanted = np.linspace(0, total - 1, count).round().astype(int)
        with av.open(str(path.absolute())) as container:
            kept = {
                n: frame.to_ndarray(format="rgb24") for n, frame in enumerate(container.decode(video=0)) if n in wanted
            }
        return np.stack([kept[n] for n in wanted])
    except (av.error.FFmpegError, IndexError, KeyError, ValueError):
        return None


def strips(study: Study, wanted: Wanted, needs: str = "") -> Figure | None:
    """A block per model, for the first prompt that the Original and another line have.

    needs: a method that must be among the lines; otherwise the model has no block.
    """
    blocks = [
        (model, found)
        for model in study.models
        if len(found := _videos(study, model, wanted)) > 1
        and (not needs or any(video["method"] == needs for video, _ in found))
    ]
    if not blocks:
        return None
    with rc_context(style.SETTINGS):
        shapes = [found[0][1].shape for _, found in blocks]  # of the Original's frames: (SHOWN, H, W, 3)
        heights = [
            0.32 + 1.07 * len(found) * shape[1] / shape[2] for (_, found), shape in zip(blocks, shapes, strict=True)
        ]
        tight = ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.01, wspace=0.01, hspace=0.01)
        figure = Figure((1.05 * SHOWN + 1.1, sum(heights)), layout=tight)
        parts = np.ravel(figure.subfigures(len(blocks), 1, height_ratios=heights, squeeze=False))
        for part, (model, found) in zip(parts, blocks, strict=True):
            _block(part, model, found)
    return figure


def _videos(study: Study, model: str, wanted: Wanted) -> list[tuple[pd.Series, np.ndarray]]:
    """One video of each wanted line with its frames, all with the same Original, which comes first."""
    videos = study.videos[(study.videos["model"] == model) & (study.videos["status"] == "ok")]
    chosen = [wanted(video) and video["weights"] != "random" for video in videos.to_dict("records")]
    videos = videos[np.array(chosen, bool)]
    for _, group in videos.groupby(originals(videos), sort=False):
        found = list(_readable(study, group.drop_duplicates(["method", "speed", "variant"])))
        if len(found) > 1 and found[0][0]["method"] == "original":
            return found
    return []


def _readable(study: Study, group: pd.DataFrame) -> Iterator[tuple[pd.Series, np.ndarray]]:
    for _, video in group.iterrows():
        pictures = frames(study.record(video).path / "frames.mp4")
        if pictures is not None:
            yield video, pictures


def _block(part: SubFigure, model: str, found: list[tuple[pd.Series, np.ndarray]]) -> None:
    grid = part.subplots(len(found), SHOWN, squeeze=False)
    prompt = found[0][0]["prompt"]
    text = prompt if len(prompt) <= LONGEST else prompt[: LONGEST - 1] + "…"
    part.suptitle(f"{model}: {_plain(text)}", x=0.005, ha="left", fontsize=8.5, fontweight="bold")
    for panels, (video, pictures) in zip(grid, found, strict=True):
        for axes, picture in zip(panels, pictures, strict=True):
            axes.imshow(picture, interpolation="nearest", aspect="auto")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.grid(visible=False)
            axes.spines[:].set_visible(False)
        numbers = [f"{video['speedup']:.2f}×"] if math.isfinite(video["speedup"]) else []
        numbers += [f"{video['psnr']:.1f} dB"] if math.isfinite(video["psnr"]) else []
        name = style.short(label(video).replace(" (", "\n("), 28)
        if video["method"] != "original":
            name += "\n" + ", ".join(numbers)
        panels[0].set_ylabel(
            name, rotation=0, ha="right", va="center", fontsize=7.5, color=style.colour(video["method"])
        )


def _plain(text: str) -> str:
    """A prompt for matplotlib: without formulas (`$...$`), and with □ for letters that its font does not have."""
    return "".join(letter if letter.isprintable() and ord(letter) < 0x2500 else "□" for letter in text).replace(
        "$", "\\$"
    )
