"""The main table: one line per model, method, operating point and settings, with its marks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pandas as pd

from reports import across, common_prompts, machine, paired, provenance, published, reference_lines
from reports.estimates import also, estimates
from reports.line import Line
from reports.marks import Kind, Mark
from reports.metric import METRICS, SIMILARITIES
from reports.paired import Pair
from reports.records import Study, label, used


def main(study: Study) -> tuple[tuple[Line, ...], tuple[Pair, ...]]:
    """The lines, the Original first and SCOPE last, and the differences between them."""
    prompts = common_prompts.common(study)
    lines = [_line(study, identity, records, prompts[identity["model"]]) for identity, records in study.lines()]
    lines = across.mark(study, machine.mark(reference_lines.mark(study, lines, SIMILARITIES)))
    pairs = across.comparable(study, paired.compare(lines, METRICS))
    best = across.trimmed(study, lines, machine.trimmed(study, lines, paired.best(lines, pairs)))
    return tuple(replace(line, best=names) for line, names in zip(lines, best, strict=True)), tuple(pairs)


def _line(study: Study, identity: dict[str, str], records: pd.DataFrame, prompts: frozenset[str]) -> Line:
    apart = common_prompts.marks(records, prompts)
    records = common_prompts.restricted(records, prompts)
    random, estimated = bool((records["weights"] == "random").any()), bool(records["estimated"].any())
    found, blanks = estimates(study, identity, records, random)
    line = Line(
        identity["model"],
        identity["method"],
        identity["speed"],
        identity["variant"],
        name=label({**identity, "label": records["label"].iloc[0]}),
        records=records,
        estimates=found,
        also=also(records),
        published=published.cells(identity),
        comparable=published.comparable(identity, estimated, random),
        blanks=blanks,
    )
    devices = _devices(study, line)
    marks = [Mark(Kind.ESTIMATED)] * estimated + [Mark(Kind.RANDOM)] * random + _point(identity, records)
    marks += [Mark(Kind.DEVICES, (str(len(devices)), ", ".join(devices)))] * (len(devices) > 1)
    return replace(line, marks=(*marks, *apart, *_attention(study, line), *provenance.marks(study, line)))


def _attention(study: Study, line: Line) -> list[Mark]:
    """A mark if a line ran another attention than the Original of its speedups."""
    videos = study.videos[(study.videos["model"] == line.model) & (study.videos["method"] == "original")]
    named = {v.key: v.attention for v in videos.itertuples()}
    usual = set(videos[videos["variant"] == ""]["attention"])
    pairs = [(v.attention, {named[v.reference]} if v.reference in named else usual) for v in line.valid.itertuples()]
    found = {(own, other) for own, others in pairs for other in others if own and other and own != other}
    return [Mark(Kind.ATTENTION, both) for both in sorted(found)]


def _point(identity: Mapping[str, str], records: pd.DataFrame) -> list[Mark]:
    """Marks for the origin of a line's operating point: the paper's, tuned, or none."""
    turned = sorted(set(records["turned"]) - {()})
    bare = identity["method"] in published.METHODS and identity["method"] != "original" and not identity["speed"]
    stated = [Mark(Kind.PAPER)] * bool(records["of_paper"].any())
    return [Mark(Kind.DEFAULTS)] * bare + stated + [Mark(Kind.TUNED, (", ".join(names),)) for names in turned]


def _devices(study: Study, line: Line) -> list[str]:
    """The devices of a line's videos and of the videos that its speeds are compared with.

    Those are the Originals of the model; without Originals, all videos of the model.
    """
    column = study.videos[(study.videos["model"] == line.model) & (study.videos["status"] == "ok")]
    originals = used(column[column["method"] == "original"], line.valid)
    compared = originals if len(originals) else column
    return sorted({*line.valid["device"], *compared["device"]} - {""}) if len(line.valid) else []
