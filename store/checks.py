"""What `python -m store RESULTS --verify` recomputes of a record, besides the checksums of its files.

run.json and quality.json carry a seal: a checksum over their content. The key is made again from `produced_by`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from store.files import fingerprint

SEAL = "seal"
ADDED = (SEAL, "frames_sha256")  # to scores, as they are written
FIRST_SEALED = 2  # the key_version from which every record has a seal
SCORES = "quality.json"
FRAMES, PREVIEW = "frames.mp4", "video.mp4"
SAME = ("fps", "frames", "height", "width")  # settings of the model that run.json repeats


def seal_of(content: Mapping[str, Any]) -> str:
    """A sha256 over the JSON value of `content` without its seal, whatever the order of its names."""
    plain = json.loads(json.dumps({name: value for name, value in content.items() if name != SEAL}))
    return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def with_seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """`content` with a seal in place of any that it had."""
    return {**{name: value for name, value in content.items() if name != SEAL}, SEAL: seal_of(content)}


def bound(quality: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    """Scores with a seal, and with the checksum of the frames that they were computed from."""
    frames = (run.get("files") or {}).get(FRAMES, {}).get("sha256")
    return with_seal({**quality, "frames_sha256": frames})


def faults(folder: Path, run: Mapping[str, Any], cell: str, present: tuple[str, ...]) -> Iterator[str]:
    """What is wrong with a record in the folder of `cell`, a line each; `present`: the files that a seal must name."""
    if not unsealed(run) and run.get(SEAL) != seal_of(run):
        yield "run.json is not what was sealed" if SEAL in run else "run.json has lost its seal"
    files = run.get("files")
    files = files if isinstance(files, Mapping) else {}
    whole = {FRAMES, "trace.jsonl"} if run.get("status", "ok") == "ok" else set()
    missing = sorted((set(present) | whole) - {*files})
    if missing:
        yield f"run.json names no checksum of {', '.join(missing)}"
    yield from _names(folder.name, run, cell)


def unsealed(run: Mapping[str, Any]) -> bool:
    """Whether a record is of a version that made no seals, so that a change of its run.json may go unnoticed."""
    return SEAL not in run and int(run.get("key_version", 1)) < FIRST_SEALED


def _names(key: str, run: Mapping[str, Any], cell: str) -> Iterator[str]:
    """Whether the key, and what run.json says of the video, follow from what produced it."""
    if run.get("key", key) != key:
        yield f"run.json says that its key is {run['key']}"
    if "model" in run and "method" in run:
        speed = run.get("speed")
        said = f"{run['model']}/{run['method']}" + (f"-{speed}" if speed not in (None, "", "none") else "")
        if said != cell:
            yield f"run.json says that it belongs into {said}"
    made = run.get("produced_by")
    if not isinstance(made, Mapping):
        return
    if fingerprint(made) != key:
        yield f"produced_by in run.json gives the key {fingerprint(made)}"
    told = {name: made[name] for name in ("prompt", "seed") if name in made}
    model = made.get("model")
    told |= {name: model[name] for name in SAME if isinstance(model, Mapping) and name in model}
    for name, value in told.items():
        if name in run and run[name] != value:
            yield f"run.json says {name}={str(run[name])[:40]!r}, what produced the frames says {str(value)[:40]!r}"


def faults_beside(folder: Path, run: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with what stands beside a right record: its copy for people, and its scores, made again by eval."""
    path, files = folder / SCORES, run.get("files") or {}
    if (folder / PREVIEW).exists() and PREVIEW not in files:
        yield f"run.json names no checksum of {PREVIEW}"
    if not path.exists():
        return
    try:
        quality = json.loads(path.read_bytes())
    except ValueError:
        yield f"{SCORES} is not JSON"
        return
    if SEAL not in quality:
        if "frames_sha256" in quality:
            yield f"{SCORES} has lost its seal"
        return
    if quality[SEAL] != seal_of(quality):
        yield f"{SCORES} is not what was sealed; python -m eval RESULTS --redo scores the video again"
    elif quality.get("frames_sha256") != (files.get(FRAMES) or {}).get("sha256"):
        yield f"{SCORES} is of other frames; python -m eval RESULTS --redo scores the video again"
