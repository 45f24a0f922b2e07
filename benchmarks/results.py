"""Writes docs/results.md, and the main table of README.md, from records: who wins at which cost on the small models.

    python -m benchmarks.results RESULTS     exports the records of RESULTS to docs/results.jsonl.gz, then writes both
    python -m benchmarks.results             writes both again from docs/results.jsonl.gz

Every number and every comparison is computed from the records; tests/test_results.py keeps both texts equal to them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from reports import read
from reports.line import Line, shown
from reports.metric import BY_NAME
from reports.paired import Finding, Pair, compare
from reports.report import Report
from reports.statistics import FEWEST
from store import Store, bundle
from terminal import tolerate

ROOT = Path(__file__).parents[1]
BUNDLE, PAGE, README = ROOT / "docs" / "results.jsonl.gz", ROOT / "docs" / "results.md", ROOT / "README.md"
BEGIN, END = "<!-- results: python -m benchmarks.results -->", "<!-- end of results -->"
COLUMNS = ("flops_speedup", "psnr", "ssim", "lpips")
SHORT = ("flops_speedup", "psnr", "lpips")  # of README's table
WANTED = 16  # prompts
UNSCORED = "The quality of these videos has not been scored."
QUALITY = ("psnr", "lpips")  # of the comparisons
QUESTIONS = {  # what is asked: the lines that answer it
    "SCOPE against the Original with fewer steps": (("SCOPE fast",), ("Original, fewer steps",)),
    "Prediction against reuse: TaylorSeer against TeaCache": (("TaylorSeer",), ("TeaCache",)),
    "SCOPE against prediction without a signal: TaylorSeer": (("SCOPE",), ("TaylorSeer",)),
    "SCOPE against reuse that each chunk decides: FlowCache": (("SCOPE",), ("FlowCache",)),
    "SCOPE against a fixed schedule: every k-th step": (("SCOPE",), ("Uniform",)),
    "A fixed schedule that predicts against one that reuses": (("Uniform (order=1",), ("Uniform (interval",)),
}
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
    """Write the texts; returns 0."""
    tolerate()
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given:
        count, left = bundle.export(Store(given[0], create=False), BUNDLE)
        print(f"{BUNDLE.name}: {count} records; left out: {left or 'none'}")
    report = read(BUNDLE)
    PAGE.write_text(page(report), encoding="utf-8")
    README.write_text(inserted(README.read_text(encoding="utf-8"), report), encoding="utf-8")
    return 0


def page(report: Report) -> str:
    """docs/results.md."""
    parts = ["# Results on the small models", _head(report)]
    for model, lines in report.by_model():
        chosen = ordered(lines)
        if not any(line.known("psnr") for line in chosen):
            parts += [f"## {model}", _setting(report, chosen), _table(chosen, COLUMNS[:1]), UNSCORED]
            continue
        parts += [f"## {model}", _setting(report, chosen), _table(chosen, COLUMNS, intervals=True)]
        parts += ["### Who wins at which cost", _winners(chosen), "### What surprised", _answers(chosen)]
    return "\n\n".join([*parts, "## What does not follow from small models", CAUTION])


def inserted(text: str, report: Report) -> str:
    """README.md with the table between its two marks."""
    before, _, rest = text.partition(BEGIN)
    every = [(model, ordered(lines)) for model, lines in report.by_model()]
    scored = [(model, lines) for model, lines in every if any(line.known("psnr") for line in lines)]
    tables = [f"**{model}**, {_setting(report, lines)}\n\n{_table(lines, SHORT)}" for model, lines in scored]
    return f"{before}{BEGIN}\n" + "\n\n".join(tables) + f"\n{END}{rest.partition(END)[2]}"


def ordered(lines: Sequence[Line]) -> list[Line]:
    """The accelerated lines with valid videos, the fastest by FLOPs first, then the reference rows."""
    known = [line for line in lines if line.method != "original" and len(line.valid)]
    if len({line.variant for line in known}) == 1:  # a setting that all share is not repeated
        known = [replace(line, name=line.name.replace(f" ({line.variant})", "")) for line in known]
    return sorted(known, key=lambda line: (not line.accelerated, -line.value("flops_speedup")))


def _head(report: Report) -> str:
    videos = report.study.videos
    codes = sorted(set(_codes(report)))
    return (
        f"{len(videos)} videos; written by `python -m benchmarks.results` from `docs/results.jsonl.gz`. Made on "
        f"{', '.join(sorted(set(videos['device'])))}, one thread, by commit {', '.join(codes)}. "
        "FLOPs speedup: FLOPs of the Original over those of the method, counted from its decisions. Brackets hold 95 % "
        f"intervals over prompts; with fewer than {FEWEST} prompts only speedups and PSNR have one."
    )


def _codes(report: Report) -> Iterator[str]:
    for record in report.study.records:
        yield str((record.run.get("environment") or {}).get("commit", "not recorded"))


def _setting(report: Report, lines: Sequence[Line]) -> str:
    run = report.study.record(lines[0].records.iloc[0]).run
    prompts = sorted({line.valid["prompt"].nunique() for line in lines})
    few = f" ({WANTED} are wanted for a verdict)" * (prompts[0] < WANTED)
    count = " to ".join(str(n) for n in dict.fromkeys((prompts[0], prompts[-1])))
    return (
        f"{run['frames']} frames of {run['width']} × {run['height']}, {count} prompts that nothing was fitted to{few}."
    )


def _table(lines: Sequence[Line], names: Sequence[str], intervals: bool = False) -> str:
    metrics = [BY_NAME[name] for name in names]
    rows = [["method", *(metric.title for metric in metrics)], ["---", *["---:"] * len(metrics)]]
    rows += [[line.name + line.signs, *(shown(line, metric, intervals) for metric in metrics)] for line in lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _winners(lines: Sequence[Line]) -> str:
    """The lines that no other line beats in both, and how sure each is against the next slower one."""
    ranked = [line for line in lines if line.ranked and line.known("psnr")]
    front: list[Line] = []
    for line in ranked:  # the fastest first
        if not front or line.value("psnr") > front[-1].value("psnr"):
            front.append(line)
    said = [
        f"* {line.value('flops_speedup'):.2f}×: **{line.name}**, {shown(line, BY_NAME['psnr'])} dB." for line in front
    ]
    beaten = [line.name for line in ranked if line not in front]
    return "\n".join([
        "By FLOPs speedup and PSNR no line is better in both than these:",
        "",
        *said,
        "",
        f"Slower and farther than one of them: {', '.join(beaten)}." if beaten else "No other line was measured.",
    ])  # fmt: skip


def _answers(lines: Sequence[Line]) -> str:
    """Each question with the paired differences that answer it."""
    said = []
    for question, (ours, theirs) in QUESTIONS.items():
        pairs = [
            (a, b)
            for a in lines
            for b in lines
            if a.name.startswith(ours)
            and b.name.startswith(theirs)
            and (a.speed == b.speed or not (a.speed and b.speed))
        ]
        said.append(f"* **{question}.** {' '.join(_answer(a, b) for a, b in pairs) or 'Not in these records.'}")
    return "\n".join(said)


def _answer(a: Line, b: Line) -> str:
    cost = f"{a.name} ({a.value('flops_speedup'):.2f}×) and {b.name} ({b.value('flops_speedup'):.2f}×)"
    found = [_words(pair) for pair in compare([a, b], [BY_NAME[name] for name in QUALITY])]
    return f"{cost}: {'; '.join(found) or 'no videos in common'}."


def _words(pair: Pair) -> str:
    value, low, high = (f"{pair.metric.show(number)}" for number in pair.difference)
    title = pair.metric.title
    if pair.finding is Finding.BETTER:
        return f"{title} is better for {pair.first.name} by {value} [{low}, {high}]"
    if pair.finding is Finding.OPEN:
        return f"no significant difference in {title} ({value} [{low}, {high}])"
    return f"{title}: {pair.finding.value}"


if __name__ == "__main__":
    sys.exit(main())
