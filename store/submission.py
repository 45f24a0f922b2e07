"""Whether a bundle can be submitted: `python -m store check BUNDLE`, and a test for every file in submissions/."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from store.bundle import is_bundle
from store.bundled import read
from store.checks import unsealed
from store.record import Record, StoreError

MEGABYTES = 20.0  # largest file that is taken into the repository
SAID = 5  # most records that one line names


def problems(path: Path) -> list[str]:
    """Why a bundle cannot be submitted, one line each; empty if it can."""
    if not is_bundle(path):
        return ["it is a folder; python -m store export RESULTS bundle.jsonl.gz writes a bundle of it"]
    try:
        bundle = read(path)
    except StoreError as error:
        return [str(error)]
    size = path.stat().st_size / 1e6
    found = [f"{place}: {why}" for place, why in bundle.damaged.items()]
    if size > MEGABYTES:
        found.append(f"it has {size:.1f} MB, want at most {MEGABYTES:g}; export without --previews, or fewer records")
    if not bundle.records:
        found.append("it holds no record")
    return found + list(_of_records(bundle.records))


def _of_records(records: Sequence[Record]) -> Iterator[str]:
    """What many records have in common is said once, with their number and the first names."""
    every = {record.path.name for record in records}
    wrong: dict[str, list[str]] = {}
    for record in records:
        for why in _of_record(record, every):
            wrong.setdefault(why, []).append("/".join(record.path.parts[-3:]))
    for why, names in wrong.items():
        more = f" and {len(names) - SAID} more" * (len(names) > SAID)
        yield f"{why}: {', '.join(names[:SAID])}{more}"


def _of_record(record: Record, every: set[str]) -> Iterator[str]:
    run = record.run
    environment = run.get("environment") or {}
    if unsealed(run) or record.older_key:
        yield "made by an older version, whose records cannot be checked; run the same command again"
    if not (environment.get("gpu") or environment.get("cpu")):
        yield "run.json does not name the machine (environment.gpu or environment.cpu)"
    if not (environment.get("packages") or {}).get("torch"):
        yield "run.json does not name the version of torch (environment.packages)"
    if not run.get("produced_by"):
        yield "run.json does not say what produced the video (produced_by)"
    if run.get("status", "ok") == "ok" and record.scores is None:
        yield "no scores; run python -m eval RESULTS and export again"
    if run.get("reference_key") and run["reference_key"] not in every:
        yield "the Original that it is compared with is not in the bundle"
