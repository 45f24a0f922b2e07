"""Notes under the main table: how its numbers are computed, what signs and marks mean, and why cells are empty."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reports import across, common_prompts, machine, paired, provenance, reference_lines
from reports.marks import DEFAULTS, Kind
from reports.metric import SIMILARITIES
from reports.records import Study, prompt_hash
from reports.report import Report
from reports.statistics import FEWEST

CONVENTIONS = (
    "Time covers denoising and decoding of one video, without text encoding. Speedups are geometric means over prompts "
    + "of the ratio to the Original of the same prompt and seed. All other numbers are arithmetic means.",
    "Brackets hold 95 % confidence intervals over prompts: Student's t for PSNR and the logarithm of ratios, the mean "
    + "of a log-normal distribution for all other values (for SSIM, of 1 - SSIM). The latter need at least "
    + f"{FEWEST} prompts, and no prompt with a value of 0 (SSIM: 1). ∞ means that the upper end is not bounded.",
    "FLOPs count the denoiser alone, 2 per multiply-add, with the attention that ran; the csv also has the masked "
    + "count. LPIPS, SSIM and PSNR compare lossless frames with those of the Original. GB = 10⁹ bytes.",
)

OF_GROUP = {  # of optional columns
    "streaming": "A chunk is ready when its latents are denoised and its frames decoded. First chunk: with the text. "
    + "Interval: between chunks, the median and the 95th percentile of a video. Late chunks: the share of all but the "
    + "first that is not ready when a player needs it that starts with the first chunk and never waits.",
    "drift": "Drift: distance between the means of the first and the last 15 % of the frames of a video, in levels of "
    + "0–255; it needs no Original. Of VBench: between the first and the last 15 % of the clips.",
}


def notes(report: Report) -> list[str]:
    """The notes under the main table, one per entry, without line breaks."""
    study, lines = report.study, report.lines
    counted, *measured = protocol(study)
    found = [counted, *CONVENTIONS, *(OF_GROUP[name] for name in report.asked), *measured, *signs(report)]
    found += [
        f"{line.name} on {line.model}: {mark}; its speedups include this difference."
        for line in lines
        for mark in line.marked(Kind.ATTENTION)
    ]
    found += (
        common_prompts.notes(study, lines)
        + across.notes(study)
        + provenance.notes(study, lines)
        + reference_lines.notes(study, lines, SIMILARITIES)
        + machine.notes(study, lines)
    )
    found += paired.notes(report.pairs)
    fewest = min((line.valid["prompt"].nunique() for line in lines if len(line.valid)), default=0)
    if 1 < fewest < FEWEST:
        found.append(
            f"Few prompts ({fewest}): below {FEWEST} prompts only speedups and PSNR have intervals. Those of other "
            "values would not reach 95 % coverage."
        )
    if not any(line.method == "original" for line in lines):
        found.append("No Original in this folder: speedups and quality cannot be computed.")
    return found + [f"Left out: {path}, {why}." for path, why in study.damaged.items()]


def signs(report: Report) -> list[str]:
    """What the signs after the names mean; only the signs in use."""
    used = {mark.kind for line in report.lines for mark in line.marks}
    found = ["† estimated by us: the paper does not state this operating point."] * (Kind.ESTIMATED in used)
    found += [f"† {DEFAULTS}: {line.name} on {line.model}." for line in report.lines if line.marked(Kind.DEFAULTS)]
    found += ["§ the paper's settings, as far as it states them, unchanged on every model."] * (Kind.PAPER in used)
    names: dict[str, list[str]] = {}
    for line in report.lines:
        for mark in line.marked(Kind.TUNED):
            names.setdefault(mark.details[0], []).append(f"{line.name} on {line.model}")
    said = [f"{', '.join(lines)} ({settings})" for settings, lines in names.items()]
    found += [f"¶ tuned on calibration prompts of the same model: {'; '.join(said)}."] if said else []
    found += ["‡ random weights: speed, memory and FLOPs only."] * (Kind.RANDOM in used)
    return found + ["◊ other prompts than the other lines: no rank, not bold, not on the front."] * (
        Kind.PROMPTS in used
    )


def protocol(study: Study) -> list[str]:
    """Notes under every table: numbers of videos and prompts, versions of the metrics, how VBench was run."""
    videos = study.videos
    counts = videos["status"].value_counts()
    firsts = [study.record(video).quality or {} for _, video in videos.drop_duplicates(["model", "method"]).iterrows()]
    measures = {_versions(quality["metric_versions"]) for quality in firsts if quality.get("metric_versions")}
    counted = f"{len(videos)} videos, invalid {counts.get('invalid', 0)}, failed {counts.get('failed', 0)}"
    prompts = f"{videos['prompt'].nunique()} prompts, set {prompt_hash(videos)}"
    lines = [f"{counted} (excluded from the numbers). {prompts}."]
    if diverged := int(videos["diverged"].sum()):
        lines.append(f"{diverged} videos diverged: they no longer follow their Originals. The means include them.")
    lines += [f"Measured: {'; or '.join(sorted(measures))}."] if measures else []
    reports = [report for identity, _ in study.lines() if (report := study.cell_file("vbench", identity))]
    return lines + [f"VBench: {text}." for text in sorted(set(map(_vbench, reports)))]


def _vbench(report: Mapping[str, Any]) -> str:
    """How VBench was run on a cell, in words."""
    prompts, package = report.get("prompts") or {}, report.get("package") or {}
    words = [f"version {package.get('vbench', 'not recorded')}", f"protocol {report.get('protocol', 'not recorded')}"]
    if prompts:
        of = f" of {prompts['of']}" if prompts.get("of") else ""
        words.append(f"{prompts['used']}{of} prompts ({prompts['kind']}), set {str(prompts['sha256'])[:12]}")
    return ", ".join(words + list(report.get("notes") or ()))


def _versions(measures: Mapping[str, str]) -> str:
    """Metric versions in words: `lpips alex 0.1; psnr pooled`."""
    return "; ".join(f"{name} {value}" for name, value in sorted(measures.items()))


def blanks(report: Report) -> list[str]:
    """Why cells are empty: each reason once, with the lines that it applies to."""
    named: dict[str, list[str]] = {}
    for line in report.lines:
        for reason in line.reasons(report.asked):
            named.setdefault(reason, []).append(f"{line.name} on {line.model}")
    every = len(report.lines)
    return [f"{why} ({'all lines' if len(names) == every else ', '.join(names)})." for why, names in named.items()]
