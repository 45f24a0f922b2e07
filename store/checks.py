"""The checks of `python -m store RESULTS --verify` in addition to the checksums of files.

run.json and quality.json have a seal: a checksum over their content. The key is computed again from `produced_by`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from store.files import fingerprint

SEAL = "seal"
ADDED = (SEAL, "frames_sha256")  # names that are added to the scores when they are written
FIRST_SEALED = 2  # from this key_version on, every record has a seal
SCORES = "quality.json"
CURVES = "per_frame"  # name in quality.json of long lists, which only figures read
FRAMES, PREVIEW = "frames.mp4", "video.mp4"
SAME = ("fps", "frames", "height", "width")  # model settings that are repeated in run.json


def seal_of(content: Mapping[str, Any]) -> str:
    """The sha256 (hex) of the JSON of `content` without its seal. The order of names does not matter."""
    return _digest(json.loads(json.dumps(content)))


def holds(content: Mapping[str, Any]) -> bool:
    """Whether the seal of `content` is right. Content that was read from JSON needs no copy, which `seal_of` makes."""
    given = content.get(SEAL)
    return given is not None and (given == _digest(content) or given == seal_of(content))


def with_seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """`content` with a new seal; an old seal is replaced."""
    return {**{name: value for name, value in content.items() if name != SEAL}, SEAL: seal_of(content)}


def bound(quality: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    """Scores with a seal and with the checksum of the frames that were scored."""
    frames = (run.get("files") or {}).get(FRAMES, {}).get("sha256")
    return with_seal({**quality, "frames_sha256": frames})


def holds_as_written(text: str, given: str) -> bool:
    """Whether `given` is the seal of content that `seal_of` would write as `text`; False if it may be or not."""
    plain = text.replace(f',"{SEAL}":"{given}"', "", 1)
    return len(plain) < len(text) and hashlib.sha256(plain.encode()).hexdigest() == given


def faults(
    folder: Path, run: Mapping[str, Any], cell: str, present: tuple[str, ...], sealed: bool = False
) -> Iterator[str]:
    """The faults of a record in the folder of `cell`, one line each. run.json must name all files of `present`.

    sealed: the seal of `run` is known to hold.
    """
    if not sealed and not unsealed(run) and not holds(run):
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


class Read(NamedTuple):
    """quality.json as it was read."""

    content: dict[str, Any] | None  # None if there is no such file
    wrong: str = ""  # why it cannot be read
    text: bytes = b""  # of the file


def faults_beside(folder: Path, run: Mapping[str, Any], read: Read | None = None) -> Iterator[str]:
    """The faults of files that do not belong to the sealed record: the lossy copy, and the scores.

    read: what `scores` gave, if it was called before.
    """
    if (folder / PREVIEW).exists() and PREVIEW not in (run.get("files") or {}):
        yield f"run.json has no checksum of {PREVIEW}"
    read = read or scores(folder)
    wrong = read.wrong or _fault_of_scores(read, run)
    if wrong:
        yield wrong


def scores(folder: Path) -> Read:
    """Read quality.json."""
    try:
        text = (folder / SCORES).read_bytes()
        return Read(json.loads(text, object_pairs_hook=_once), "", text)
    except FileNotFoundError:
        return Read(None)
    except KeyError as error:
        return Read(None, f"{SCORES} has {error} twice")
    except ValueError:
        return Read(None, f"{SCORES} is not JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises KeyError if it has a name twice: another reader could take the other value."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise KeyError(next(name for name in names if names.count(name) > 1))
    return found


def _fault_of_scores(read: Read, run: Mapping[str, Any]) -> str:
    """Why the content of quality.json does not fit its record, or ""."""
    quality = read.content
    if quality is None:
        return ""
    if SEAL not in quality:
        return f"{SCORES} has no seal any more" if "frames_sha256" in quality else ""
    again = "python -m eval RESULTS --redo scores the video again"
    if not _holds_by_curves(quality, read.text) and not holds(quality):
        return f"{SCORES} was changed after it was sealed; {again}"
    if quality.get("frames_sha256") != ((run.get("files") or {}).get(FRAMES) or {}).get("sha256"):
        return f"{SCORES} belongs to other frames; {again}"
    return ""


def _holds_by_curves(quality: Mapping[str, Any], text: bytes) -> bool:
    """Whether the seal is right by the text of the curves in the file; False if it may be right or not.

    Writing the numbers of the curves again takes most of the time of a seal. Equal text has equal content, since no
    name is there twice (`scores`) and none has a space.
    """
    if any(" " in name or "\n" in name for name in quality.get(CURVES) or ()):
        return False
    body = text.partition(f'"{CURVES}":'.encode())[2].partition(b"}")[0]
    compact = body.translate(None, b" \n").decode(errors="replace")
    lists = sorted(f"{one.rstrip(']')}]" for one in compact.removeprefix("{").split("],"))
    plain = {name: value for name, value in quality.items() if name != SEAL} | {CURVES: None}
    canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    written = canonical.replace(f'"{CURVES}":null', f'"{CURVES}":{{{",".join(lists)}}}', 1)
    return hashlib.sha256(written.encode()).hexdigest() == quality[SEAL]


def _digest(content: Mapping[str, Any]) -> str:
    """The sha256 (hex) of content without its seal, as JSON with its names in order."""
    plain = {name: value for name, value in content.items() if name != SEAL}
    return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
