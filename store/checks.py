"""The checks of `python -m store RESULTS --verify` in addition to the checksums of files.

run.json and quality.json have a seal: a checksum over their content. The key is computed again from `produced_by`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from store.files import fingerprint

SEAL = "seal"
ADDED = (SEAL, "frames_sha256")  # names that are added to the scores when they are written
FIRST_SEALED = 2  # from this key_version on, every record has a seal
SCORES = "quality.json"
FRAMES, PREVIEW = "frames.mp4", "video.mp4"
SAME = ("fps", "frames", "height", "width")  # model settings that are repeated in run.json


def seal_of(content: Mapping[str, Any]) -> str:
    """The sha256 (hex) of the JSON of `content` without its seal. The order of names does not matter."""
    plain = json.loads(json.dumps({name: value for name, value in content.items() if name != SEAL}))
    return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def with_seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """`content` with a new seal; an old seal is replaced."""
    return {**{name: value for name, value in content.items() if name != SEAL}, SEAL: seal_of(content)}


def bound(quality: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    """Scores with a seal and with the checksum of the frames that were scored."""
    frames = (run.get("files") or {}).get(FRAMES, {}).get("sha256")
    return with_seal({**quality, "frames_sha256": frames})


def faults(folder: Path, run: Mapping[str, Any], cell: str, present: tuple[str, ...]) -> Iterator[str]:
    """The faults of a record in the folder of `cell`, one line each. run.json must name all files of `present`."""
    if not unsealed(run) and run.get(SEAL) != seal_of(run):
        yield "run.json was changed after it was sealed" if SEAL in run else "run.json has no seal any more"
    files = run.get("files")
    files = files if isinstance(files, Mapping) else {}
    whole = {FRAMES, "trace.jsonl"} if run.get("status", "ok") == "ok" else set()
    missing = sorted((set(present) | whole) - {*files})
    if missing:
        yield f"run.json has no checksum of {', '.join(missing)}"
    yield from _names(folder.name, run, cell)


def unsealed(run: Mapping[str, Any]) -> bool:
    """Whether the record was written by a version without seals. Changes of its run.json cannot be detected."""
    return SEAL not in run and int(run.get("key_version", 1)) < FIRST_SEALED


def _names(key: str, run: Mapping[str, Any], cell: str) -> Iterator[str]:
    """The contradictions between `produced_by` and the key, the folder and other values of run.json."""
    if run.get("key", key) != key:
        yield f"run.json says that its key is {run['key']}"
    if "model" in run and "method" in run:
        speed = run.get("speed")
        said = f"{run['model']}/{run['method']}" + (f"-{speed}" if speed not in (None, "", "none") else "")
        if said != cell:
            yield f"run.json says that it belongs to {said}"
    made = run.get("produced_by")
    if not isinstance(made, Mapping):
        return
    if fingerprint(made) != key:
        yield f"produced_by in run.json has the key {fingerprint(made)}"
    told = {name: made[name] for name in ("prompt", "seed") if name in made}
    model = made.get("model")
    told |= {name: model[name] for name in SAME if isinstance(model, Mapping) and name in model}
    for name, value in told.items():
        if name in run and run[name] != value:
            yield f"run.json says {name}={str(run[name])[:40]!r}, but its produced_by says {str(value)[:40]!r}"


def faults_beside(folder: Path, run: Mapping[str, Any]) -> Iterator[str]:
    """The faults of files that do not belong to the sealed record: the lossy copy, and the scores."""
    path, files = folder / SCORES, run.get("files") or {}
    if (folder / PREVIEW).exists() and PREVIEW not in files:
        yield f"run.json has no checksum of {PREVIEW}"
    if not path.exists():
        return
    try:
        quality = json.loads(path.read_bytes())
    except ValueError:
        yield f"{SCORES} is not JSON"
        return
    if SEAL not in quality:
        if "frames_sha256" in quality:
            yield f"{SCORES} has no seal any more"
        return
    if quality[SEAL] != seal_of(quality):
        yield f"{SCORES} was changed after it was sealed; python -m eval RESULTS --redo scores the video again"
    elif quality.get("frames_sha256") != (files.get(FRAMES) or {}).get("sha256"):
        yield f"{SCORES} belongs to other frames; python -m eval RESULTS --redo scores the video again"
