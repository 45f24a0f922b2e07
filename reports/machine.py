"""Numbers that may come from the machine and not from the method: small speedups, memory on a CPU, late times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from reports.line import Line
from reports.marks import Kind, Mark
from reports.records import Study

ON_CPU = "On a CPU, memory is that of the whole process and grows with earlier videos, so it is never bold."


def mark(lines: Sequence[Line]) -> list[Line]:
    """The lines; those whose speedup is no larger than that of the Original run twice are marked."""
    most = {model: spread(lines, model) for model in dict.fromkeys(line.model for line in lines)}
    return [
        replace(line, marks=(*line.marks, Mark(Kind.REPEAT_SPEED)))
        if line.accelerated and line.value("speedup") <= most[line.model]
        else line
        for line in lines
    ]


def spread(lines: Sequence[Line], model: str) -> float:
    """The largest speedup that the Original run twice can show.

    It is the upper end of its interval; without an interval, the largest of its videos; NaN if it was not run.
    """
    repeats = [line for line in lines if (line.model, line.method) == (model, "original_repeat") and len(line.valid)]
    if not repeats:
        return np.nan
    ends = [line.estimates["speedup"].high for line in repeats]
    if np.isnan(ends).any():
        ends = [speedup for line in repeats for speedup in line.valid["speedup"]]
    return float(np.nanmax([*ends, *(line.value("speedup") for line in repeats)]))


def trimmed(study: Study, lines: Sequence[Line], best: Sequence[frozenset[str]]) -> list[frozenset[str]]:
    """`best` of each line without such speedups and without memory on a CPU."""
    found = []
    for line, names in zip(lines, best, strict=True):
        lost = {"speedup"} if line.marked(Kind.REPEAT_SPEED) else set()
        lost |= {"peak_memory_gb"} if names and _on_cpu(study, line) else set()
        found.append(names - lost)
    return found


def notes(study: Study, lines: Sequence[Line]) -> list[str]:
    """The notes on both, if they apply."""
    found = [
        f"{line.name} on {line.model}: {mark}; it may come from the machine and not from the method."
        for line in lines
        for mark in line.marked(Kind.REPEAT_SPEED)
    ]
    found += [
        f"{line.name} on {line.model}: for {int(line.valid['again_s'].notna().sum())} of its {len(line.valid)} videos "
        "the Original was timed again beside it, because its first time was taken much earlier or under another load."
        for line in lines
        if line.valid["again_s"].notna().any()
    ]
    return found + [ON_CPU] * any(_on_cpu(study, line) for line in lines) + float32(study, lines)


def float32(study: Study, lines: Sequence[Line]) -> list[str]:
    """How MAGI-1's projection after attention, 7 % of its FLOPs and released in float32, was multiplied on a GPU."""
    named: dict[str, list[str]] = {}
    for line in lines:
        for _, video in line.records.head(1).iterrows():
            run = study.record(video).run
            environment, made = run.get("environment") or {}, (run.get("produced_by") or {}).get("model") or {}
            precision = made.get("proj_precision")
            if environment.get("device") == "cuda" and precision in ("fp32", "tf32"):
                fast = precision == "tf32" or environment.get("tf32")
                named.setdefault("with TF32" if fast else "without TF32", []).append(line.name)
    slow = {"without TF32": " and may take as long as all the others"}
    return [
        f"{', '.join(names)}: the projection after attention was multiplied in float32 {how}. It is 7 % of MAGI-1's "
        f"FLOPs{slow.get(how, '')}; model.proj_precision=fp32|tf32|bf16 sets it."
        for how, names in named.items()
    ]


def _on_cpu(study: Study, line: Line) -> bool:
    environments = (study.record(video).run.get("environment") or {} for _, video in line.records.iterrows())
    return any(environment.get("device") == "cpu" for environment in environments)
