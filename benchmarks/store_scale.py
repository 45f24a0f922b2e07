"""The speed of a store with 100,000 records: `python -m benchmarks.store_scale [records=100000] [at=FOLDER]`.

Makes records like those of a run (a run.json and a quality.json of the usual size, sealed files of a few bytes). Times
the status of a sweep, the resume (which videos are left to do), and the table from which reports start. Each runs in a
separate process, once without an index and once with it. The resume runs once more with the time of every file changed,
as in a copied store. It also measures the number of records per second that one process writes.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from store import SCHEMA, SEALED, Store, checksum
from terminal import tolerate

CELLS = 20  # lines of a table
FRAMES = 257
LIMIT = 10.0  # largest number of seconds for each with an index
READ = {  # name: program that is timed; its arguments are the folder and the number of records
    "status": "from store import Store, print_status; print_status(Store(root, create=False))",
    "resume": "from store import Store; store = Store(root)\n"
    "for n in range(int(sys.argv[2])): assert store.find('big', f'scope{n % 20}', None, f'{n:012x}')\n"
    "store.remember()",
    "report index": "from reports.records import load; from pathlib import Path; "
    "assert len(load(Path(root)).videos) == int(sys.argv[2])",
}


def record(n: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The run.json and quality.json of the n-th video, with the size of real ones."""
    draw = random.Random(n)
    return _run(n, draw), _quality(n, draw)


def _run(n: int, draw: random.Random) -> dict[str, Any]:
    model = {f"setting_{i}": i / 7 for i in range(30)} | {"architecture": {f"part_{i}": i for i in range(20)}}
    method = {"class": "scope.method.Scope", "code": "0" * 12, **{f"knob_{i}": i / 3 for i in range(12)}}
    prompt = f"a video of {draw.random()}, described in about as many words as a prompt of a suite has, number {n}"
    return {
        "status": "ok",
        "reason": "",
        "prompt": prompt,
        "prompt_id": f"{n // CELLS:05d}",
        "seed": 0,
        "reference_key": f"{n:012x}",
        "weights": "pretrained",
        "frames": FRAMES,
        "height": 544,
        "width": 960,
        "fps": 24,
        "frame_borders": [97, 177],
        "site": "velocity",
        "estimated": False,
        "method_label": "",
        "forwards": 400,
        "iterations": 200,
        "segments": [70, 65, 65],
        "state_bytes": 0,
        "counters": {},
        "produced_by": {"model": model, "weights": "1" * 12, "method": method, "prompt": prompt, "seed": 0},
        "environment": {f"package_{i}": f"{i}.0" for i in range(20)} | {"gpu": "GPU", "cpu": "CPU"},
        "seconds": {name: draw.random() * 1000 for name in ("denoise", "decode", "text", "total", "warmup")},
        "peak_memory": {"allocated": draw.randrange(10**11), "reserved": draw.randrange(10**11)},
        "flops": {"dense": draw.random() * 1e17, "masked": draw.random() * 1e17, "executed_fraction": draw.random()},
        "decisions": {"cache": 50, "predict": 50, "recompute": 100},
        "command": "python run.py " + "word " * 10,
    }


def _quality(n: int, draw: random.Random) -> dict[str, Any]:
    curves = {name: [draw.random() for _ in range(FRAMES)] for name in ("psnr", "ssim", "lpips")}
    return {
        "psnr": 30.0 + draw.random(),
        "ssim": draw.random(),
        "lpips": draw.random(),
        "identical": False,
        "reference": f"{n:012x}",
        "validity": {"status": "ok", "reasons": [], "warnings": []},
        "measures": {f"measure_{i}": draw.random() for i in range(8)},
        "metric_versions": {f"metric_{i}": "a few words on how it was measured" for i in range(7)},
        "per_frame": curves,
    }


def fill(root: Path, records: int) -> None:
    """Write the records directly to their folders, since only reading is measured."""
    Store(root)
    places = [(root / "big" / f"scope{n % CELLS}" / f"{n:012x}") for n in range(records)]
    for n, place in enumerate(places):
        place.mkdir(parents=True)
        for name in SEALED:
            (place / name).write_text(f"{name} of {n}")
    for n, place in enumerate(places):  # later than the sealed files, as in a real run
        method, key = place.parts[-2:]
        run, quality = record(n)
        files = {name: checksum(place / name) for name in SEALED}
        whole = run | {"model": "big", "method": method, "speed": None, "key": key, "schema": SCHEMA, "files": files}
        (place / "run.json").write_text(json.dumps(whole, indent=1))
        (place / "quality.json").write_text(json.dumps(quality, indent=1))


def timed(what: str, root: Path, records: int) -> tuple[float, float]:
    """(wall seconds, CPU seconds) of a process that runs READ[what]."""
    program = f"import logging, sys; logging.disable(); root = sys.argv[1]\n{READ[what]}"
    begin, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", program, str(root), str(records)], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - begin, spent


def writes(root: Path, count: int = 200) -> tuple[float, float]:
    """Records per second that one process stores on disk, and claims per second that it takes and releases."""
    store = Store(root)
    begin = time.perf_counter()
    for n in range(count):
        with store.stage("big", "written", None, f"{n:012x}") as stage:
            for name in SEALED:
                (stage.path / name).write_bytes(bytes(1000))
            stage.run |= {"status": "ok"}
    stored = time.perf_counter()
    for n in range(count):
        with store.claims.claim("big/written", f"{n}"):
            pass
    return count / (stored - begin), count / (time.perf_counter() - stored)


def main(arguments: Sequence[str]) -> int:
    """The command line. Returns 1 if one of READ takes longer than LIMIT with an index, else 0."""
    given = dict(word.partition("=")[::2] for word in arguments)
    records = int(given.get("records", 100_000))
    root = Path(given.get("at") or tempfile.mkdtemp(prefix="store_scale_"))
    slow = []
    try:
        if not root.joinpath("big").exists():
            begin = time.perf_counter()
            fill(root, records)
            took = time.perf_counter() - begin
            print(f"{records} records written in {took:.0f} s, {os.cpu_count()} cores", flush=True)
        time.sleep(2.5)  # the index skips files that have just changed
        for state in ("without an index", "with an index"):
            for what in READ:
                if state == "without an index":
                    shutil.rmtree(root / ".cache" / "index", ignore_errors=True)
                seconds, spent = timed(what, root, records)
                print(f"{what}, {state}: {seconds:.1f} s, {spent:.1f} s of the processor", flush=True)
                slow += [what] * (seconds > LIMIT and state == "with an index")
        for path in root.glob("big/*/*/*.*"):
            path.touch()
        time.sleep(2.5)
        for state in ("of a copied store", "of it again"):
            seconds, spent = timed("resume", root, records)
            print(f"resume, {state}: {seconds:.1f} s, {spent:.1f} s of the processor", flush=True)
        stored, claimed = writes(root)
        shutil.rmtree(root / "big" / "written")
        print(f"stored by one process: {stored:.0f} records a second; claims: {claimed:.0f} a second")
        sizes = [path.stat().st_size for path in (root / ".cache" / "index").rglob("*.json")]
        print(f"the index takes {sum(sizes) / records:.0f} bytes a record")
    finally:
        if "at" not in given:
            shutil.rmtree(root, ignore_errors=True)
    return int(bool(slow))


if __name__ == "__main__":
    tolerate()
    sys.exit(main(sys.argv[1:]))
