"""The videos of one line of the main table as VBench scores them, and the values that their records hold."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from eval import vbench_suite
from eval.alone import ends
from eval.vbench_suite import Video
from eval.vbench_total import DIMENSIONS, FACTS
from store import Record

PROTOCOLS = {"standard": "vbench", "long": "vbench_long"}  # protocol: name of its values in quality.json
LONG_FROM = 5.0  # seconds; VBench's FAQ recommends VBench-Long from this length on


@dataclass
class Cell:
    """The videos of one line of the main table, and the errors of its dimensions."""

    name: str
    own_prompts: bool
    videos: list[Video]
    left_out: Counter[str]
    problems: dict[str, str] = field(default_factory=dict)  # dimension: why its run failed

    def wanted(self, dimension: str, entries: Sequence[dict]) -> list[Video]:
        """The videos of a dimension: those of its prompts, or all videos if they do not have VBench's prompts."""
        if not self.own_prompts:
            return [] if DIMENSIONS[dimension].get("own_prompts") else self.videos
        of_dimension = set(vbench_suite.prompts(entries, dimension))
        return [video for video in self.videos if video.prompt in of_dimension]


def mean(values: Sequence[dict]) -> float:
    """VBench's mean of a dimension: over videos, or over frames for some dimensions."""
    weights = sum(value["weight"] for value in values)
    return sum(v["value"] * v["weight"] for v in values if v["weight"]) / weights if weights else math.nan


def has(record: Record, dimension: str, protocol: str) -> bool:
    return dimension in values_of(record, protocol)


def values_of(record: Record, protocol: str) -> dict[str, dict]:
    """{dimension: {"value", "weight"}} of a record under a protocol and this version of VBench."""
    quality, name = record.quality or {}, PROTOCOLS[protocol]
    about = quality.get(f"{name}_about", {})
    if about.get("package") != FACTS["version"]:
        return {}
    return {d: {"value": v, "weight": about["weights"][d]} for d, v in quality.get(name, {}).items()}


def write(record: Record, dimension: str, value: dict, protocol: str) -> None:
    name, kept = PROTOCOLS[protocol], values_of(record, protocol) | {dimension: value}
    quality = record.quality or {}  # read again, because other metrics are written to the same file
    about = quality.get(f"{name}_about", {}) | {
        "package": FACTS["version"],
        "weights": {d: v["weight"] for d, v in kept.items()},
    }
    if value.get("fps"):
        about["seconds"] = value["frames"] / value["fps"]
    values = {d: v["value"] for d, v in kept.items()}
    scores = quality | {name: values, f"{name}_about": about}
    drift = ends(value.get("clips") or [])  # eval/alone.py; the clips of VBench-Long are in order
    if drift is not None:
        scores[f"{name}_drift"] = quality.get(f"{name}_drift", {}) | {dimension: drift}
    record.write_json("quality.json", scores)
