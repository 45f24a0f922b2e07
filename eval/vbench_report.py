"""RESULTS/vbench/<cell>.json: the scores of a cell by dimension, a reason where there is none, and the total."""

import json
from collections.abc import Sequence
from pathlib import Path

from eval import vbench_setup, vbench_suite
from eval.vbench_cells import LONG_FROM, PROTOCOLS, Cell, has, mean, values_of
from eval.vbench_total import DIMENSIONS, missing, total
from store import Store, writing


def report(
    store: Store, cell: Cell, entries: Sequence[dict], lack: dict[str, list[str]], about: dict, suite: str | Path | None
) -> dict:
    """Collect the scores of a cell from its records and write RESULTS/vbench/<cell>.json."""
    asked, shown = vbench_suite.prompts(entries), {video.prompt for video in cell.videos}
    found = {name: dimension_of(cell, name, entries, lack[name], about["protocol"], suite) for name in DIMENSIONS}
    scores = {name: fact.get("score") for name, fact in found.items()}
    kind = "VBench's own" if cell.own_prompts else "custom"
    report = about | {
        "cell": cell.name,
        "videos": len(cell.videos),
        "left_out": dict(cell.left_out),
        "prompts": {
            "kind": kind,
            "used": len(shown),
            "of": len(asked) if cell.own_prompts else None,
            "sha256": vbench_suite.digest(shown),
            "suite": str(suite) if suite else None,
        },
        "static_filter": False,
        "notes": _notes(cell, about["protocol"]),
        "dimensions": found,
        "total": None if missing(scores) else total(scores),
        "total_lacks": missing(scores),
    }
    path = store.root / "vbench" / f"{cell.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path) as draft:
        draft.write_text(json.dumps(report, indent=1))
    return report


def dimension_of(
    cell: Cell, name: str, entries: Sequence[dict], lack: list[str], protocol: str, suite: str | Path | None
) -> dict:
    """{"status", "videos", "of"}, with "score" if the status is ok and with "reason" otherwise."""
    wanted = cell.wanted(name, entries)
    values = [values_of(v.record, protocol)[name] for v in wanted if has(v.record, name, protocol)]
    counts = {"videos": len(values), "of": len(wanted)}
    if not wanted:
        why = (
            "it needs VBench's own prompts, and this cell has others"
            if not cell.own_prompts
            else "no video of this cell has one of its prompts"
        )
        return {"status": "unavailable", "reason": why, **counts}
    if name in cell.problems:
        return {"status": "failed", "reason": cell.problems[name], **counts}
    if len(values) < len(wanted):
        if lack:
            return {
                "status": "unavailable",
                "reason": "missing " + "; missing ".join(lack),
                "brief": f"missing {vbench_setup.short(lack)}",
                **counts,
            }
        return {
            "status": "incomplete" if values else "not scored",
            "reason": f"{len(wanted) - len(values)} of {len(wanted)} videos have no score",
            **counts,
        }
    absent = set(vbench_suite.prompts(entries, name)) - {v.prompt for v in wanted} if suite else set()
    if absent:
        why = f"{len(absent)} prompts of the suite have no video, the first {min(absent)!r}"
        return {"status": "incomplete", "reason": why, "partial": mean(values), **counts}
    return {"status": "ok", "score": mean(values), **counts}


def _notes(cell: Cell, protocol: str) -> list[str]:
    about = f"{PROTOCOLS[protocol]}_about"
    lengths = [((video.record.quality or {}).get(about) or {}).get("seconds") or 0 for video in cell.videos]
    if protocol == "standard" and max(lengths, default=0) >= LONG_FROM:
        return [f"videos of up to {max(lengths):.1f} s: VBench's FAQ recommends protocol=long from {LONG_FROM:.0f} s"]
    if protocol == "long":
        return [
            "VBench-Long cuts the videos into clips and encodes them again: lossy, and not bit-identical on each run"
        ]
    return []
