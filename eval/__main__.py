"""Score the videos of a results folder that have no scores: `python -m eval RESULTS`.

It needs only the records and the lossless frames, so it can run on another machine. It can be stopped and started
again: each quality.json is written as a whole. An existing quality.json is written again only if something that was
missing (LPIPS weights, the Original) is now available. Only files that are unchanged since they were sealed are read.
An error never replaces existing scores.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import terminal
from eval import kept
from store import Record, Store, StoreError

NO_VIDEO = "is itself no valid video"  # a verdict on the Original, not a reading error


@dataclass
class Pairing:
    """Finds the Original with which a record is compared."""

    root: Path
    originals: dict[tuple, list[Record]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def of(cls, root: Path, records: Iterable[Record]) -> "Pairing":
        """Collect the Originals among the records."""
        pairing = cls(root)
        for record in records:
            if is_original(record):
                model = record.run.get("model")
                pairing.originals[model, record.run.get("key", record.path.name)].append(record)
                pairing.originals[model, record.run.get("prompt"), record.run.get("seed")].append(record)
        return pairing

    def find(self, record: Record) -> tuple[Path | None, str | None]:
        """(folder of the record's Original, None), or (None, the reason); for an Original, (None, None)."""
        if is_original(record):
            return None, None
        model, key = record.run.get("model"), record.run.get("reference_key")
        wanted = (model, key) if key else (model, record.run.get("prompt"), record.run.get("seed"))
        found = self.originals.get(wanted, [])
        if not found:
            return None, (
                f"no Original {key or 'of its prompt and seed'} of {model} in {self.root}; generate it with "
                f"python run.py model={model} method=original and the same prompts and seeds"
            )
        if len(found) > 1:
            return None, (
                f"{len(found)} Originals for its prompt and seed and no reference_key to choose by: "
                + ", ".join(str(one.path) for one in found)
            )
        quality = quality_of(found[0]) or {}
        if found[0].status != "ok" or quality.get("validity", {}).get("status") == "invalid":
            return None, f"its Original {found[0].path} {NO_VIDEO}"
        return found[0].path, None


def is_original(record: Record) -> bool:
    """Whether a record is an Original, and not its repeat or another method."""
    return record.run.get("method") == "original" and not record.run.get("reference_key")


def quality_of(record: Record) -> dict[str, Any] | None:
    """quality.json, or None if it is missing or damaged and must be written."""
    try:
        return record.quality
    except ValueError:
        return None


def lacks_scores(quality: dict[str, Any] | None, reference: Path | None, lpips_net: str) -> bool:
    """Whether scoring would add values to quality.json."""
    if quality is None or "validity" not in quality or quality.get("unreadable"):
        return True
    if reference and quality.get("reference_missing") and quality.get("psnr_frame_mean") is None:
        return True
    return bool(reference and quality.get("lpips_missing")) and _weights_here(lpips_net)


def score_store(
    store: Store,
    redo: bool = False,
    lpips_net: str = "alex",
    device: str = "cpu",
    console: Console | None = None,
    only: Collection[str] | None = None,
) -> dict[str, int]:
    """Score the records without scores. Returns the numbers of {"scored", "kept", "invalid", "failed", "errors"}.

    Originals come first, because other videos are compared only with valid Originals. `only`: the keys of the records
    to score; None: all.
    """
    console = console or terminal.console(stderr=True)
    records = sorted(store.records(), key=lambda record: not is_original(record))
    pairing = Pairing.of(store.root, records)
    counts = dict.fromkeys(("scored", "kept", "invalid", "failed", "errors"), 0)
    whole = cache(store.whole)  # many videos have the same Original
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console) as progress:
        wanted = [record for record in records if only is None or record.path.name in only]
        for record in progress.track(wanted, description="scoring"):
            outcome = _score_one(record, pairing, redo, lpips_net, device, progress.console, whole)
            counts[outcome] += 1
            verdict = (quality_of(record) or {}).get("validity", {})
            counts["invalid"] += verdict.get("status") == "invalid"
    return counts


def _score_one(
    record: Record,
    pairing: Pairing,
    redo: bool,
    lpips_net: str,
    device: str,
    console: Console,
    whole: Callable[[Path], bool],
) -> str:
    """`scored`, `kept`, `failed` (nothing was generated) or `errors`."""
    if record.status == "failed":
        return "failed"
    reference, missing = pairing.find(record)
    quality = quality_of(record)
    lacks = lacks_scores(quality, reference, lpips_net) or _lacks_preview(record, quality, lpips_net)
    if not redo and not lacks:
        return "kept"

    def refuse(why: object) -> str:
        still = "; its scores are kept" if quality else ""
        console.print(f"[red]error[/] {escape(str(record.path))}: {escape(str(why))}{still}")
        return "errors"

    changed = next((folder for folder in filter(None, (record.path, reference)) if not whole(folder)), None)
    if changed:
        return refuse(
            f"the files in {changed} were changed after they were sealed; the run.py command of the video "
            "generates it again"
        )
    try:
        fresh = score_record(record.path, reference, record.run, lpips_net, device)
    except (ValueError, OSError, RuntimeError) as error:  # RuntimeError: from torch, also out of memory
        return refuse(error)
    if missing:
        fresh["reference_missing"] = missing
    if lost := kept.lost(quality or {}, fresh):
        return refuse(lost)
    record.write_json("quality.json", kept.merged(quality or {}, fresh))
    _print_reasons(record, fresh, console)
    return "scored"


def _print_reasons(record: Record, fresh: Mapping[str, Any], console: Console) -> None:
    """Print why a scored video is invalid or diverged, and why it has no Original."""
    left = [f"diverged: {text}" for text in fresh["validity"].get("diverged", ())]
    for reason in (*fresh["validity"]["reasons"], *left, *filter(None, [fresh.get("reference_missing")])):
        console.print(f"[yellow]{escape(str(record.path))}[/]: {escape(reason)}")


def score_record(*asked: Any) -> dict[str, Any]:
    """See eval/score.py. It is imported only for a record that lacks scores, because it imports torch."""
    from eval import score

    return score.score_record(*asked)


def _lacks_preview(record: Record, quality: dict[str, Any] | None, lpips_net: str) -> bool:
    """Whether the loss of an Original's mp4 is not measured yet, or measured without LPIPS."""
    if not kept.wants_preview(record.path, record.run):
        return False
    lost = (quality or {}).get("preview") or {}
    return not lost or ("missing" not in lost and lost.get("lpips") is None and _weights_here(lpips_net))


def _weights_here(net: str) -> bool:
    if net == "none":
        return False
    from eval import lpips_weights

    try:
        return bool(lpips_weights.find(net))
    except lpips_weights.MissingWeights:
        return False


def main(arguments: list[str] | None = None) -> int:
    """Run the command line. Returns 0, 1 if a record could not be scored, or 2 if there are no records."""
    terminal.tolerate()
    parser = argparse.ArgumentParser(prog="python -m eval", description=__doc__.splitlines()[0].replace("`", ""))
    parser.add_argument("results", type=Path, help="results folder of run.py")
    parser.add_argument("--redo", action="store_true", help="score everything again")
    parser.add_argument("--lpips-net", choices=(*kept.NETS, "none"), default="alex")
    parser.add_argument("--device", default="", help="cpu or cuda; a GPU if there is one")
    parser.add_argument("--version", action="version", version=terminal.version())
    options = parser.parse_args(arguments)
    import torch

    from eval import lpips_weights

    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    console = terminal.console(highlight=True)
    try:
        if options.lpips_net != "none":
            lpips_weights.features(lpips_weights.find(options.lpips_net), options.lpips_net)
    except lpips_weights.MissingWeights as error:
        console.print(f"LPIPS stays empty: {escape(str(error))}")
    except ValueError as error:
        return _stop(error)
    try:
        store = Store(options.results, create=False)
        counts = score_store(store, options.redo, options.lpips_net, device, console)
    except StoreError as error:
        return _stop(error)
    for folder, why in store.damaged.items():
        console.print(f"[yellow]{escape(str(folder))}[/] is ignored: {escape(why)}")
    if not sum(counts.values()):
        return _stop(f"no records in {options.results}; generate some with python run.py results={options.results}")
    console.print(", ".join(f"{name} {number}" for name, number in counts.items()))
    return int(counts["errors"] > 0)


def _stop(error: object) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
