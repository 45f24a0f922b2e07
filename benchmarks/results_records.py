"""Replaces the records of some methods in docs/results.jsonl.gz by those of a results folder, and keeps the others.

    python -m benchmarks.results_records RESULTS ramp bwcache@magi1_tiny +teacache

The records of `ramp` are replaced, those of `bwcache` on one model too, and those of `teacache` stay beside new ones.
`ramp@skyreels_tiny@full` replaces those of one attention.
All videos of the contest take hours, and a change of one method does not change those of the others. The Originals in
RESULTS replace those with the same key. In the commands of new records `results=RESULTS` stands for the folder. Then
run `python -m benchmarks.results`.
"""

from __future__ import annotations

import gzip
import json
import re
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from benchmarks.results import BUNDLE
from store import Store, bundle
from store.checks import with_seal
from store.files import writing
from store.packed import canonical
from terminal import tolerate

FOLDER = re.compile(r"(?<=\bresults=)\S+")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write docs/results.jsonl.gz again; returns 0, or 2 without a folder and methods."""
    tolerate()
    given = list(sys.argv[1:] if arguments is None else arguments)
    if len(given) < 2:
        print("want a results folder and the names of methods, e.g. python -m benchmarks.results_records RESULTS ramp")
        return 2
    root, *methods = given
    without_folders(Path(root))
    fresh, left = bundle.collect(Store(root, create=False))
    lines = merged(read(BUNDLE), fresh, methods)
    bundle.write(lines, BUNDLE)
    print(f"{BUNDLE.name}: {sum(kind == 'record' for kind, _ in lines)} records; left out: {left or 'none'}")
    return 0


def read(path: Path) -> list[bundle.Line]:
    """The lines of a bundle."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        found = [json.loads(text) for text in file]
    return [(one["kind"], canonical(one["content"])) for one in found]


def merged(old: Sequence[bundle.Line], fresh: Sequence[bundle.Line], methods: Collection[str]) -> list[bundle.Line]:
    """The lines of `old` without the records of `methods` and of videos that `fresh` holds, and the lines of `fresh`.

    Both begin with the line of a bundle. methods: METHOD, METHOD@MODEL or METHOD@MODEL@ATTENTION; +METHOD keeps its
    records of `old`.

    Raises ValueError if `fresh` has records of other methods that `old` lacks: they would be a part of a curve.
    """
    videos, known = ({_video(text) for kind, text in lines if kind == "record"} for lines in (fresh, old))
    named = {word.strip("+").partition("@")[0] for word in methods}
    strange = {method for method, *_ in videos - known} - named
    if strange:
        raise ValueError(f"got new records of {', '.join(sorted(strange))}; name these methods, or leave them out")

    def stays(text: str) -> bool:
        method, model, *_ = video = _video(text)
        own = f"{method}@{model}@{json.loads(text)['run']['attention']}"
        return video not in videos and not {method, f"{method}@{model}", own} & {*methods}

    kept = [one for one in old[1:] if one[0] != "record" or stays(one[1])]
    lines = list(dict.fromkeys([*kept, *fresh[1:]]))  # a schedule that both hold stands once, before its records
    head = {**json.loads(old[0][1]), "records": sum(kind == "record" for kind, _ in lines)}
    return [("bundle", canonical(head)), *lines]


def _video(text: str) -> tuple[str, str, str, str]:
    content = json.loads(text)
    return content["run"]["method"], content["model"], content["cell"], content["key"]


def without_folders(root: Path) -> None:
    """Write `results=RESULTS` in the commands of all records of a results folder, and seal them again."""
    for path in sorted(root.glob("*/*/*/run.json")):
        run = json.loads(path.read_bytes())
        command = FOLDER.sub("RESULTS", str(run.get("command", "")))
        if command != run.get("command"):
            with writing(path) as draft:
                draft.write_text(json.dumps(with_seal({**run, "command": command}), indent=1), encoding="utf-8")
    for index in root.glob("index*"):
        index.unlink()


if __name__ == "__main__":
    sys.exit(main())
