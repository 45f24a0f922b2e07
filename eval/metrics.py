"""PSNR, SSIM and LPIPS as pure functions of two stacks of frames.

    python -m eval.metrics REFERENCE VIDEO        # any two video files; the last line is one JSON object

Frames are (T, H, W, 3) RGB, uint8 or float in [0, 1]. Other input is refused, because it often gives wrong numbers:
uint8 differences that wrap, LPIPS of [0, 255], a data range guessed from the pictures. Every function returns one value
per frame. The value of a video is their mean; PSNR is pooled (below). Both videos must have the same size and number of
frames.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch

from eval import lossless, lpips_weights, video, winograd
from eval.ssim import ssim
from eval.stacks import Frames, MismatchError, chunk, pair, unit
from terminal import tolerate

PSNR_CAP = 100.0  # dB of a frame without error in a mean over frames; the smallest uint8 error is below it


@dataclass(frozen=True)
class Convention:
    """How a metric is computed. `strict` is our convention; the others reproduce published numbers of a source."""

    psnr: str = "pooled"  # or "frame_mean": 1.5 to 4 dB higher if the error grows over time
    ssim_border: str = "reflect"  # or "valid": the map without the 5 pixels next to each border
    lpips_spatial: bool = False  # True averages the upsampled map; changes the value by 1e-5
    lpips_rescale: bool = True  # False gives the network [0, 1], although it was trained on [-1, 1]


CONVENTIONS = {
    "strict": Convention(),
    "flowcache": Convention(lpips_spatial=True),  # FlowCache and EasyCache, tools/video_metrics.py
    "teacache": Convention("frame_mean", "valid", lpips_spatial=True),  # TeaCache and VideoSys, eval/
    "lpips_default": Convention(lpips_rescale=False),  # lpips.LPIPS()(a, b) on frames in [0, 1]
}


@dataclass(frozen=True)
class Similarity:
    """A video compared with its reference. PSNR in dB, higher is better; SSIM at most 1; LPIPS from 0, lower is
    better."""

    psnr: float | None  # None if the videos are identical: the value is infinite
    psnr_frame_mean: float
    ssim: float
    lpips: float | None  # None if the network's weights are not on this machine
    frames: int
    identical: bool
    per_frame: dict[str, list[float | None]]
    lpips_missing: str | None = None

    def to_json(self, per_frame: bool = True) -> dict:
        """A dictionary for json.dump. It has `lpips_missing` only if LPIPS is missing."""
        hidden = set() if per_frame else {"per_frame"}
        hidden |= set() if self.lpips_missing else {"lpips_missing"}
        return {name: value for name, value in vars(self).items() if name not in hidden}


def mse(frames: Frames, reference: Frames) -> np.ndarray:
    """The mean squared error of each frame, of values in [0, 1], float64 (T,). Exact for uint8 frames."""
    a, b = pair(frames, reference)
    if a.dtype == b.dtype == torch.uint8:
        # exact: float32 represents differences of bytes and their squares, and float64 their sum
        squares = [(x.float() - y.float()).square_().sum(dtype=torch.float64) for x, y in zip(a, b, strict=True)]
        return torch.stack(squares).cpu().numpy() / (255.0**2 * a[0].numel())
    return (unit(a, torch.float64) - unit(b, torch.float64)).square().flatten(1).mean(1).cpu().numpy()


def psnr(error: np.ndarray) -> float | None:
    """Pooled PSNR in dB of a video from the `mse` of its frames; None (infinite) if the videos are identical.

    -10 log10 of the mean over all pixels, channels and frames: FlowCache's convention (tools/video_metrics.py). It is
    finite unless the videos are identical, and does not favour a video whose error grows over time.
    """
    pooled = float(np.mean(error))
    return -10 * math.log10(pooled) if pooled > 0 else None


def psnr_per_frame(error: np.ndarray, cap: float = PSNR_CAP) -> np.ndarray:
    """The PSNR in dB of each frame from its `mse`, at most `cap`, float64 (T,). The mean is TeaCache's PSNR (eval/)."""
    return np.minimum(-10 * np.log10(np.maximum(error, 10 ** (-cap / 10))), cap)


def lpips(frames: Frames, reference: Frames, network: torch.nn.Module, rescale: bool = True) -> np.ndarray:
    """The LPIPS of each frame, float64 (T,), from 0 (noise exceeds 1). Zhang et al. 2018, linear heads v0.1.

    Args:
        network: `lpips_weights.load("alex" | "vgg")`, on the device to use. With spatial=True it returns maps, which
        are
            averaged here.
        rescale: map the frames from [0, 1] to [-1, 1], as the network expects. False only to reproduce other numbers.
    """
    a, b = pair(frames, reference)
    if min(a.shape[1:3]) < 32:
        raise ValueError(f"LPIPS wants frames of at least 32×32 pixels, got {a.shape[2]}×{a.shape[1]}")
    device = next(network.parameters()).device
    values = []
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for x, y in zip(a.split(chunk(a)), b.split(chunk(a)), strict=True):
            x, y = (unit(z.to(device), torch.float32).permute(0, 3, 1, 2) for z in (x, y))  # channels last in memory
            x, y = (2 * x - 1, 2 * y - 1) if rescale else (x, y)
            values.append(network(x, y).flatten(1).mean(1))
    return torch.cat(values).double().cpu().numpy()


def compare(
    reference: str | Path,
    candidate: str | Path,
    net: str = "alex",
    compat: str = "strict",
    device: str = "cpu",
    weights: Path | None = None,
    batch: int = 8,
    look: Callable[[np.ndarray, np.ndarray], None] | None = None,
) -> Similarity:
    """All metrics of a video file compared with its reference. At any time, memory holds `batch` frames of each.

    Args:
        net: "alex", "vgg" (takes thirty times as long), or "none" to omit LPIPS.
        compat: the convention of `psnr`, `ssim` and `lpips`, a name in CONVENTIONS.
        weights: a backbone file for LPIPS; default: the file that `lpips_weights.find` finds.
        look: called with every batch: frames of the reference, frames of the video.

    Raises MismatchError if sizes or frame counts differ, video.VideoError if a file cannot be read.
    """
    if compat not in CONVENTIONS:
        raise ValueError(f"compat={compat} is unknown; want {', '.join(CONVENTIONS)}")
    convention = CONVENTIONS[compat]
    network, missing = _lpips_network(net, weights, convention.lpips_spatial, device)
    rows: dict[str, list] = {"error": [], "ssim": [], "lpips": []}
    for a, b in lock_step(reference, candidate, batch):
        x, y = (torch.from_numpy(frames).to(device) for frames in (b, a))
        if look is not None:
            look(a, b)
        rows["error"].append(mse(x, y))
        rows["ssim"].append(ssim(x, y, convention.ssim_border))
        if network is not None:
            rows["lpips"].append(lpips(x, y, network, convention.lpips_rescale))
    return summarise({name: np.concatenate(parts) for name, parts in rows.items() if parts}, convention, missing)


def _lpips_network(
    net: str, weights: Path | None, spatial: bool, device: str
) -> tuple[torch.nn.Module | None, str | None]:
    """(the network, None), or (None, why LPIPS is not computed)."""
    if net == "none":
        return None, "not asked for"
    try:
        path = lpips_weights.find(net, weights)
        return _network(net, path, path.stat().st_mtime_ns, spatial, device), None
    except lpips_weights.MissingWeights as error:
        return None, str(error)


def summarise(rows: dict[str, np.ndarray], convention: Convention, lpips_missing: str | None = None) -> Similarity:
    """The values of a video from those of its frames: `error` (see `mse`), `ssim` and optionally `lpips`, each (T,)."""
    error, frame_psnr = rows["error"], psnr_per_frame(rows["error"])
    mean = float(frame_psnr.mean())
    curves = {
        "psnr": [None if e == 0 else float(p) for e, p in zip(error, frame_psnr, strict=True)],
        "ssim": rows["ssim"].tolist(),
        "lpips": rows["lpips"].tolist() if "lpips" in rows else [],
    }
    return Similarity(
        psnr=psnr(error) if convention.psnr == "pooled" else mean,
        psnr_frame_mean=mean,
        ssim=float(rows["ssim"].mean()),
        lpips=float(rows["lpips"].mean()) if "lpips" in rows else None,
        frames=len(error),
        identical=bool((error == 0).all()),
        per_frame=curves,
        lpips_missing=lpips_missing,
    )


def lock_step(reference: str | Path, candidate: str | Path, batch: int = 8) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of the shown frames of both files, with equal lengths.

    Raises MismatchError before the first batch if sizes or frame counts differ, and later if a file has fewer frames
    than it declares."""
    a, b = video.probe(reference), video.probe(candidate)
    if (a.height, a.width) != (b.height, b.width) or a.frames != b.frames:
        raise MismatchError(
            f"{candidate} has {b.frames} frames of {b.width}×{b.height} and its reference "
            f"{reference} has {a.frames} of {a.width}×{a.height}; generate both with the same "
            "number of frames and the same size."
        )
    for x, y in zip_longest(video.read(reference, batch), video.read(candidate, batch)):
        if x is None or y is None or len(x) != len(y):
            raise MismatchError(f"{candidate} and {reference} declare {a.frames} frames, but one ends earlier.")
        yield x, y


@lru_cache(maxsize=2)
def _network(net: str, weights: Path, modified: int, spatial: bool, device: str) -> torch.nn.Module:
    network = lpips_weights.load(net, weights, spatial)
    return winograd.quicken(network) if device == "cpu" else network.to(device)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line. Returns 0, or 2 if the two files cannot be compared."""
    tolerate()
    parser = argparse.ArgumentParser(prog="python -m eval.metrics", description=__doc__.splitlines()[0])
    parser.add_argument("reference", type=Path)
    parser.add_argument("video", type=Path)
    parser.add_argument("--net", choices=("alex", "vgg", "none"), default="alex", help="LPIPS backbone")
    parser.add_argument("--compat", choices=tuple(CONVENTIONS), default="strict", help="convention of the metrics")
    parser.add_argument("--weights", type=Path, help="LPIPS backbone file (safetensors or torchvision's .pth)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--per-frame", action="store_true", help="add the curves")
    options = parser.parse_args(
        [
            f"--{w}" if w.startswith(("compat=", "net=", "device=")) else w  # the syntax of run.py
            for w in (sys.argv[1:] if arguments is None else arguments)
        ]
    )
    try:
        similarity = compare(
            options.reference, options.video, options.net, options.compat, options.device, options.weights
        )
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    known, notes = lossless.told((options.reference, options.video))
    print(*(f"note: {note}" for note in notes), sep="\n", end="\n" * bool(notes), file=sys.stderr)
    print(json.dumps(similarity.to_json(options.per_frame) | {"compat": options.compat, "lossless": known}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
