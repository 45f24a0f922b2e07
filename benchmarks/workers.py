"""The time of a sweep with one worker and with several: `python -m benchmarks.workers [cells=16] [workers=2]`.

The same sweep of tiny cells runs in new folders, with one process and with several (hydra/launcher=joblib), each with
one thread. A cell is one video of the Original with its own seed. The wall time includes the start of all processes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from terminal import tolerate

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 0.6  # largest share of one worker's time, for two workers on two cores
TINY = ["model=skyreels_tiny", "prompts.limit=1", "score=false", "report=false", "device=cpu"]


def sweep(results: Path, cells: int, *more: str) -> float:
    """Seconds of a sweep of `cells` cells. Raises RuntimeError with its output if it fails."""
    seeds = ",".join(f"[{n}]" for n in range(cells))
    words = ["-m", *TINY, f"results={results}", "method=original", f"seeds={seeds}", *more]
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(done.stdout[-3000:])
    return time.perf_counter() - begin


def main(arguments: Sequence[str]) -> int:
    """The command line. Returns 1 if several workers take more than LIMIT of one worker's time, else 0."""
    given = {name: int(value) for name, _, value in (word.partition("=") for word in arguments)}
    cells, workers = given.get("cells", 16), given.get("workers", 2)
    with tempfile.TemporaryDirectory() as folder:
        seconds = {}
        for name, words in (("one", []), ("several", ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={workers}"])):
            seconds[name] = sweep(Path(folder) / name, cells, *words)
            print(f"{cells} cells, {name}: {seconds[name]:.1f} s", flush=True)
    ratio = seconds["several"] / seconds["one"]
    print(f"{workers} workers take {ratio:.2f} of one worker's time on {os.cpu_count()} cores")
    return int(ratio > LIMIT)


if __name__ == "__main__":
    tolerate()
    sys.exit(main(sys.argv[1:]))
