"""VBench (Huang et al. 2024): runs the original package in a separate environment.

python -m eval.vbench setup             build that environment (about 7 GB) python -m eval.vbench doctor            list
which of the 16 dimensions can be scored, and what is missing for the others python -m eval.vbench prompts FILE.json
[videos=400] [seed=0]
                                        write a declared subset of VBench's prompts over all 16 dimensions
python -m eval.vbench score RESULTS [dimensions=[a,b]] [protocol=standard|long] [device=auto] [suite=FILE.json]
                                        score the stored videos without scores
python -m eval.vbench total FILE.csv    quality, semantic and total of published results, in percent
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from eval import vbench_setup, vbench_suite
from eval.vbench_score import score
from eval.vbench_total import DIMENSIONS, VBenchError, totals_of_file
from store import StoreError, writing
from terminal import tolerate

SETTINGS = {"score": ("dimensions", "protocol", "device", "suite"), "prompts": ("videos", "seed")}
NUMBERS = ("videos", "seed")


def settings(words: Sequence[str], allowed: Sequence[str]) -> dict:
    """`name=value` words as a mapping; [a,b] is a list, videos and seed are numbers. VBenchError for other words.

    >>> settings(["dimensions=[color, scene]", "seed=3"], ["dimensions", "seed"])
    {'dimensions': ['color', 'scene'], 'seed': 3}
    """
    found: dict[str, object] = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not sign or name not in allowed:
            raise VBenchError(f"{word!r} is not a setting here; want name=value with {', '.join(allowed)}")
        if name in NUMBERS and not value.isdigit():
            raise VBenchError(f"{word!r}: want a whole number")
        if value.startswith("[") and value.endswith("]"):
            found[name] = [item.strip() for item in value[1:-1].split(",") if item.strip()]
        else:
            found[name] = int(value) if name in NUMBERS else value
    if isinstance(found.get("dimensions"), str):
        found["dimensions"] = [found["dimensions"]]
    return found


def doctor() -> int:
    """Print what can be scored, what is missing and where to get it. Returns 1 if VBench is not installed, else 0."""
    try:
        found, code = vbench_setup.probe(), 0
        versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
        gpu = "a GPU" if found["cuda"] else "no GPU"
        print(f"environment: Python {found['python']}, {versions}, {gpu}\n")
    except VBenchError as error:
        found, code = {"modules": {}}, 1
        print(f"environment: {error}\n")
    weights = vbench_setup.examine(hashes=True)
    lacks = {name: vbench_setup.lacking(weights, found["modules"], name) for name in ("standard", "long")}
    for dimension in DIMENSIONS:
        print(f"{dimension:<24}{_availability(lacks, dimension, installed=not code)}")
    print()
    for weight in weights.values():
        state = weight.problem or f"present, verified by {weight.verified}"
        print(f"{weight.name:<44}{vbench_setup.human(weight.size):>8}  {state}")
    if wanted := dict.fromkeys(item for items in lacks["long"].values() for item in items):
        sizes = {weight.name: weight.size or 0 for weight in weights.values() if weight.problem}
        print(f"\nto fetch, {vbench_setup.human(sum(sizes.values()))} in total:")
        print("".join(f"    {item}\n" for item in wanted), end="")
    return code


def _availability(lacks: dict[str, dict[str, list[str]]], dimension: str, installed: bool) -> str:
    if not installed:
        return "unavailable: missing VBench itself"
    standard, extra = lacks["standard"][dimension], lacks["long"][dimension]
    if standard:
        return f"unavailable: missing {vbench_setup.short(standard)}"
    return "available" + (f"; under protocol=long missing {vbench_setup.short(extra)}" if extra else "")


def setup() -> int:
    """Build the environment, then print its state and what is still to be fetched."""
    vbench_setup.setup()
    print(f"VBench is ready in {vbench_setup.home()}\n")
    return doctor()


def write_prompts(file: Path, videos: int = 400, seed: int = 0) -> None:
    """Write a declared subset: FILE.json for `score suite=`, and FILE.txt with one prompt per line for run.py."""
    entries = vbench_suite.subset(vbench_suite.load(vbench_setup.full_info()), videos, seed)
    prompts = vbench_suite.prompts(entries)
    for path, text in ((file, json.dumps(entries, indent=1)), (file.with_suffix(".txt"), "\n".join(prompts) + "\n")):
        with writing(path) as draft:
            draft.write_text(text, encoding="utf-8")
    each = {name: len(vbench_suite.prompts(entries, name)) for name in DIMENSIONS}
    print(
        f"{file}: {len(prompts)} prompts, sha256 {vbench_suite.digest(prompts)}, {min(each.values())} to "
        f"{max(each.values())} in each of the 16 dimensions\n"
        f"generate them with  prompts.file={file.with_suffix('.txt')} prompts.limit=0\n"
        f"score them with     python -m eval.vbench score RESULTS suite={file}"
    )


def print_scores(reports: dict[str, dict], results: Path, dimensions: Sequence[str] | None = None) -> int:
    """Print the requested dimensions, cell by cell. Returns 1 if one of them failed, else 0."""
    failed = False
    for cell, report in reports.items():
        used, versions = report["prompts"], report["package"]
        out = "".join(f", {count} {why}" for why, count in report["left_out"].items())
        print(
            f"\n{cell}: {report['videos']} videos{out}; {used['used']} prompts ({used['kind']}, "
            f"sha256 {used['sha256']}); VBench {versions['vbench']}, {report['protocol']} protocol"
        )
        for name in dimensions or DIMENSIONS:
            found = report["dimensions"][name]
            failed = failed or found["status"] == "failed"
            why = found.get("brief", found.get("reason"))
            text = f"{found['score']:.6f}" if found["status"] == "ok" else f"{found['status']}: {why}"
            print(f"    {name:<24}{text}")
        lacks = f"none, as {len(report['total_lacks'])} of 16 dimensions have no score"
        print(f"    {'total':<24}{json.dumps(report['total']) if report['total'] else lacks}")
        print("".join(f"    note: {note}\n" for note in report["notes"]), end="")
    print(
        f"\nall values: {results}/vbench/<model>/<method>.json; to list what is missing and where to get it: "
        "python -m eval.vbench doctor"
    )
    return int(failed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command, e.g. `setup`; returns the exit status."""
    tolerate()
    parser = argparse.ArgumentParser(
        prog="python -m eval.vbench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("setup", "doctor"):
        verbs.add_parser(verb)
    for verb, what in (("score", "RESULTS"), ("prompts", "FILE.json"), ("total", "FILE.csv")):
        sub = verbs.add_parser(verb)
        sub.add_argument("what", metavar=what, type=Path)
        sub.add_argument("settings", nargs="*", metavar="name=value")
    given = parser.parse_args(arguments)
    try:
        chosen = settings(getattr(given, "settings", ()), SETTINGS.get(given.verb, ()))
        match given.verb:
            case "setup":
                return setup()
            case "doctor":
                return doctor()
            case "prompts":
                write_prompts(given.what, **chosen)
            case "score":
                return print_scores(score(given.what, **chosen), given.what, chosen.get("dimensions"))
            case "total":
                rows = totals_of_file(given.what)
                print(json.dumps([{name: round(value, 4) for name, value in row.items()} for row in rows]))
        return 0
    except BrokenPipeError:  # the reader of stdout has ended, as in `doctor | head`
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (for the flush at exit)
        return 1
    except (VBenchError, StoreError, OSError) as error:
        print(f"eval.vbench: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
