"""The cost of comparing one pair of videos: PSNR, SSIM and LPIPS-alex of 257 frames of 544×960.

    python -m benchmarks.evaluation [frames=257] [height=544] [width=960] [net=alex] [device=cpu]

Writes a synthetic pair of lossless videos and compares it in a separate process with one thread. Measures CPU seconds
(which depend less on other load than wall time) and the peak of resident memory, then each part alone, and the whole on
a GPU if there is one. The last line is one JSON object. The target is 80 s and 1.5 GB on one core.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from eval import lpips_weights, metrics, video, winograd
from terminal import tolerate

CHILD = """
import json, resource, sys, time
import torch
torch.set_num_threads(1)
from eval import metrics
begin, clock = time.process_time(), time.perf_counter()
found = metrics.compare(sys.argv[1], sys.argv[2], net=sys.argv[3], device=sys.argv[4])
seconds, clock = time.process_time() - begin, time.perf_counter() - clock
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
gpu = torch.cuda.max_memory_allocated() if sys.argv[4] != "cpu" else 0
print(json.dumps({"cpu_s": seconds, "clock_s": clock, "peak_bytes": peak, "gpu_bytes": gpu,
                  "psnr": found.psnr, "ssim": found.ssim, "lpips": found.lpips, "lpips_missing": found.lpips_missing}))
"""


def scene(frames: int, height: int, width: int, noise: float) -> Iterator[np.ndarray]:
    """A moving smooth picture with noise, as uint8 batches (8, H, W, 3); `noise` is additional noise in levels."""
    rng = np.random.default_rng(0)
    canvas = gaussian_filter(rng.normal(size=(height + 64, width + 64, 3)), (6, 6, 0))
    canvas = 20 + 215 * (canvas - canvas.min()) / np.ptp(canvas)
    grain = rng.normal(0, 1, (height, width, 3)).astype(np.float32)
    for start in range(0, frames, 8):
        batch = []
        for t in range(start, min(start + 8, frames)):
            at = t * 64 // max(1, frames)
            moving = (2 + noise * (1 + t / frames)) * np.roll(grain, 7 * t, 1)
            picture = canvas[at : at + height, at : at + width] + moving
            batch.append(picture.clip(0, 255).astype(np.uint8))
        yield np.stack(batch)


def measure(folder: Path, net: str, device: str) -> dict:
    """The cost of one comparison of the pair in `folder`, in a separate process; see CHILD for the keys."""
    files = [str(folder / name) for name in ("reference.mp4", "video.mp4")]
    command = [sys.executable, "-c", CHILD, *files, net, device]
    child = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=Path(__file__).parents[1])
    found: dict = json.loads(child.stdout.splitlines()[-1])
    return found


def parts(folder: Path, net: str, count: int = 8) -> dict[str, float]:
    """CPU milliseconds per frame of each part, on one thread."""
    torch.set_num_threads(1)
    a, b = (next(video.read(folder / name, count)) for name in ("reference.mp4", "video.mp4"))
    x, y = torch.from_numpy(a), torch.from_numpy(b)
    work: dict[str, Callable[[], object]] = {
        "decode both": lambda: [next(video.read(folder / name, count)) for name in ("reference.mp4", "video.mp4")],
        "psnr": lambda: metrics.mse(x, y),
        "ssim": lambda: metrics.ssim(x, y),
    }
    if net != "none":
        network = winograd.quicken(lpips_weights.load(net))
        work["lpips"] = lambda: metrics.lpips(x, y, network)
    found = {}
    for name, function in work.items():
        function()
        begin = time.process_time()
        function()
        found[name] = 1000 * (time.process_time() - begin) / len(a)
    return found


def main(arguments: Sequence[str]) -> None:
    own = {"frames": "257", "height": "544", "width": "960", "net": "alex", "device": "cpu"}
    own |= dict(a.split("=", 1) for a in arguments)
    frames, height, width = (int(own[name]) for name in ("frames", "height", "width"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, noise in (("reference.mp4", 0.0), ("video.mp4", 4.0)):
            video.write_lossless(folder / file, scene(frames, height, width, noise))
        whole = measure(folder, own["net"], own["device"])
        found = {"frames": frames, "height": height, "width": width, "torch": torch.__version__, own["device"]: whole}
        if torch.cuda.is_available() and own["device"] == "cpu":
            found |= {"cuda": measure(folder, own["net"], "cuda"), "gpu": torch.cuda.get_device_name()}
        found |= {"ms_per_frame": parts(folder, own["net"])}
    print(
        f"{frames} frames of {width}×{height} on {own['device']}: {whole['cpu_s']:.1f} s of processor time "
        f"({whole['clock_s']:.1f} s by the clock), {whole['peak_bytes'] / 1e9:.2f} GB resident"
    )
    print(json.dumps(found))


if __name__ == "__main__":
    tolerate()
    main(sys.argv[1:])
