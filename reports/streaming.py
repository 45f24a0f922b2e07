"""How a video streams: when each of its chunks is on the screen, from the stamps in its record (engine/stamps.py).

A chunk is ready when its latents are denoised and its frames decoded, after all earlier chunks:

    ready_k = denoised_k + decoded_k        deadline_k = ready_1 + (frames before chunk k) / fps

Denoising and decoding are measured one after the other. Decoding each chunk as soon as its latents are final takes the
same time on one device, because the decoder needs no later latents.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

OLD = "recorded before chunks were stamped; python -m eval cannot add it"
ONE = "the video is one chunk: all its frames are ready at its end"
WHOLE = "it was decoded at its end (the decoder needs the whole video, or offload=all), so it is one chunk"
NUMBERS = ("ready_s", "interval_s", "interval_p95_s", "fps_vae", "fps_denoise", "missed")


def ready(run: Mapping[str, Any]) -> list[tuple[int, float]]:
    """(frames so far, seconds since the start without text) of every chunk; empty without stamps."""
    chunks = run.get("chunks") or {}
    times = zip(chunks.get("frames") or (), chunks.get("denoised") or (), chunks.get("decoded") or (), strict=False)
    return [(int(frames), float(denoised) + float(decoded)) for frames, denoised, decoded in times]


def late(chunks: list[tuple[int, float]], fps: float) -> list[bool]:
    """Whether each chunk misses its deadline, if the video is played from its first chunk on and never waits.

    >>> late([(4, 1.0), (8, 1.9), (12, 3.5)], 4.0)
    [False, False, True]
    """
    before = [0, *(frames for frames, _ in chunks[:-1])]
    return [seconds > chunks[0][1] + shown / fps for (_, seconds), shown in zip(chunks, before, strict=True)]


def numbers(run: Mapping[str, Any]) -> dict[str, float]:
    """`NUMBERS` of a video; NaN where there is none. `missed` is the share of the chunks after the first."""
    chunks, fps = ready(run), float(run.get("fps") or 0)
    found = dict.fromkeys(NUMBERS, math.nan)
    if not chunks:
        return found
    frames, total = chunks[-1]
    denoised = float(run["chunks"]["denoised"][-1])
    found["ready_s"] = chunks[0][1]
    found |= {name: frames / s for name, s in (("fps_vae", total), ("fps_denoise", denoised)) if s > 0}
    if len(chunks) > 1:
        intervals = [after - before for (_, before), (_, after) in pairwise(chunks)]
        found |= {"interval_s": float(np.median(intervals)), "interval_p95_s": float(np.percentile(intervals, 95))}
    if len(chunks) > 1 and fps > 0:
        found["missed"] = sum(late(chunks, fps)) / (len(chunks) - 1)
    return found


def add_text(videos: pd.DataFrame) -> None:
    """Add `first_chunk_s`: the seconds to encode the text and to make the first chunk.

    If the embeddings of a video were read from the cache, the median of the model's videos on the same device that
    were encoded is used. Without such videos, the seconds are without text.
    """
    encoded = videos["text_s"].where(videos["text_encoded"].astype(bool))
    usual = encoded.groupby([videos["model"], videos["device"]]).transform("median")
    videos["first_chunk_s"] = videos["ready_s"] + encoded.fillna(usual).fillna(0.0)
    videos["without_text"] = videos["ready_s"].notna() & encoded.fillna(usual).isna()


def lacks(run: Mapping[str, Any]) -> str:
    """Why a video has no number."""
    chunks = run.get("chunks") or {}
    if not chunks.get("frames"):
        return OLD
    return ONE if chunks.get("by_chunk", True) else WHOLE


def left_out(valid: pd.DataFrame) -> str:
    """What the time to the first chunk leaves out; "" if nothing."""
    some = int(valid["without_text"].sum())
    return f"{some} of {len(valid)} videos without the text, whose embeddings were read from the cache" if some else ""
