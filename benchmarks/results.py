"""Writes docs/results.md, its figures and README's main table from records: the speedup of every method at equal PSNR.

    python run.py experiment=frontier results=RESULTS
    python -m benchmarks.results RESULTS     exports the records of RESULTS to docs/results.jsonl.gz, then writes all
    python -m benchmarks.results             writes all again from docs/results.jsonl.gz

Every number and every comparison is computed from the records; tests/test_results.py keeps both texts equal to them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from reports import read, style
from reports.formats import pipes
from reports.frontier import LEVELS, Curve, Panel, Reading, at, front, panels, ratio
from reports.frontier_figure import figure
from reports.frontier_table import left_out, short_name, table
from reports.line import Line, shown
from reports.metric import BY_NAME
from reports.report import Report
from store import Store, bundle
from terminal import tolerate

ROOT = Path(__file__).parents[1]
BUNDLE, PAGE, README = ROOT / "docs" / "results.jsonl.gz", ROOT / "docs" / "results.md", ROOT / "README.md"
BEGIN, END = "<!-- results: python -m benchmarks.results -->", "<!-- end of results -->"
COLUMNS = ("flops_speedup", "psnr", "ssim")
COMPARED = (45.0, 40.0, 36.0)  # dB, of the comparisons
WANTED = 16  # prompts
FIRST = 8  # curves in README
OWN = "ramp"  # our own method
QUESTIONS = {  # what is asked: the beginning of the names of the curves that answer it, and what they are compared with
    "SCOPE against the Original with fewer steps": (("SCOPE",), ("Original, fewer steps",)),
    "SCOPE against a fixed schedule: every k-th step": (("SCOPE",), ("Uniform (order=1",)),
    "SCOPE against the searched schedule": (("SCOPE",), ("budget",)),
    "Our own rule against the searched schedule": ((OWN,), ("budget",)),
    "Prediction against reuse: TaylorSeer against TeaCache": (("TaylorSeer",), ("TeaCache",)),
    "SCOPE against prediction without a signal: TaylorSeer": (("SCOPE",), ("TaylorSeer",)),
}
LEGEND = (
    "Each method over its main setting, interpolated to the PSNR of the column. Brackets: 95 % bootstrap interval over "
    "prompts. <, >: every setting of the method is below, or above, this PSNR, at this speedup."
)
RATIOS = (
    "The FLOPs speedup of the first method divided by that of the method of the line, at equal PSNR; brackets: paired "
    "95 % bootstrap interval over prompts. n. s.: the interval includes 1. <, >: bounds, since one of the two does not "
    "reach this PSNR. –: neither bounds the ratio."
)
SETTINGS = (
    "Means over valid videos. The curves above also count broken videos, with their low PSNR, since without them a "
    "setting would look better than it is."
)
CAUTION = """
* **No order of methods at full size.** The small models have 2 million parameters, 64 × 64 pixels and scenes of one
  moving shape. The velocity of a large model changes along the trajectory in another way, so thresholds and the order
  of close methods may differ.
* **No speedup in seconds.** At this size Python takes a large part of the time, and these records were made while
  other programs used the machine. FLOPs are counted from the decisions and do not depend on it.
* **Nothing about VBench or about what people see.** PSNR, SSIM and LPIPS compare a video with its Original. A video
  may be far from it and as good.
* **Nothing about memory on a GPU.**
""".lstrip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the texts and figures; returns 0."""
    tolerate()
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given:
        count, left = bundle.export(Store(given[0], create=False), BUNDLE)
        print(f"{BUNDLE.name}: {count} records; left out: {left or 'none'}")
    report = read(BUNDLE)
    PAGE.write_text(page(report), encoding="utf-8")
    README.write_text(inserted(README.read_text(encoding="utf-8"), report), encoding="utf-8")
    for panel in panels(report):
        drawn = figure(panel.curves, panel.name)
        if drawn is not None:
            style.save(drawn, PAGE.parent, picture(panel))
            (PAGE.parent / f"{picture(panel)}.svg").unlink()
    return 0


def picture(panel: Panel) -> str:
    return f"{panel.kind}_{panel.model}"


def page(report: Report) -> str:
    """docs/results.md."""
    parts = ["# Results on the small models", _head(report)]
    for panel in panels(report):
        found = panel.curves
        parts += [f"## {panel.name}", _setting(report, panel)]
        parts += ["### FLOPs speedup at equal PSNR", pipes(table(found)), LEGEND, *left_out(panel)]
        parts += [f"![PSNR against FLOPs speedup of every method]({picture(panel)}.png)"]
        parts += ["### Pareto front", _front(found)]
        parts += [f"### Our own method, {OWN}, over every other", pipes(own_over_others(found)), RATIOS]
        if answers := _answers(found):
            parts += ["### What surprised", answers]
        parts += ["### All settings", _table(ordered(panel.lines)), SETTINGS]
    return "\n\n".join([*parts, "## What does not follow from small models", CAUTION])


def inserted(text: str, report: Report) -> str:
    """README.md with the tables between its two marks."""
    before, _, rest = text.partition(BEGIN)
    parts = []
    for panel in panels(report):
        short = table(panel.curves).drop(columns=["settings", f"{LEVELS[-1]:g} dB"])
        first = f", the {FIRST} fastest of {len(short)} curves" * (len(short) > FIRST)
        short = short.head(FIRST)
        said = f"{_setting(report, panel)} FLOPs speedup at equal PSNR{first}:"
        parts.append(f"**{panel.model}**, {said}\n\n{pipes(short)}")
    return f"{before}{BEGIN}\n" + "\n\n".join(parts) + f"\n{END}{rest.partition(END)[2]}"


def ordered(lines: Sequence[Line]) -> list[Line]:
    """The lines with valid videos, by method and speedup, the fastest first."""
    known = [line for line in lines if len(line.valid) and line.known("psnr")]
    return sorted(known, key=lambda line: (line.method, -line.value("flops_speedup")))


def _head(report: Report) -> str:
    videos = report.study.videos
    days = sorted({str(record.run.get("began"))[:10] for record in report.study.records})
    return (
        f"{len(videos)} videos; written by `python -m benchmarks.results` from `docs/results.jsonl.gz`. Made on "
        f"{', '.join(sorted(set(videos['device'])))}, one thread, torch {', '.join(_torch(report))}, on "
        f"{' and '.join(days)}, with settings of `python run.py experiment=frontier`. FLOPs speedup: FLOPs of the "
        "Original over those of the method, counted from its decisions."
    )


def _torch(report: Report) -> list[str]:
    """The versions of torch that the records name."""
    environments = (record.run.get("environment") or {} for record in report.study.records)
    return sorted({str((one.get("packages") or {}).get("torch", "not recorded")) for one in environments})


def _setting(report: Report, panel: Panel) -> str:
    run = report.study.record(panel.lines[0].records.iloc[0]).run
    prompts = len(panel.curves[0].psnr)
    few = f" ({WANTED} are wanted for a verdict)" * (prompts < WANTED)
    return (
        f"{run['frames']} frames of {run['width']} × {run['height']}, {run['attention'].replace('_', '-')} attention, "
        f"{prompts} prompts that nothing was fitted to{few}."
    )


def _table(lines: Sequence[Line]) -> str:
    metrics = [BY_NAME[name] for name in COLUMNS]
    rows = [["method", *(metric.title for metric in metrics)], ["---", *["---:"] * len(metrics)]]
    rows += [[short_name(line) + line.signs, *(shown(line, metric, True) for metric in metrics)] for line in lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _front(found: Sequence[Curve]) -> str:
    """The settings that no other one beats in both, by method."""
    best = front(found)
    said = [f"* {speedup:.2f}×, {psnr:.1f} dB: **{curve.name}**" for curve, speedup, psnr in best]
    on = {curve.name for curve, *_ in best}
    off = [curve.name for curve in found if curve.name not in on]
    return "\n".join([
        "No other setting is both faster by FLOPs and closer to the Original than these:",
        "",
        *said,
        "",
        f"No setting on the front: {', '.join(off)}." if off else "Every method has a setting on the front.",
    ])  # fmt: skip


def own_over_others(found: Sequence[Curve]) -> pd.DataFrame:
    """The FLOPs speedup of our own method over that of every other one, paired over prompts; a line per other."""
    lines = []
    for own, other in ((a, b) for a in found if a.method == OWN for b in found if b.method != OWN):
        read = {level: ratio(own, other, level) for level in COMPARED}
        lines.append({"over": other.name} | {f"{level:g} dB": _short(one) for level, one in read.items()})
    return pd.DataFrame(lines)


def _short(found: Reading) -> str:
    """A ratio as it stands in a table."""
    if found.bound == "?":
        return "–"
    open_ = "" if found.low > 1 or found.high < 1 else " n. s."
    return f"{found.bound} {found.value:.2f}× [{found.low:.2f}, {found.high:.2f}]{open_}".lstrip()


def _answers(found: Sequence[Curve]) -> str:
    """Each question with the paired ratios that answer it."""
    said = []
    for question, (ours, theirs) in QUESTIONS.items():
        first = [curve for curve in found if curve.name.startswith(ours)]
        others = [curve for curve in found if curve.name.startswith(theirs)]
        told = [_against(a, b) for a in first for b in others]
        if told:
            said.append(f"* **{question}.** {' '.join(told)}")
    if any(varies(curve) for curve in found):
        said.insert(0, f"* **What adaptivity adds to the best fixed schedule.** {_adaptivity(found)}")
    return "\n".join(said)


def _adaptivity(found: Sequence[Curve]) -> str:
    """The best method whose decisions differ between prompts over the best one whose decisions do not."""
    told = []
    for level in COMPARED:
        reach = [curve for curve in found if at(curve.points, level)[1] != "<"]
        kinds = [[c for c in reach if varies(c) is adaptive] for adaptive in (True, False)]
        if all(kinds):
            best, fixed = (max(kind, key=lambda curve: at(curve.points, level)[0]) for kind in kinds)
            told.append(
                f"At {level:g} dB the best of the former, {best.name}, has {_size(ratio(best, fixed, level))} "
                f"the FLOPs speedup of the best of the latter, {fixed.name}."
            )
    names = ", ".join(curve.name for curve in found if varies(curve))
    return " ".join([f"The decisions of these methods differ between prompts: {names}; the others' do not.", *told])


def varies(curve: Curve) -> bool:
    """Whether the executed FLOPs of a setting differ between prompts: the decisions follow the content."""
    return bool((np.ptp(curve.speedups, 0) > 1e-9 * curve.speedups.max()).any())


def _against(a: Curve, b: Curve) -> str:
    """The ratio of two curves at the compared levels, in words."""
    told = []
    for level in COMPARED:
        found = ratio(a, b, level)
        if found.bound != "?":
            told.append(f"{_size(found)} at {level:g} dB")
    return f"{a.name} over {b.name}: {', '.join(told) or 'no common PSNR'}."


def _size(found: Reading) -> str:
    ends = f"[{found.low:.2f}, {found.high:.2f}]"
    open_ = "" if found.low > 1 or found.high < 1 else ", no significant difference"
    bound = {">": "at least ", "<": "at most "}.get(found.bound, "")
    return f"{bound}{found.value:.2f}× {ends}{open_}"


if __name__ == "__main__":
    sys.exit(main())
