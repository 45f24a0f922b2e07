"""Check our MAGI-1 against numbers recorded from the official code: `python -m models.magi1.verify FOLDER`.

Prints one line per case and last a JSON object {"cases": {name: {max_abs_error, tolerance, passed}}}. Exit status 1
if a case fails, if nothing was recorded, or if the folder cannot be used (the object then has an "error").
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

from torch.nn.attention import SDPBackend, sdpa_kernel

from .recorded import Recording


def verify(folder: Path) -> dict[str, Any]:
    """Run every case of `folder` and return the report."""
    report: dict[str, Any] = {"cases": {}}
    try:
        with sdpa_kernel(SDPBackend.MATH):  # the recorder's attention is a plain softmax
            for case in Recording(folder).cases():
                print(f"{'ok  ' if case.passed else 'FAIL'} {case.name:<46}{case.error:.2e} (<= {case.tolerance:.2e})")
                error = case.error if math.isfinite(case.error) else None
                entry = {"max_abs_error": error, "tolerance": case.tolerance, "passed": case.passed}
                report["cases"][case.name] = entry
        if not report["cases"]:
            report["error"] = f"{folder} holds no recorded outputs"
    except (ValueError, KeyError, RuntimeError, OSError) as error:
        report["error"] = f"{type(error).__name__}: {error}"
    return report


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m models.magi1.verify", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="a folder recorded from the official code")
    report = verify(parser.parse_args(arguments).folder)
    if "error" in report:
        print(report["error"], file=sys.stderr)
    print(json.dumps(report))
    return 0 if "error" not in report and all(case["passed"] for case in report["cases"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
