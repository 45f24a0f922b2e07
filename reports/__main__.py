"""python -m reports RESULTS [single]: rebuild RESULTS/report from the records; `single` also packs it to send."""

import argparse
import csv
import json
import sys
from pathlib import Path
from typing import Any

from store import Store, StoreError, reported
from terminal import tolerate, version


def make(results: Path, again: bool = False, send: bool = False) -> dict[str, Any]:
    """The report's folder, and what to say of it; drawn only if the records have changed since, or with `again`.

    send: also pack the page with its videos into a zip, whose path is `zip` of the result.

    Raises:
        StoreError: there is no such folder.
    """
    Store(results, create=False)
    known = None if again else reported.unchanged(results)
    if known is not None and ("zip" in known or not send):
        return known
    from reports import build, read, single
    from reports.terminal_table import advice, as_text, verdicts

    report = read(results)
    folder = build(report, send)
    said = {"page": str(folder / "index.html"), "table": as_text(report), "verdicts": verdicts(report)}
    said |= {"next": advice(report)}
    said |= {"zip": str(single.path(report.study.root))} if send else {}
    reported.note(report.study.root, said)
    return said


def as_json(results: Path, said: dict[str, Any]) -> str:
    """One object: the page, the sentences of verdict, and the lines of the main table as the csv has them."""
    table = results / "report" / "tables" / "main.csv"
    with table.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    return json.dumps({"page": said["page"], "verdicts": said["verdicts"], "lines": lines}, ensure_ascii=False)


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0, or 1 for a folder that is none."""
    tolerate()
    parser = argparse.ArgumentParser(prog="python -m reports", description="tables, figures and page from the records")
    parser.add_argument("results", nargs="?", default="results", help="the folder that run.py wrote to")
    parser.add_argument("single", nargs="?", choices=["single"], help="also write one zip to send, with all videos")
    parser.add_argument("--verbose", action="store_true", help="also the notes, what is missing and the paper's rows")
    parser.add_argument("--quiet", action="store_true", help="only write the files")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.add_argument("--again", action="store_true", help="draw everything again, even if no record has changed")
    parser.add_argument("--version", action="version", version=version())
    options = parser.parse_args(arguments)
    results = Path(options.results).expanduser().absolute()
    try:
        said = make(results, options.again, options.single is not None)
    except StoreError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(as_json(results, said))
    elif not options.quiet:
        if options.verbose:
            print_notes(results)
        print(f"{said['table']}page: {said['page']}\nnext: {said['next']}")
        if options.single:
            print(f"to send: {said['zip']}")
    return 0


def print_notes(results: Path, console: Any = None) -> None:
    """Everything that the page says besides: notes on the table, what is missing, the paper's rows judged."""
    from reports import read
    from reports.paper import print_summary
    from reports.terminal_table import print_notes

    report = read(results)
    print_notes(report, console)
    print_summary(report, console)


if __name__ == "__main__":
    sys.exit(main())
