"""The prompts of a run: a list, a file, or the menu's own set."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from conf.errors import ConfigError

CONF = Path(__file__).parent
BOM = "\ufeff"  # byte order mark; some editors write it at the start of a file


@dataclass
class Prompts:
    """The prompts of a run: from a list, from a file, or from both if both are given.

    Each line of a file is a prompt. Empty lines and comments are skipped. A comment is `#` alone, or a line that starts
    with `# `. So `#dawn` is a prompt, and `\\# dawn` is the prompt `# dawn`.
    """

    file: str = ""
    list: list[str] = field(default_factory=list)
    limit: int | None = None  # use only the first so many; 0: all; null: all, or menu_limit of the menu's set
    menu: str = ""  # the file of the menu's own set; ignored if a list is given
    menu_limit: int = 0  # number of prompts of the menu's own set if no limit is given; 0: all

    def __post_init__(self) -> None:
        for name in ("limit", "menu_limit"):
            if (getattr(self, name) or 0) < 0:
                raise ConfigError(f"prompts.{name}={getattr(self, name)}: want 0 (all prompts) or more")


def read_prompts(prompts: Prompts) -> list[str]:
    """The prompts of a run, in order. Raises ConfigError if there are none or if the file cannot be read."""
    of_menu = bool(prompts.menu) and prompts.file == prompts.menu
    found = list(prompts.list)
    if prompts.file and not (found and of_menu):
        lines = _lines(prompts.file)
        found += lines
        if not lines:
            raise ConfigError(f"prompts.file={prompts.file} has no prompts; want one prompt per line")
    if not found:
        raise ConfigError("no prompts: give prompts.file=FILE or prompts.list=['a red circle moving left']")
    limit = prompts.limit
    if limit is None:
        limit = prompts.menu_limit if of_menu and not prompts.list else 0
    return found[:limit] if limit else found


def _lines(name: str) -> list[str]:
    path = next((p for p in (Path(name).expanduser(), CONF.parent / name) if os.path.isfile(p)), None)
    if path is None:
        raise ConfigError(f"prompts.file={name} does not exist; want a text file with one prompt per line")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"prompts.file={name} cannot be read ({error.strerror}); want a readable text file") from None
    lines = (line.strip(f"{BOM} \t") for line in re.split("\r\n|\r|\n", decoded(content, f"prompts.file={name}")))
    return [
        line.removeprefix("\\") if line.startswith("\\#") else line
        for line in lines
        if line.strip() and not re.match(r"#+(\s|$)", line)
    ]


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
