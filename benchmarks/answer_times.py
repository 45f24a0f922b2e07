"""CPU seconds (user and system, on whatever cores there are) until a command has answered, against what they may be.

    python -m benchmarks.answer_times [RESULTS] [--only WORD]

RESULTS is a folder that `python run.py results=RESULTS` has filled; without one, that is run first.
A dry run answers without the user's cache, like the first one on a machine. A line for each command: seconds, target,
verdict; last a JSON object with all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from engine.kept import FOLDER
from terminal import tolerate

ROOT = Path(__file__).resolve().parents[1]
RUN = str(ROOT / "run.py")
SWEEP = ("-m", "method=original,teacache,scope", "speed=slow,fast", "dry_run=true")
FAILS = ("a typo",)  # answers that end with status 1


def commands(results: Path) -> dict[str, tuple[list[str], float]]:
    """Name -> command and the CPU seconds that it may take."""
    filled = f"results={results}"
    return {
        "help": ([RUN, "--help"], 1.0),
        "a typo": ([RUN, "method=scop"], 1.0),
        "dry run of a sweep": ([RUN, *SWEEP, f"results={results.parent / 'none'}"], 3.0),
        "dry run of the paper": ([RUN, "experiment=paper", "dry_run=true", f"results={results.parent / 'none'}"], 20.0),
        "nothing to do": ([RUN, filled], 5.0),
        "report, drawn again": (["-m", "reports", str(results), "--again"], 8.0),
        "report, nothing new": (["-m", "reports", str(results)], 8.0),
    }


def spent(command: list[str], folder: Path, cache: Path | None = None) -> tuple[float, int, str]:
    """CPU seconds of a command and of all its processes, its exit status, and the end of what it said.

    `cache`: a folder in place of the user's cache.
    """
    environment = (
        os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"} | ({FOLDER: f"{cache}"} if cache else {})
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, done.returncode, (done.stdout + done.stderr)[-400:]


def main(arguments: list[str] | None = None) -> int:
    """Measure every command once; 0 if all keep their targets."""
    tolerate()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.answer_times", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("results", nargs="?", type=Path)
    parser.add_argument("--only", default="", help="only commands whose name holds this")
    options = parser.parse_args(arguments)
    found: dict[str, dict[str, float | bool]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        results = (options.results or Path(scratch) / "results").absolute()
        if not results.is_dir():
            subprocess.run([sys.executable, RUN, f"results={results}"], cwd=scratch, check=True)
        for name, (command, target) in commands(results).items():
            if options.only not in name:
                continue
            first = "dry_run=true" in command
            seconds, status, said = spent(command, Path(scratch), Path(scratch) / f"cache of {name}" if first else None)
            if status != (name in FAILS):
                print(f"{name}: ended with status {status}: {said}", file=sys.stderr)
                return 1
            kept = seconds <= target
            found[name] = {"seconds": round(seconds, 2), "target": target, "kept": kept}
            print(f"{name:22} {seconds:6.2f} s  of {target:4.1f}  {'kept' if kept else 'MISSED'}", flush=True)
    print(json.dumps(found))
    return int(not all(one["kept"] for one in found.values()))


if __name__ == "__main__":
    sys.exit(main())
