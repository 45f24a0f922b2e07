"""VBench's total: each dimension is scaled to its published range and weighted; quality to semantic is 4 : 1.

The ranges and weights are those of the leaderboard (Huang et al. 2024, `scripts/constant.py`) and reproduce published
totals within their rounding. The leaderboard's script uses 0 for a missing dimension, which becomes negative by the
scaling, and still prints a total. Here the total exists only if all 16 dimensions have scores.
"""

import csv
import json
import math
from collections.abc import Mapping
from pathlib import Path

FACTS = json.loads((Path(__file__).parent / "vbench_data" / "vbench.json").read_text())
DIMENSIONS: dict[str, dict] = FACTS["dimensions"]  # in the order of the published tables
QUALITY_SHARE, SEMANTIC_SHARE = 4.0, 1.0


class VBenchError(ValueError):
    """VBench cannot run, or its scores cannot be used. The message says what is missing and what to do."""


def missing(scores: Mapping[str, float | None]) -> list[str]:
    """The dimensions without a finite score, in the order of the published tables."""
    return [name for name in DIMENSIONS if (value := scores.get(name)) is None or not math.isfinite(value)]


def total(scores: Mapping[str, float | None]) -> dict[str, float]:
    """{"quality", "semantic", "total"} in percent, from the 16 dimension scores in [0, 1].

    Scaled scores are not clipped; the leaderboard does the same. VBenchError if a dimension is missing or out of range.
    """
    if absent := missing(scores):
        raise VBenchError(f"no total without {', '.join(absent)}: {16 - len(absent)} of 16 dimensions have a score")
    if outside := [name for name in DIMENSIONS if not 0 <= scores[name] <= 1]:  # type: ignore[operator]
        raise VBenchError(f"{', '.join(outside)} must be in [0, 1]; only the file that `total` reads has percent")
    parts = {part: _weighted_mean(scores, part) for part in ("quality", "semantic")}
    both = QUALITY_SHARE * parts["quality"] + SEMANTIC_SHARE * parts["semantic"]
    return {**parts, "total": both / (QUALITY_SHARE + SEMANTIC_SHARE)}


def totals_of_file(path: str | Path) -> list[dict[str, float]]:
    """The `total` of each line of a CSV file, in percent. Its columns have the names of the dimensions.

    The VBenchError lists every line with a missing dimension, by its number and its `model` column.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise VBenchError(f"{path} is not a CSV file in UTF-8: {error}") from error
    if not lines:
        raise VBenchError(f"{path} has no lines; want a header with the 16 dimensions and one line per model")
    results, refused = [], []
    for number, line in enumerate(lines, start=1):
        try:
            results.append(total({name: _percent(name, line.get(name)) for name in DIMENSIONS}))
        except VBenchError as error:
            refused.append(f"line {number} ({line.get('model') or 'unnamed'}): {error}")
    if refused:
        raise VBenchError(f"{path}: " + "; ".join(refused))
    return results


def _weighted_mean(scores: Mapping[str, float | None], part: str) -> float:
    facts = {name: fact for name, fact in DIMENSIONS.items() if fact["part"] == part}
    scaled = (f["weight"] * (scores[n] - f["min"]) / (f["max"] - f["min"]) for n, f in facts.items())  # type: ignore[operator]
    return 100 * sum(scaled) / sum(fact["weight"] for fact in facts.values())


def _percent(name: str, cell: str | None) -> float | None:
    if cell is None or not cell.strip():
        return None
    try:
        value = float(cell)
    except ValueError:
        raise VBenchError(f"{name} is {cell!r}; want percent") from None
    if math.isfinite(value) and not 0 <= value <= 100:
        raise VBenchError(f"{name} is {cell}; want percent, from 0 to 100")
    return value / 100
