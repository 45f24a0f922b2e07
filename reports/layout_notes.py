"""Notes under the table in the paper's layout: what its numbers are, what its signs mean, and why cells are empty."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from reports import ranks, reference_lines
from reports.groups import Group, enumeration
from reports.marks import Kind
from reports.metric import BY_NAME, METRICS
from reports.notes import protocol, signs
from reports.report import Report

SAME = "infinite: the Original compared with itself"  # a dash that every reader expects
TOLD = (
    Kind.ATTENTION,
    Kind.REPEAT_SPEED,
    Kind.DEVICES,
    Kind.APART,
    Kind.BESIDE,
    Kind.ACROSS,
    Kind.PROMPTS,
    Kind.REPEAT,
    Kind.PREVIEW,
    Kind.SEED,
)
FIRST = (
    "Time is that of denoising and decoding one video{}. Speedups are geometric means over prompts of the ratio to the "
    "Original of the same prompt and seed; other numbers are arithmetic means. FLOPs are those of the denoiser, "
    "2 per multiply-add."
)


def general(report: Report, groups: Sequence[Group], metrics: Sequence[str]) -> list[str]:
    """The notes that belong to no sign."""
    devices = sorted({name for group in groups for line in group.lines for name in line.valid["device"]} - {""})
    found = [FIRST.format(f" on {' or '.join(devices)}" if devices else ""), *protocol(report.study)]
    found += [f"{_named(groups, some)}: {text}." for text, some in _marks(groups).items()]
    found += _claims(groups, metrics)
    found += [f"{what}." for what in _blanks(groups, metrics)]
    out = sum(group.left_out for group in groups)
    return found + ([f"Not shown: reference lines and further settings ({out} line{'s' * (out > 1)})."] if out else [])


def signed(report: Report, groups: Sequence[Group]) -> list[tuple[str, str]]:
    """The signs in use, each with what it means."""
    lines = tuple(replace(line, model=group.title) for group in groups for line in group.lines)
    return [(text[0], f"{text[2].upper()}{text[3:]}") for text in signs(replace(report, lines=lines))]


def _marks(groups: Sequence[Group]) -> dict[str, list[tuple[str, str]]]:
    """The text of each mark without a sign, and the (title, name) of the lines that have it."""
    found: dict[str, list[tuple[str, str]]] = {}
    for group in groups:
        for line in group.lines:
            for mark in line.marked(*TOLD):
                text = reference_lines.MEANING.get(mark.kind, str(mark))
                found.setdefault(text, []).append((group.title, line.name))
    return found


def _claims(groups: Sequence[Group], metrics: Sequence[str]) -> list[str]:
    """Where the mark of the best value is no significant finding."""
    found: dict[str, list[str]] = {}
    for group in groups:
        weak = ranks.undecided(group.lines, metrics)
        known = [m for m in METRICS if m.name in metrics and any(line.known(m.name) for line in group.lines)]
        where = "all columns" if len(weak) == len(known) else ", ".join(metric.title for metric in weak)
        if weak:
            found.setdefault(where, []).append(group.title)
    said = [
        where if len(titles) == len(groups) else f"{where} on {enumeration(titles)}" for where, titles in found.items()
    ]
    text = "The best value is not significantly better than every other one (paired 95 % intervals) in {}."
    return [text.format("; ".join(said))] if said else []


def _blanks(groups: Sequence[Group], metrics: Sequence[str]) -> Iterator[str]:
    """Why cells are empty, or what they leave out: each reason once, with its metrics and lines."""
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for group in groups:
        for line in group.lines:
            reasons: dict[str, list[str]] = {}
            for name in metrics:
                if line.blanks.get(name, SAME) != SAME:
                    reasons.setdefault(line.blanks[name], []).append(BY_NAME[name].title)
            for why, titles in reasons.items():
                what = "no value" if len(titles) == len(metrics) else ", ".join(titles)
                found.setdefault((what, why), []).append((group.title, line.name))
    for (what, why), some in found.items():
        yield f"{_named(groups, some)}: {what}, {why}"


def _named(groups: Sequence[Group], some: Sequence[tuple[str, str]]) -> str:
    """Lines in words, `SCOPE slow, SCOPE fast`; with the title of their group if not all groups have them."""
    if len(some) == sum(len(group.lines) for group in groups):
        return "All lines"
    by_title: dict[str, list[str]] = {}
    for title, name in some:
        by_title.setdefault(title, []).append(name)
    by_names: dict[str, list[str]] = {}
    for title, names in by_title.items():
        by_names.setdefault(", ".join(names), []).append(title)
    if len(by_names) == 1 and len(by_title) == len(groups):
        return next(iter(by_names))
    return "; ".join(f"{names} on {enumeration(titles)}" for names, titles in by_names.items())
