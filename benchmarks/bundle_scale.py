"""The speed and size of a bundle: `python -m benchmarks.bundle_scale [records=10000]`.

Records are of the usual size: a run.json as in benchmarks/store_scale.py, 257 frames with three curves that drift and
jitter as measured ones do, and the ledger of SkyReels-V2's 200 iterations. Times the export of a store (which reads its
files), writing the rows alone, and reading them with all checks. Prints one JSON object; the exit status is 1 if
writing and reading take more than `LIMIT` seconds or the file is larger than `MEGABYTES`.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.store_scale import CELLS, FRAMES, record
from store import SCHEMA, checksum, fingerprint
from store.bundle import SUFFIX, collect, write
from store.bundled import read
from store.checks import bound, with_seal
from store.store import Store
from terminal import tolerate

LIMIT = 10.0  # seconds to write and to read
MEGABYTES = 20.0
ROWS = 200  # iterations of SkyReels-V2 at 257 frames


def curve(draw: random.Random, start: float, step: float, jitter: float) -> list[float]:
    """A measure per frame: a random walk with independent noise on each frame."""
    value, found = start, []
    for _ in range(FRAMES):
        value += draw.gauss(0, step)
        found.append(value + draw.gauss(0, jitter))
    return found


def ledger(draw: random.Random) -> str:
    """The trace of a video: one decision per iteration on a staircase of 25 latent slots."""
    lines = []
    for n in range(ROWS):
        first = 5 * min(4, n % 70 // 15)
        mode = draw.choice(("cache", "predict", "recompute"))
        entry = {"iteration": n, "segment": n // 70, "unit": first // 5, "slots": [0, 25], "active": [first, 25]}
        entry |= {"branch": "", "sigma": round(1 - n % 70 / 70, 6), "step": n % 50, "mode": mode}
        entry |= {"score": round(draw.random(), 6), "why": "below tau_cache", "sites": ["velocity"]}
        entry |= {"seen": [0, 25], "idle": [], "kept": [0, 0], "copied": None, "probes": []}
        lines.append(json.dumps(entry, separators=(",", ":")))  # as engine/ledger.py writes it
    return "\n".join(lines)


def fill(root: Path, records: int) -> None:
    """Write records directly to their folders."""
    Store(root)
    for n in range(records):
        draw = random.Random(n)
        run, quality = record(n)
        key, method = fingerprint(run["produced_by"] | {"seed": n}), f"scope{n % CELLS}"
        run |= {"seed": n, "produced_by": run["produced_by"] | {"seed": n}, "model": "big", "method": method}
        place = root / "big" / method / key
        place.mkdir(parents=True)
        (place / "frames.mp4").write_text(key)
        (place / "trace.jsonl").write_text(ledger(draw))
        files = {name: checksum(place / name) for name in ("frames.mp4", "trace.jsonl")}
        run |= {"speed": None, "key": key, "key_version": 2, "schema": SCHEMA, "files": files}
        curves = {"psnr": (28.0, 0.1, 0.2), "ssim": (0.8, 0.002, 0.004), "lpips": (0.19, 0.002, 0.003)}
        quality["per_frame"] = {name: curve(draw, *of) for name, of in curves.items()}
        (place / "run.json").write_text(json.dumps(with_seal(run), indent=1))
        (place / "quality.json").write_text(json.dumps(bound(quality, run), indent=1))


def measured(records: int, folder: Path) -> dict[str, Any]:
    """Seconds (wall and CPU) and megabytes for this number of records."""
    fill(folder / "results", records)
    path = folder / f"bundle{SUFFIX}"
    found: dict[str, float] = {}
    clocks = [(time.perf_counter(), time.process_time())]
    rows, left = collect(Store(folder / "results"))
    clocks.append((time.perf_counter(), time.process_time()))
    write(rows, path)
    clocks.append((time.perf_counter(), time.process_time()))
    del rows
    got = read(path)
    clocks.append((time.perf_counter(), time.process_time()))
    if left or got.damaged or len(got.records) != records:
        raise RuntimeError(f"{len(got.records)} of {records} came back; {left or got.damaged}")
    for name, before, after in zip(("collect", "write", "read"), clocks, clocks[1:], strict=False):
        found |= {f"{name}_s": round(after[0] - before[0], 2), f"{name}_cpu_s": round(after[1] - before[1], 2)}
    return {"records": records, **found, "megabytes": round(path.stat().st_size / 1e6, 2)}


def main(arguments: Sequence[str]) -> int:
    """The command line."""
    given: dict[str, str] = dict(word.partition("=")[::2] for word in arguments)
    with tempfile.TemporaryDirectory(prefix="bundle_scale_") as folder:
        found = measured(int(given.get("records", 10_000)), Path(folder))
    print(json.dumps(found))
    return int(found["write_s"] + found["read_s"] > LIMIT or found["megabytes"] > MEGABYTES)


if __name__ == "__main__":
    tolerate()
    sys.exit(main(sys.argv[1:]))
