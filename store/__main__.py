"""`python -m store RESULTS [--verify]`, `python -m store export RESULTS BUNDLE` and `python -m store check BUNDLE`."""

import argparse
import sys
from importlib import import_module
from pathlib import Path

from store import Store, StoreError, bundle, clips, submission
from store.status import Recount, print_status
from terminal import tolerate, version


def main(arguments: list[str] | None = None) -> int:
    """Run the command line. Returns 0, or 1 if the folder does not exist or has damaged records."""
    tolerate()
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["export"]:
        return export(given[1:])
    if given[:1] == ["check"]:
        return check(given[1:])
    parser = argparse.ArgumentParser(
        prog="python -m store",
        description="list what is done, running, failed and missing",
        epilog="python -m store export RESULTS bundle.jsonl.gz [--previews] writes the records to one file; "
        "python -m store check bundle.jsonl.gz says whether such a file can be submitted",
    )
    parser.add_argument("results", nargs="?", default="results", help="results folder of run.py")
    parser.add_argument(
        "--verify", action="store_true", help="recompute checksums, seals, keys and FLOPs without any cache"
    )
    parser.add_argument("--version", action="version", version=version())
    options = parser.parse_args(given)
    try:
        store = Store(options.results, create=False)
        print_status(store, options.verify, _recount() if options.verify else None)
    except StoreError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return int(bool(store.damaged))


def export(arguments: list[str]) -> int:
    """Run `python -m store export RESULTS BUNDLE`. Returns 0, or 1 if a record was left out."""
    parser = argparse.ArgumentParser(
        prog="python -m store export", description="write the records to one file, without videos or with small copies"
    )
    parser.add_argument("results", help="results folder of run.py")
    parser.add_argument("bundle", help=f"file to write; its name ends in {bundle.SUFFIX}")
    parser.add_argument(
        "--previews", action="store_true", help=f"also a copy of each video, at most {clips.SIDE} pixels wide and high"
    )
    options = parser.parse_args(arguments)
    try:
        count, left = bundle.export(Store(options.results, create=False), Path(options.bundle), options.previews)
    except StoreError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for place, why in left.items():
        print(f"left out: {place}, {why}", file=sys.stderr)
    megabytes = Path(options.bundle).stat().st_size / 1e6
    print(f"{options.bundle}: {count} records, {megabytes:.2g} MB")
    return int(bool(left))


def check(arguments: list[str]) -> int:
    """Run `python -m store check BUNDLE ...`. Returns 0, or 1 if a bundle cannot be submitted."""
    parser = argparse.ArgumentParser(
        prog="python -m store check", description="say whether bundles can be submitted (docs/records.md)"
    )
    parser.add_argument("bundles", nargs="+", help="files of python -m store export")
    wrong = {path: submission.problems(Path(path)) for path in parser.parse_args(arguments).bundles}
    for path, problems in wrong.items():
        print("\n".join(f"{path}: {problem}" for problem in problems or ["can be submitted"]))
    return int(any(wrong.values()))


def _recount() -> Recount | None:
    """The function that counts FLOPs again. It needs the whole program; None if only the store is installed."""
    try:
        found: Recount = import_module("sweep.recount").recount
    except ImportError as error:
        print(f"FLOPs are not counted again: {error}", file=sys.stderr)
        return None
    return found


if __name__ == "__main__":
    sys.exit(main())
