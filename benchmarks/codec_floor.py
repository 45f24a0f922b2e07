"""The effect of lossy mp4 files on the metrics, which is why only lossless frames are measured.

    python -m benchmarks.codec_floor [frames=33] [height=272] [width=480] [net=alex] [results=FOLDER count=4]

Encodes videos as the papers' scripts do. Compares (1) each mp4 with its own lossless frames, and (2) pairs of videos
with a known distance, once from lossless files and once from two mp4 files. The videos are synthetic
(benchmarks/evaluation.py), or with `results` the first `count` Originals of a store. The last line is one JSON object.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from benchmarks.evaluation import scene
from eval import metrics, video
from store import Store
from terminal import tolerate

CODECS = {  # name: (pixel format, options of libx264)
    "ours for people, crf 18": ("yuv420p", video.PREVIEW),
    "crf 23, the default (MAGI-1)": ("yuv420p", {"crf": "23", "x264-params": "asm=avx2"}),
    "crf 10, near imageio's quality 8 (SkyReels-V2)": ("yuv420p", {"crf": "10", "x264-params": "asm=avx2"}),
    "qp 0, 4:2:0": ("yuv420p", {"qp": "0", "x264-params": "asm=avx2"}),
    "qp 0, 4:4:4": ("yuv444p", {"qp": "0", "x264-params": "asm=avx2"}),
}
NOISE = (2.0, 6.0, 20.0)  # standard deviations of the noise between pairs, in levels of 0..255


def encode(path: Path, frames: np.ndarray, codec: str) -> None:
    """Write `frames` (T, H, W, 3) uint8, of even height and width, as an mp4 with CODECS[codec]."""
    pixel_format, options = CODECS[codec]
    with av.open(str(path.absolute()), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(24), options=dict(options))
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], pixel_format
        for picture in frames:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            colours = "ITU709" if "bt709" in options.get("x264-params", "") else None  # untagged files are BT.601
            container.mux(stream.encode(frame.reformat(format=pixel_format, dst_colorspace=colours)))
        container.mux(stream.encode())


def originals(own: dict[str, str]) -> Iterator[np.ndarray]:
    """The videos to compare, each (T, H, W, 3) uint8."""
    if own["results"]:
        records = [r for r in Store(own["results"], create=False).records() if r.run.get("method") == "original"]
        for record in records[: int(own["count"])]:
            yield video.read_all(record.path / "frames.mp4")
    else:
        size = [int(own[name]) for name in ("frames", "height", "width")]
        yield np.concatenate(list(scene(size[0], size[1], size[2], 0.0)))


def similarity(folder: Path, one: np.ndarray, other: np.ndarray, net: str, codec: str | None = None) -> dict:
    """PSNR, SSIM and LPIPS of two videos, from lossless files or, with `codec`, from two mp4 files."""
    for name, frames in (("one.mp4", one), ("other.mp4", other)):
        encode(folder / name, frames, codec) if codec else video.write_lossless(folder / name, frames)
    found = metrics.compare(folder / "one.mp4", folder / "other.mp4", net)
    return {name: getattr(found, name) for name in ("psnr", "ssim", "lpips")}


def measure(videos: Iterator[np.ndarray], net: str) -> dict[str, dict[str, dict[str, float | None]]]:
    """The means {compared pair: {"lossless" or codec: {"psnr", "ssim", "lpips"}}} over all videos."""
    rows: dict[str, dict[str, list[dict]]] = {}
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for frames in videos:
            for codec in CODECS:
                encode(folder / "lossy.mp4", frames, codec)
                lossy = video.read_all(folder / "lossy.mp4")
                rows.setdefault("a video and its mp4", {}).setdefault(codec, []).append(
                    similarity(folder, frames, lossy, net)
                )
            for level in NOISE:
                noisy = (frames + rng.normal(0, level, frames.shape)).clip(0, 255).astype(np.uint8)
                row = rows.setdefault(f"a pair {level:g} levels apart", {})
                row.setdefault("lossless", []).append(similarity(folder, frames, noisy, net))
                for codec in CODECS:
                    row.setdefault(codec, []).append(similarity(folder, frames, noisy, net, codec))
    return {
        what: {
            codec: {name: _mean([each[name] for each in found]) for name in found[0]} for codec, found in row.items()
        }
        for what, row in rows.items()
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def main(arguments: Sequence[str]) -> None:
    own = {"frames": "33", "height": "272", "width": "480", "net": "alex", "results": "", "count": "4"}
    own |= dict(a.split("=", 1) for a in arguments)
    found = measure(originals(own), own["net"])
    for what, row in found.items():
        print(what)
        for codec, values in row.items():
            shown = (f"{name} {value:.4g}" if value is not None else f"{name} –" for name, value in values.items())
            print(f"  {codec:46} {', '.join(shown)}")
    print(json.dumps(found))


if __name__ == "__main__":
    tolerate()
    main(sys.argv[1:])
