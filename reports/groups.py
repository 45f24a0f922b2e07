"""The lines of a table for a paper: those of one model and one setting of it stand together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from reports.line import Line
from reports.records import MOST_LINES, SPEEDS, Study, label
from reports.report import Report
from reports.video import settings

TITLES = {
    "skyreels": "SkyReels-V2",
    "magi1": "MAGI-1",
    "skyreels_mid": "SkyReels-V2, middle preset",
    "magi1_mid": "MAGI-1, middle preset",
    "skyreels_tiny": "SkyReels-V2, tiny preset",
    "magi1_tiny": "MAGI-1, tiny preset",
    "far": "AnyFlow-FAR",
    "far_mid": "AnyFlow-FAR, middle preset",
    "far_tiny": "AnyFlow-FAR, tiny preset",
    "far_tiny_dsa": "AnyFlow-FAR, tiny preset, trained on with DSA's head",
}


@dataclass(frozen=True)
class Group:
    """Lines of one model whose videos have the same length, size and other settings of the model."""

    model: str  # as printed
    change: str  # its settings that were changed
    setting: str  # length, size, steps and number of prompts, in words
    lines: tuple[Line, ...]
    left_out: int  # lines of the main table that are not in `lines`: reference lines and, if many, variants

    @property
    def title(self) -> str:
        return ", ".join(filter(None, [self.model, self.change]))


def groups(report: Report) -> list[Group]:
    """The groups in the order of the main table."""
    return [group for model, lines in report.by_model() for group in _of_model(report.study, model, lines)]


def enumeration(names: Sequence[str]) -> str:
    """Names in words, each once.

    >>> enumeration(["a", "b", "a", "c"])
    'a, b and c'
    """
    once = list(dict.fromkeys(names))
    return " and ".join(filter(None, [", ".join(once[:-1]), *once[-1:]]))


def _of_model(study: Study, model: str, lines: Sequence[Line]) -> Iterator[Group]:
    """The lines of a model by their changes of its settings; names do not repeat these."""
    found: dict[str, list[Line]] = {}
    for line in lines:
        change, _ = _split(line)
        variant = ", ".join(part for part in line.variant.split(", ") if part and part not in change)
        name = label({**line.identity, "variant": variant, "label": line.records["label"].iloc[0]})
        found.setdefault(", ".join(change), []).append(replace(line, name=name))
    for changed, every in found.items():
        own = [line for line in every if line.accelerated or line.method == "original"]
        points = [line for line in own if _split(line)[1] == [] and line.speed in SPEEDS]
        chosen = points if len(own) > MOST_LINES and points else own
        if chosen:
            missing = len(every) - len(chosen)
            yield Group(TITLES.get(model, model), changed, _setting(study, chosen), tuple(chosen), missing)


def _split(line: Line) -> tuple[list[str], list[str]]:
    """The parts of a line's variant that are settings of the model, and all others."""
    of_model = {
        f"{name.partition('.')[2]}={value}" for name, value in line.changed.items() if name.startswith("model.")
    }
    parts = [part for part in line.variant.split(", ") if part]
    return [part for part in parts if part in of_model], [part for part in parts if part not in of_model]


def _setting(study: Study, lines: Sequence[Line]) -> str:
    """`257 frames, 544×960, 50 steps, 16 prompts`; what is not recorded is not said."""
    model: Any = settings(study.record(lines[0].records.iloc[0])).get("model") or {}
    found = [f"{model['frames']} frames"] if "frames" in model else []
    found += [f"{model['height']}×{model['width']}"] if {"height", "width"} <= set(model) else []
    found += [f"{model['steps']} steps"] if "steps" in model else []
    counts = sorted({line.valid["prompt"].nunique() for line in lines if len(line.valid)})
    ends = [str(count) for count in dict.fromkeys((counts[0], counts[-1]))] if counts else []
    return ", ".join([*found, *([f"{' to '.join(ends)} prompt{'s' * (ends != ['1'])}"] if ends else [])])
