"""Reads prompts from files: a text with a prompt per line, or the user's own copy of VBench's lists.

VBench's lists are `VBench_full_info.json` and `all_dimension.txt`, and a folder `prompts_per_dimension` with one text
per dimension. `conf/prompts/natural.json` has the format of the first. None of VBench's prompts is copied here.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf.errors import ConfigError, nearest

CONF = Path(__file__).parent
BOM = "\ufeff"  # byte order mark; some editors write it at the start of a file
DIMENSIONS = (  # of VBench, in the order of its tables
    "subject_consistency",
    "background_consistency",
    "temporal_flickering",
    "motion_smoothness",
    "dynamic_degree",
    "aesthetic_quality",
    "imaging_quality",
    "object_class",
    "multiple_objects",
    "human_action",
    "color",
    "spatial_relationship",
    "scene",
    "appearance_style",
    "temporal_style",
    "overall_consistency",
)
ENTRY = '[{"prompt_en": "a fox runs", "dimension": ["motion_smoothness"]}, ...]'


@dataclass(frozen=True)
class Entry:
    """A prompt, and the dimensions of VBench that it is made for, if its file names them."""

    text: str
    dimensions: tuple[str, ...] = ()


def entries_of(name: str) -> list[Entry]:
    """The prompts of a file or folder, in order. A relative name is also looked for beside the program.

    Raises ConfigError if it does not exist, cannot be read, or has no prompts.
    """
    places = (Path(name).expanduser(), CONF.parent / name)
    path = next((place for place in places if os.path.isfile(place) or os.path.isdir(place)), None)
    if path is None:
        raise ConfigError(f"prompts.file={name} does not exist; want a text file with one prompt per line")
    if path.is_dir():
        found = _folder(path, f"prompts.file={name}")
    elif path.suffix.lower() == ".json":
        found = _full_info(_decoded(path, f"prompts.file={name}"), f"prompts.file={name}")
    else:
        found = [Entry(line) for line in lines(_decoded(path, f"prompts.file={name}"))]
    if not found:
        raise ConfigError(f"prompts.file={name} has no prompts; want one prompt per line")
    return found


def lines(text: str) -> list[str]:
    """The prompts of a text: its lines without empty ones and comments.

    A comment is `#` alone, or a line that starts with `# `. So `#dawn` is a prompt, and `\\# dawn` is the prompt
    `# dawn`.
    """
    stripped = (line.strip(f"{BOM} \t") for line in re.split("\r\n|\r|\n", text))
    return [
        line.removeprefix("\\") if line.startswith("\\#") else line
        for line in stripped
        if line.strip() and not re.match(r"#+(\s|$)", line)
    ]


def _folder(path: Path, name: str) -> list[Entry]:
    """The prompts of a folder with one text per dimension; a prompt of two texts has both dimensions."""
    files = sorted(path.glob("*.txt"), key=lambda file: file.name)
    if not files:
        raise ConfigError(f"{name} is a folder without .txt files; want one per dimension of VBench, e.g. color.txt")
    dimensions: dict[str, list[str]] = {}
    for file in files:
        dimension = file.stem.removesuffix("_longer")  # so the rewritten, longer prompts are named
        if dimension not in DIMENSIONS:
            raise ConfigError(
                f"{name} has {file.name}, which names no dimension of VBench{nearest(dimension, [*DIMENSIONS])}"
            )
        for line in lines(_decoded(file, f"{name}/{file.name}")):
            dimensions.setdefault(line, []).append(dimension)
    return [Entry(text, tuple(own)) for text, own in dimensions.items()]


def _full_info(text: str, name: str) -> list[Entry]:
    """The prompts of a list in the format of VBench_full_info.json, each once with all its dimensions."""
    dimensions: dict[str, dict[str, None]] = {}
    try:
        content: Any = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{name} is not JSON ({error}); want {ENTRY}") from None
    if not isinstance(content, list):
        raise ConfigError(f"{name} has a JSON {type(content).__name__}; want a list of VBench, {ENTRY}")
    for number, entry in enumerate(content, start=1):
        prompt, own = (entry.get("prompt_en"), entry.get("dimension", [])) if isinstance(entry, dict) else (None, [])
        if not (isinstance(prompt, str) and prompt.strip() and isinstance(own, list)):
            raise ConfigError(f"{name}, entry {number} has no prompt and list of dimensions; want {ENTRY}")
        unknown = next((one for one in own if one not in DIMENSIONS), None)
        if unknown is not None:
            raise ConfigError(f"{name}, entry {number}: {unknown} is unknown{nearest(str(unknown), [*DIMENSIONS])}")
        dimensions.setdefault(prompt, {}).update(dict.fromkeys(own))
    return [Entry(prompt, tuple(own)) for prompt, own in dimensions.items()]


def _decoded(path: Path, name: str) -> str:
    try:
        return decoded(path.read_bytes(), name)
    except OSError as error:
        raise ConfigError(f"{name} cannot be read ({error.strerror}); want a readable text file") from None


def decoded(content: bytes, name: str) -> str:
    """The text of a UTF-8 file without byte order mark. Raises ConfigError, which names the line with the error."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ConfigError(f"{name} is UTF-16; save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = len(re.findall(b"\r\n|\r|\n", content[: error.start])) + 1
        raise ConfigError(
            f"{name}, line {line}: byte 0x{content[error.start]:02x} is not UTF-8; save the file as UTF-8"
        ) from None
    bad = re.search(r"[\x00-\x08\x0e-\x1f\x7f]", text)
    if bad:
        line = len(re.findall("\r\n|\r|\n", text[: bad.start()])) + 1
        raise ConfigError(
            f"{name}, line {line}: contains the control character 0x{ord(bad[0]):02x}; want plain text in UTF-8, one "
            "prompt per line"
        )
    return text
