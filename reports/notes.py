"""Notes under the main table: how its numbers were made, what its signs and marks mean, why cells are empty."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reports import floor, machine, paired, provenance
from reports.marks import DEFAULTS, Kind
from reports.metric import SIMILARITIES
from reports.records import Study, prompt_hash
from reports.report import Report
from reports.statistics import FEWEST

CONVENTIONS = (
    "Time is denoising and decoding of a video, without its text. Speedups are geometric means over prompts of the "
    + "ratio to the Original of the same prompt and seed; all other numbers are arithmetic means.",
    "Intervals are 95 %, over prompts, of the number beside them: Student's t for PSNR and the log of ratios; for all "
    + f"else of a log-normal mean (for SSIM, of 1 - SSIM), none below {FEWEST} prompts or if a prompt's value is 0 "
    + "(SSIM: 1). ∞: the values set no upper bound.",
    "FLOPs are of the denoiser, 2 per multiply-add, of the attention that ran; the csv has the masked count too. "
    + "LPIPS, SSIM and PSNR compare lossless frames with the Original's. GB = 10⁹ bytes.",
)


def notes(report: Report) -> list[str]:
    """What a reader must know to read the table, one sentence per line, without a line break."""
    study, lines = report.study, report.lines
    counted, *measured = protocol(study)
    found = [counted, *CONVENTIONS, *measured, *_signs(report)]
    found += [
        f"{line.name} on {line.model}: {mark}, so its speedups are not of the method alone."
        for line in lines
        for mark in line.marked(Kind.ATTENTION)
    ]
    found += provenance.notes(study, lines) + floor.notes(study, lines, SIMILARITIES) + machine.notes(study, lines)
    found += paired.notes(report.pairs)
    fewest = min((line.valid["prompt"].nunique() for line in lines if len(line.valid)), default=0)
    if 1 < fewest < FEWEST:
        found.append(
            f"Few prompts ({fewest}): only speedups and PSNR have intervals below {FEWEST} prompts, "
            "since those of skewed values would hold the truth too rarely."
        )
    if not any(line.method == "original" for line in lines):
        found.append("No Original in this folder: no speedup and no quality can be given.")
    return found + [f"Left out: {path}, {why}." for path, why in study.damaged.items()]


def _signs(report: Report) -> list[str]:
    """What the signs behind the names mean, each where it is used."""
    used = {mark.kind for line in report.lines for mark in line.marks}
    found = ["† an operating point that the paper does not state and that we estimated."] * (Kind.ESTIMATED in used)
    found += [f"† {DEFAULTS}: {line.name} on {line.model}." for line in report.lines if line.marked(Kind.DEFAULTS)]
    found += ["§ the paper's numbers, as far as it states them, on whichever model."] * (Kind.PAPER in used)
    names: dict[str, list[str]] = {}
    for line in report.lines:
        for mark in line.marked(Kind.TUNED):
            names.setdefault(mark.details[0], []).append(f"{line.name} on {line.model}")
    said = [f"{', '.join(lines)} ({settings})" for settings, lines in names.items()]
    found += [f"¶ tuned on calibration prompts of the model itself: {'; '.join(said)}."] if said else []
    return found + ["‡ random weights: speed, memory and FLOPs only."] * (Kind.RANDOM in used)


def protocol(study: Study) -> list[str]:
    """What stands under every table: how many videos, of which prompts, and how their numbers were measured."""
    videos = study.videos
    counts = videos["status"].value_counts()
    firsts = [study.record(video).quality or {} for _, video in videos.drop_duplicates(["model", "method"]).iterrows()]
    measures = {_versions(quality["metric_versions"]) for quality in firsts if quality.get("metric_versions")}
    counted = f"{len(videos)} videos, invalid {counts.get('invalid', 0)}, failed {counts.get('failed', 0)}"
    prompts = f"{videos['prompt'].nunique()} prompts, set {prompt_hash(videos)}"
    lines = [f"{counted} (left out of the numbers). {prompts}."]
    if diverged := int(videos["diverged"].sum()):
        lines.append(f"{diverged} videos diverged: they have left their Originals, and their numbers are in the means.")
    lines += [f"Measured: {'; or '.join(sorted(measures))}."] if measures else []
    reports = [report for row, _ in study.rows() if (report := study.cell_file("vbench", row))]
    return lines + [f"VBench: {text}." for text in sorted(set(map(_vbench, reports)))]


def _vbench(report: Mapping[str, Any]) -> str:
    """How VBench was run on a cell, as words."""
    prompts, package = report.get("prompts") or {}, report.get("package") or {}
    words = [f"version {package.get('vbench', 'not recorded')}", f"protocol {report.get('protocol', 'not recorded')}"]
    if prompts:
        of = f" of {prompts['of']}" if prompts.get("of") else ""
        words.append(f"{prompts['used']}{of} prompts ({prompts['kind']}), set {str(prompts['sha256'])[:12]}")
    return ", ".join(words + list(report.get("notes") or ()))


def _versions(measures: Mapping[str, str]) -> str:
    """Metric versions as words: `lpips alex 0.1; psnr pooled`."""
    return "; ".join(f"{name} {value}" for name, value in sorted(measures.items()))


def blanks(report: Report) -> list[str]:
    """Why cells are empty, each reason once with the lines that it concerns."""
    named: dict[str, list[str]] = {}
    for line in report.lines:
        for reason in line.reasons():
            named.setdefault(reason, []).append(f"{line.name} on {line.model}")
    every = len(report.lines)
    return [f"{why} ({'all rows' if len(names) == every else ', '.join(names)})." for why, names in named.items()]
