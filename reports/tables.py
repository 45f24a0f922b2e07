"""The main table: one row per model × method × speed, with intervals, the published cell, and a reason per blank."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from reports import floor, machine, paired, provenance, published
from reports.metric import BY_NAME, METRICS, SIMILARITIES, Metric
from reports.records import ROW, Study, label, prompt_hash
from reports.statistics import FEWEST, NONE, Estimate, mean

CONVENTIONS = (
    "Time is denoising and decoding of a video, without its text. Speedups are geometric means over prompts of the "
    + "ratio to the Original of the same prompt and seed; all other numbers are arithmetic means.",
    "Intervals are 95 %, over prompts, of the number beside them: Student's t for PSNR and the log of ratios; for all "
    + f"else of a log-normal mean (for SSIM, of 1 - SSIM), none below {FEWEST} prompts or if a prompt's value is 0 "
    + "(SSIM: 1). ∞: the values set no upper bound.",
    "FLOPs are of the denoiser, 2 per multiply-add, of the attention that ran; the csv has the masked count too. "
    + "LPIPS, SSIM and PSNR compare lossless frames with the Original's. GB = 10⁹ bytes.",
)
DEFAULTS = "default settings, not the paper's point"  # a mark
SIGNS = {
    "estimated": "†",
    DEFAULTS: "†",
    "random": "‡",
    "the paper's numbers": "§",
    "tuned: ": "¶",
}  # by a mark of the row
COLUMNS = ["model", "method", "speed", "videos", *BY_NAME, "status"]
ALSO = {
    "speedup_denoise": ("speedup_denoise", 1.0, True),
    "flops_pf_masked": ("flops_masked", 1e-15, False),
    "peak_reserved_gb": ("memory_reserved", 1e-9, False),
    "decode_s": ("decode_s", 1.0, False),
}


def main(study: Study) -> pd.DataFrame:
    """The main table: `COLUMNS`, then for each metric `_low`, `_high` (95 %) and `paper_`; and why cells are blank."""
    lines = [_line(study, row, group) for row, group in study.rows()]
    frame = pd.DataFrame(lines, columns=_columns())
    floor.mark(study, frame, SIMILARITIES)
    machine.mark(study, frame)
    return frame.assign(best=machine.trimmed(study, frame, paired.best(frame, paired.compare(study, frame, METRICS))))


def _columns() -> list[str]:
    ends = [f"{name}_{end}" for name in BY_NAME for end in ("low", "high")]
    paper = [f"paper_{name}" for name in published.PRINTED]
    return [
        *COLUMNS,
        *ends,
        *paper,
        "paper_comparable",
        *ALSO,
        "invalid",
        "failed",
        "diverged",
        "name",
        "variant",
        "marks",
        "missing",
    ]


def _line(study: Study, row: dict[str, str], group: pd.DataFrame) -> dict[str, Any]:
    valid = group[group["status"] == "ok"]
    counts = group["status"].value_counts()
    random, estimated = bool((group["weights"] == "random").any()), bool(group["estimated"].any())
    line: dict[str, Any] = {**row, "videos": len(valid), "name": label({**row, "label": group["label"].iloc[0]})}
    line["invalid"], line["failed"] = (int(counts.get(status, 0)) for status in ("invalid", "failed"))
    line["diverged"] = int(valid["diverged"].sum())
    line["status"] = f"{len(valid)} videos, invalid {counts.get('invalid', 0)}, failed {counts.get('failed', 0)}"
    line["status"] += f", diverged {line['diverged']}" * bool(line["diverged"])
    missing = []
    for metric in METRICS:
        estimate, why = _estimate(study, row, group, metric, random)
        line |= dict(zip((metric.name, f"{metric.name}_low", f"{metric.name}_high"), estimate, strict=True))
        missing += [f"{metric.title}: {why}"] if why else []
    if len(valid) and valid["prompt"].nunique() == 1:
        missing.append("intervals: one prompt only")
    for name, (source, scale, geometric) in ALSO.items():
        line[name] = mean(valid[source] * scale, valid["prompt"], geometric).value
    line |= {f"paper_{name}": value for name, value in published.cells(row).items()}
    line["paper_comparable"] = published.comparable(row, estimated, random)
    devices = _devices(study, row, valid)
    marks = ["estimated point"] * estimated + ["random weights"] * random + _point(row, group)
    marks += [f"speeds of {len(devices)} devices: {', '.join(devices)}"] * (len(devices) > 1)
    marks += _attention(study, row, valid) + provenance.marks(study, valid)
    return line | {"marks": "; ".join(marks), "missing": "; ".join(missing)}


def _attention(study: Study, row: dict[str, str], valid: pd.DataFrame) -> list[str]:
    """Says so where a row ran another attention than the Original that its speedups are ratios to."""
    videos = study.videos[(study.videos["model"] == row["model"]) & (study.videos["method"] == "original")]
    named = {v.key: v.attention for v in videos.itertuples()}
    usual = set(videos[videos["variant"] == ""]["attention"])
    pairs = [(v.attention, {named[v.reference]} if v.reference in named else usual) for v in valid.itertuples()]
    found = {(own, other) for own, others in pairs for other in others if own and other and own != other}
    return [f"{own} attention against an Original of {other} attention" for own, other in sorted(found)]


def _point(row: Mapping[str, str], group: pd.DataFrame) -> list[str]:
    """Where the numbers of a row's operating point come from, if its records say so; and that it has none."""
    turned = sorted(set(group["turned"]) - {""})
    bare = row["method"] in published.METHODS and row["method"] != "original" and not row["speed"]
    stated = ["the paper's numbers"] * bool(group["of_paper"].any())
    return [DEFAULTS] * bare + stated + [f"tuned: {names}" for names in turned]


def _devices(study: Study, row: dict[str, str], valid: pd.DataFrame) -> list[str]:
    """What the speeds of a row were measured on, and the times that they are to be compared with.

    Those are the Originals' of the model, which speedups are ratios to; where there are none, of the whole column.
    """
    column = study.videos[(study.videos["model"] == row["model"]) & (study.videos["status"] == "ok")]
    originals = column[column["method"] == "original"]
    compared = originals if len(originals) else column
    return sorted({*valid["device"], *compared["device"]} - {""}) if len(valid) else []


def _estimate(
    study: Study, row: dict[str, str], group: pd.DataFrame, metric: Metric, random: bool
) -> tuple[Estimate, str]:
    """A metric of a row, and why it has no value if it has none."""
    valid = group[group["status"] == "ok"]
    if not len(valid):
        reasons = [reason for reason in group["reason"] if reason]
        return NONE, f"no valid video ({reasons[0]})" if reasons else "no valid video"
    if metric.quality and random:
        return NONE, "random weights"
    if metric.name == "vbench":
        return _vbench(study, row)
    itself = row["method"] == "original" and valid["reference"].isin(["", *valid["key"]]).all()
    if itself and metric.name in ("lpips", "ssim", "psnr"):
        exact = {"lpips": 0.0, "ssim": 1.0}.get(metric.name)
        return (NONE, "the reference itself") if exact is None else (Estimate(exact, np.nan, np.nan), "")
    values = valid[metric.source] * metric.scale
    infinite = np.isposinf(values)
    if infinite.any() and not infinite.all():  # a mean of dB with infinities in it says nothing
        estimate = mean(values[~infinite], valid["prompt"][~infinite], metric.geometric, metric.shape)
        return estimate, f"{infinite.sum()} of {len(values)} videos are identical to the Original, not in the mean"
    estimate = mean(values, valid["prompt"], metric.geometric, metric.shape)
    if not np.isnan(estimate.value):
        return Estimate(estimate.value, *np.clip(estimate[1:], metric.least, metric.most)), ""
    if "speedup" in metric.name:
        return NONE, "the Original that the records name is missing, failed or invalid, or they name none"
    if metric.quality and not valid["scored"].any():
        return NONE, "not scored yet, run python -m eval"
    lacks = (study.record(valid.iloc[0]).quality or {}).get(f"{metric.name}_missing")
    return NONE, str(lacks or "not recorded")


def _vbench(study: Study, row: dict[str, str]) -> tuple[Estimate, str]:
    """VBench's total in percent, which the evaluation gathers over a cell; it has no interval over prompts."""
    report = study.cell_file("vbench", row)
    if report.get("total"):
        return Estimate(float(report["total"]["total"]), np.nan, np.nan), ""
    lacks = len(report.get("total_lacks", ()))
    return NONE, f"{16 - lacks} of 16 dimensions have a score" if report else "not computed"


def best(frame: pd.DataFrame, metric: Metric) -> set[int]:
    """The lines that are better than every other accelerated row of their model (reports/paired.py)."""
    return {n for n, names in frame["best"].items() if metric.name in names.split("; ")}


def shown(line: pd.Series, metric: Metric, interval: bool = False) -> str:
    """A number as printed, `1.52× [1.48, 1.56]` with its interval; an en dash where there is none."""
    value = line[metric.name]
    if pd.isna(value):
        return "–"
    text = "∞" if np.isinf(value) else metric.show(value)
    low, high = (line[f"{metric.name}_{end}"] for end in ("low", "high"))
    ends = [metric.show(low), "∞" if np.isinf(high) else metric.show(high)]
    if not interval or pd.isna(low) or ends == [text, text]:
        return text
    return f"{text} [{', '.join(end.rstrip('×') for end in ends)}]"


def notes(study: Study, frame: pd.DataFrame) -> list[str]:
    """What a reader must know to read the table, one sentence per line, without a line break."""
    videos = study.videos
    counted, *measured = protocol(study)
    lines = [counted, *CONVENTIONS, *measured]
    marks = " ".join(frame["marks"])
    lines += ["† an operating point that the paper does not state and that we estimated."] * ("estimated" in marks)
    lines += [
        f"† {DEFAULTS}: {line['name']} on {line['model']}." for _, line in frame.iterrows() if DEFAULTS in line["marks"]
    ]
    lines += ["§ the paper's numbers, as far as it states them, on whichever model."] * ("the paper's numbers" in marks)
    lines += _tuned(frame)
    lines += ["‡ random weights: speed, memory and FLOPs only."] * ("random" in marks)
    lines += [
        f"{line['name']} on {line['model']}: {mark}, so its speedups are not of the method alone."
        for _, line in frame.iterrows()
        for mark in line["marks"].split("; ")
        if " attention against " in mark
    ]
    lines += provenance.lines(study, frame) + floor.lines(study, frame, SIMILARITIES) + machine.lines(study, frame)
    lines += paired.lines(paired.compare(study, frame, METRICS), METRICS)
    fewest = videos[videos["status"] == "ok"].groupby(ROW)["prompt"].nunique()
    if len(fewest) and 1 < fewest.min() < FEWEST:
        lines.append(
            f"Few prompts ({fewest.min()}): only speedups and PSNR have intervals below {FEWEST} prompts, "
            "since those of skewed values would hold the truth too rarely."
        )
    if not (videos["method"] == "original").any():
        lines.append("No Original in this folder: no speedup and no quality can be given.")
    return lines + [f"Left out: {path}, {why}." for path, why in study.damaged.items()]


def _tuned(frame: pd.DataFrame) -> list[str]:
    """Which settings of which rows were tuned on the model that they are shown of."""
    names: dict[str, list[str]] = {}
    for _, line in frame.iterrows():
        for mark in line["marks"].split("; "):
            if mark.startswith("tuned: "):
                names.setdefault(mark.removeprefix("tuned: "), []).append(f"{line['name']} on {line['model']}")
    said = [f"{', '.join(rows)} ({settings})" for settings, rows in names.items()]
    return [f"¶ tuned on calibration prompts of the model itself: {'; '.join(said)}."] if said else []


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
    return lines + [f"VBench: {text}." for text in sorted(set(map(_vbench_protocol, reports)))]


def _vbench_protocol(report: Mapping[str, Any]) -> str:
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


def dagger(line: pd.Series) -> str:
    """The signs that follow a row's name."""
    return "".join(sign for mark, sign in SIGNS.items() if mark in line["marks"])


def blanks(frame: pd.DataFrame) -> list[str]:
    """Why cells are empty, each reason once with the rows it concerns."""
    rows: dict[str, list[str]] = {}
    for _, line in frame.iterrows():
        for reason in filter(None, line["missing"].split("; ")):
            rows.setdefault(reason, []).append(f"{line['name']} on {line['model']}")
    return [f"{why} ({'all rows' if len(names) == len(frame) else ', '.join(names)})." for why, names in rows.items()]
