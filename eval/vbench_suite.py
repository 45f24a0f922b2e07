"""VBench's prompts, declared subsets of them, and the file names that VBench expects.

The prompts are read from the installed package (`VBench_full_info.json`, Apache-2.0) and not copied into this project.
A subset is the same file with fewer entries, so that VBench only expects videos of these prompts.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.vbench_total import DIMENSIONS, VBenchError
from store import Record

PER_PROMPT = 5  # VBench only reads PROMPT-0.mp4 to PROMPT-4.mp4


@dataclass(frozen=True)
class Video:
    """A record and the file name that VBench expects."""

    file: str
    prompt: str
    record: Record


def load(path: str | Path) -> list[dict]:
    """The entries of a full_info file: {"prompt_en", "dimension": [...], and data for the evaluators}.

    VBenchError if the file is not such a list, or names a dimension that VBench does not have.
    """
    try:
        entries = json.loads(Path(path).read_text(encoding="utf-8"))
        named = {name for entry in entries for name in entry["dimension"]}
        names = [entry["prompt_en"] + f"-{PER_PROMPT}.mp4" for entry in entries]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise VBenchError(
            f"{path} is not a full_info file of VBench ({type(error).__name__}: {error}); "
            "write one with `python -m eval.vbench prompts FILE.json`"
        ) from error
    if unknown := sorted(named - set(DIMENSIONS)):
        raise VBenchError(f"{path} names {', '.join(unknown)}; VBench's dimensions are {', '.join(DIMENSIONS)}")
    if unfit := [name for name in names if "/" in name or len(name.encode()) > 255]:
        raise VBenchError(f"{path}: VBench expects the impossible file name {unfit[0]!r}; shorten that prompt")
    return entries


def prompts(entries: Iterable[dict], dimension: str | None = None) -> list[str]:
    """The prompts of a dimension (None: of all dimensions), each once, in the order of the file."""
    fit = (entry for entry in entries if dimension is None or dimension in entry["dimension"])
    return list(dict.fromkeys(entry["prompt_en"] for entry in fit))


def subset(entries: Sequence[dict], videos: int = 400, seed: int = 0) -> list[dict]:
    """The entries of at least `videos` prompts, with the same number from every group of dimensions with common
    prompts.

    VBench has 11 such groups of 72 to 100 prompts, 944 in total. A hash of seed and prompt gives the order in a group.
    So the subset is the same on every machine, and a larger subset contains the smaller one.
    """
    groups: dict[tuple[str, ...], list[str]] = {}
    for entry in entries:
        groups.setdefault(tuple(entry["dimension"]), []).append(entry["prompt_en"])
    if not 0 < videos <= len(available := prompts(entries)):
        raise VBenchError(f"videos={videos} is too large; VBench has {len(available)} prompts")
    ranked = [sorted(set(group), key=lambda prompt: _rank(seed, prompt)) for group in groups.values()]
    for each in range(-(-videos // len(ranked)), len(available) + 1):
        chosen = {prompt for group in ranked for prompt in group[:each]}
        if len(chosen) >= videos:
            break
    return [entry for entry in entries if entry["prompt_en"] in chosen]


def digest(texts: Iterable[str]) -> str:
    """12 hex digits that identify a set of prompts, independent of their order."""
    return hashlib.sha256("\n".join(sorted(set(texts))).encode()).hexdigest()[:12]


def arrange(records: Iterable[Record], own_prompts: bool) -> tuple[list[Video], int]:
    """The videos with VBench's file names, and the number of omitted videos (the sixth and later ones of a prompt).

    With VBench's own prompts a file is named PROMPT-<i>.mp4, where i counts the seeds of the prompt in order. Other
    videos are named by their keys, and VBench gets their prompts separately.
    """
    ordered = sorted(records, key=lambda one: (one.run["prompt"], one.run.get("seed") or 0, one.path.name))
    if not own_prompts:
        return [Video(f"{record.path.name}-0.mp4", record.run["prompt"], record) for record in ordered], 0
    videos: list[Video] = []
    counted: dict[str, int] = {}
    for record in ordered:
        prompt = record.run["prompt"]
        index = counted[prompt] = counted.get(prompt, -1) + 1
        if index < PER_PROMPT:
            videos.append(Video(f"{prompt}-{index}.mp4", prompt, record))
    return videos, len(ordered) - len(videos)


def _rank(seed: int, prompt: str) -> bytes:
    return hashlib.sha256(f"{seed}\n{prompt}".encode()).digest()
