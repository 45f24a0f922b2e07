"""Check our MAGI-1 against numbers recorded from the official code: `python -m models.magi1.verify FOLDER`.

Prints one line per case, and last a JSON object {"cases": {name: {max_abs_error, tolerance, passed}}}. The exit status
is 1 if a case fails, if the folder has no recorded outputs, or if it cannot be read (the object then has an "error").
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

from terminal import tolerate

from .recorded import Recording


def verify(folder: Path, reference: bool = True) -> dict[str, Any]:
    """Run and print every case of `folder`; returns the JSON object. `reference` is as for `Recording`."""
    report: dict[str, Any] = {"cases": {}}
    try:
        for case in Recording(folder, reference).cases():
            mark = "ok  " if case.passed else "FAIL"
            print(f"{mark} {case.name:<47} {case.error:.2e} (<= {case.tolerance:.2e})", flush=True)
            error = case.error if math.isfinite(case.error) else None
            entry = {"max_abs_error": error, "tolerance": case.tolerance, "passed": case.passed}
            report["cases"][case.name] = entry
        if not report["cases"]:
            report["error"] = f"{folder} holds no recorded outputs"
    except (ValueError, LookupError, RuntimeError, OSError) as error:
        report["error"] = f"{type(error).__name__}: {error}"
    return report


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m models.magi1.verify", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="a folder recorded from the official code")
    parser.add_argument(
        "--stock",
        action="store_true",
        help="use the kernels that generate videos, not the recorder's order of operations",
    )
    options = parser.parse_args(arguments)
    report = verify(options.folder, reference=not options.stock)
    if "error" in report:
        print(report["error"], file=sys.stderr)
    print(json.dumps(report))
    return 0 if "error" not in report and all(case["passed"] for case in report["cases"].values()) else 1


if __name__ == "__main__":
    tolerate()
    sys.exit(main())
