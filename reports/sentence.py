"""The verdict on a model in one sentence: the fastest line, the closest line, and what is significant."""

from __future__ import annotations

from collections.abc import Sequence

from reports.line import Line, shown
from reports.marks import Kind
from reports.metric import BY_NAME
from reports.paired import Finding, Pair
from reports.report import Report

IS = {True: "are", False: "is"}
CLOSENESS = ("psnr", "ssim", "lpips")  # the first that is known names the closest line


def sentence(report: Report, model: str) -> str:
    """One sentence on the lines of a model, without its name: `SCOPE fast is fastest: 2.76× at 28.62 dB; ...`."""
    lines = [line for line in report.lines if line.model == model]
    known = [line for line in lines if line.accelerated and line.known("speedup")]
    if not any(line.accelerated for line in lines):
        return "No accelerated line was run, so there is nothing to compare."
    if not known:
        return "No accelerated line has a speedup: their Originals are missing, or no video is valid."
    fastest = max(known, key=lambda line: line.value("speedup"))
    parts = [_fastest(fastest)]
    metric = next((name for name in CLOSENESS if any(line.known(name) for line in known)), "")
    if fastest.value("speedup") <= 1:
        return parts[0] + "."
    if metric and (closest := _closest(known, metric)) is not fastest:
        parts.append(f"{closest.name} is closest to the Original: {_numbers(closest)}")
    parts += _certainty([pair for pair in report.pairs if pair.model == model], metric)
    return "; ".join(parts) + "."


def _fastest(line: Line) -> str:
    if line.value("speedup") <= 1:
        return f"no line is faster than the Original ({line.name}: {_numbers(line)})"
    within = ", within the spread of the Original run twice" * bool(line.marked(Kind.REPEAT_SPEED))
    return f"{line.name} is fastest: {_numbers(line)}{within}"


def _numbers(line: Line) -> str:
    """`2.76× at 28.62 dB`, with the first known measure of closeness."""
    for name in CLOSENESS:
        if line.known(name):
            metric = BY_NAME[name]
            value = shown(line, metric)
            how = "identical frames" if value == "∞" else f"{value} dB" if name == "psnr" else f"{metric.title} {value}"
            return f"{shown(line, BY_NAME['speedup'])} at {how}"
    return f"{shown(line, BY_NAME['speedup'])}, quality not measured"


def _closest(lines: Sequence[Line], metric: str) -> Line:
    sign = 1 if BY_NAME[metric].better == "higher" else -1
    return max((line for line in lines if line.known(metric)), key=lambda line: sign * line.value(metric))


def _certainty(pairs: Sequence[Pair], metric: str) -> list[str]:
    """Whether the fastest and the closest line differ significantly from every other line."""
    found = {
        what: [pair for pair in pairs if pair.metric.name == name]
        for what, name in (("speed", "speedup"), ("closeness", metric))
    }
    found = {what: some for what, some in found.items() if some}
    if not found:
        return []
    count = max(pair.prompts for some in found.values() for pair in some)
    prompts = f"with {count} prompt{'s' * (count != 1)}"
    clear = [what for what, some in found.items() if all(pair.finding is Finding.BETTER for pair in some)]
    open_ = [what for what in found if what not in clear]
    if clear and open_:
        return [f"{prompts} the lead in {clear[0]} is significant, that in {open_[0]} is not"]
    if clear:
        return [
            f"{prompts} the lead{'s' * (len(clear) > 1)} in {' and in '.join(clear)} {IS[len(clear) > 1]} significant"
        ]
    if any(pair.finding is Finding.BETTER for some in found.values() for pair in some):
        return [f"{prompts} no line is significantly better than every other"]
    return [f"{prompts} no difference between methods is significant"]
