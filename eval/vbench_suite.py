"""VBench's prompts, declared subsets of them, and the file names under which VBench looks for the videos.

The prompts are read from the installed package (`VBench_full_info.json`, Apache-2.0), never copied. A subset is the
same file with fewer entries: VBench then asks for these prompts and no others, with what it needs to judge them.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.vbench_total import DIMENSIONS, VBenchError
from store import Record

PER_PROMPT = 5  # VBench looks for PROMPT-0.mp4 to PROMPT-4.mp4 and no further


@dataclass(frozen=True)
class Video:
    """One record under the name that VBench wants to see."""

    file: str
    prompt: str
    record: Record


def load(path: str | Path) -> list[dict]:
    """The entries of a full_info file: {"prompt_en", "dimension": [...], and what the judges need}.

    VBenchError for a file that is not such a list, or that names a dimension VBench does not have.
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
        raise VBenchError(f"{path}: no file can be named {unfit[0]!r}, which VBench looks for; shorten that prompt")
    return entries


def prompts(entries: Iterable[dict], dimension: str | None = None) -> list[str]:
    """The prompts of a dimension (of all, if None), each once, in the order of the file."""
    fit = (entry for entry in entries if dimension is None or dimension in entry["dimension"])
    return list(dict.fromkeys(entry["prompt_en"] for entry in fit))


def subset(entries: Sequence[dict], videos: int = 400, seed: int = 0) -> list[dict]:
    """The entries of at least `videos` prompts, equally many of every group of dimensions that share their prompts.

    VBench has 11 such groups of 72 to 100 prompts, 944 in all. A hash of seed and prompt says which of a group come
    first: the same on every machine, and a larger subset contains the smaller one.
    """
    groups: dict[tuple[str, ...], list[str]] = {}
    for entry in entries:
        groups.setdefault(tuple(entry["dimension"]), []).append(entry["prompt_en"])
    if not 0 < videos <= len(available := prompts(entries)):
        raise VBenchError(f"a subset of {videos} videos was asked for; there are {len(available)} prompts")
    ranked = [sorted(set(group), key=lambda prompt: _rank(seed, prompt)) for group in groups.values()]
    for each in range(-(-videos // len(ranked)), len(available) + 1):
        chosen = {prompt for group in ranked for prompt in group[:each]}
        if len(chosen) >= videos:
            break
    return [entry for entry in entries if entry["prompt_en"] in chosen]


def digest(texts: Iterable[str]) -> str:
    """12 hex digits that name a set of prompts, whatever their order."""
    return hashlib.sha256("\n".join(sorted(set(texts))).encode()).hexdigest()[:12]


def arrange(records: Iterable[Record], own_prompts: bool) -> tuple[list[Video], int]:
    """The videos under VBench's names, and how many were left out as the sixth or later of one prompt.

    With VBench's own prompts a file is named PROMPT-<i>.mp4, i counting that prompt's seeds in order. Any other video
    is named by its key, as VBench is then told the prompt beside it.
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
