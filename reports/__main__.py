"""python -m reports RESULTS [single]: rebuild RESULTS/report from the records; `single` also packs it to send.

python -m reports BUNDLE BUNDLE RESULTS: one report of several results folders and bundles.
python -m reports wandb PROJECT [RESULTS ...]: the report as runs on W&B (reports/wandb_board.py).
"""

import argparse
import csv
import json
import sys
from pathlib import Path
from typing import Any

from reports import layouts
from store import Store, StoreError, reported
from store.bundle import is_bundle
from terminal import tolerate, version


def make(*places: Path, again: bool = False, send: bool = False, asked: tuple[str, ...] = ()) -> dict[str, Any]:
    """The report's folder, and what to say of it; drawn only if the records have changed since, or with `again`.

    A report of several places or of a bundle is always drawn. send: also pack the page with its videos into a zip,
    whose path is `zip` of the result. asked: groups of optional columns.

    Raises:
        StoreError: there is no such folder or bundle, or it is of a newer version.
    """
    alone = len(places) == 1 and not is_bundle(places[0])
    if alone:
        Store(places[0], create=False)
    known = reported.unchanged(places[0]) if alone and not again else None
    if known is not None and ("zip" in known or not send) and tuple(known.get("columns", ())) == asked:
        return known
    from reports import build, read, single
    from reports.terminal_table import advice, as_text, verdicts

    report = read(*places, asked=asked)
    folder = build(report, send)
    said = {"page": str(folder / "index.html"), "table": as_text(report), "verdicts": verdicts(report)}
    said |= {"next": advice(report), "columns": asked}
    said |= {"zip": str(single.path(report.study.root))} if send else {}
    if alone:
        reported.note(report.study.root, said)
    return said


def as_json(said: dict[str, Any]) -> str:
    """One object: the page, the sentences of verdict, and the lines of the main table as the csv has them."""
    table = Path(said["page"]).parent / "tables" / "main.csv"
    with table.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    return json.dumps({"page": said["page"], "verdicts": said["verdicts"], "lines": lines}, ensure_ascii=False)


def parser() -> argparse.ArgumentParser:
    """The options; `table=` is read before them."""
    parser = argparse.ArgumentParser(prog="python -m reports", description=layouts.HELP)
    parser.add_argument(
        "results",
        nargs="*",
        default=["results"],
        help="the folder that run.py wrote to, or several folders and bundles; `single` after them also writes one zip "
        "to send, with all videos",
    )
    parser.add_argument("--verbose", action="store_true", help="also the notes, what is missing and the paper's lines")
    parser.add_argument("--quiet", action="store_true", help="only write the files")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.add_argument("--again", action="store_true", help="draw everything again, even if no record has changed")
    parser.add_argument("--version", action="version", version=version())
    return parser


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0, or 1 for a folder or bundle that is none."""
    tolerate()
    words = sys.argv[1:] if arguments is None else arguments
    if words[:1] == ["wandb"] and len(words) > 1:
        from reports import wandb_board

        return wandb_board.main(words[1:])
    try:
        layout, given = layouts.asked(words)
        asked, given = layouts.groups(given)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    options = parser().parse_args(given)
    send = len(options.results) > 1 and options.results[-1] == "single"
    words = options.results[:-1] if send else options.results
    places = [Path(word).expanduser().absolute() for word in words]
    try:
        if layout:
            print(layouts.latex(places, layout), end="")
            return 0
        said = make(*places, again=options.again, send=send, asked=asked)
    except StoreError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(as_json(said))
    elif not options.quiet:
        if options.verbose:
            print_notes(*places, asked=asked)
        print(f"{said['table']}page: {said['page']}\nnext: {said['next']}")
        if send:
            print(f"to send: {said['zip']}")
    return 0


def print_notes(*places: Path, console: Any = None, asked: tuple[str, ...] = ()) -> None:
    """Everything that the page says besides: notes on the table, what is missing, the paper's lines judged."""
    from reports import read
    from reports.paper import print_summary
    from reports.terminal_table import print_notes

    report = read(*places, asked=asked)
    print_notes(report, console)
    print_summary(report, console)


if __name__ == "__main__":
    sys.exit(main())
