"""The table docs/rehearsal.csv: a line for every method and variant that was rehearsed."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

COLUMNS = ("model", "method", "peak_gb", "state_gb", "decoding_gb", "waits_per_row", "kernels", "note")
GB = 1e9
Line = dict[str, str]


def line(row: Mapping[str, Any]) -> Line:
    """The line of a row of benchmarks/rehearsal.py. Its note is the refusal, or all faults, named ones too."""
    found = {"model": row["model"], "method": row["method"]}
    if row["refused"]:
        return dict.fromkeys(COLUMNS, "") | found | {"note": f"refused: {row['refused']}"}
    peaks = zip(("peak_gb", "state_gb", "decoding_gb"), ("denoising", "state", "decoding"), strict=True)
    found |= {column: f"{row[name] / GB:.2f}" for column, name in peaks}
    found |= {"waits_per_row": str(float(row["waits"]))}
    found["kernels"] = ", ".join(f"{name} {count}" for name, count in sorted(row["kernels"].items()))
    return found | {
        "note": "; ".join(f"{count} times {fault}" for fault, count in {**row["faults"], **row["named"]}.items())
    }


def update(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows into the table at `path`: over those of the same model and method, or after the model's last."""
    lines = read(path)
    for new in map(line, rows):
        places = [n for n, old in enumerate(lines) if old["model"] == new["model"]]
        same = [n for n in places if lines[n]["method"] == new["method"]]
        if same:
            lines[same[0]] = new
        else:
            lines.insert(places[-1] + 1 if places else len(lines), new)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


def read(path: Path) -> list[Line]:
    """The lines of the table; none if there is no file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
