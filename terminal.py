"""Output of the commands. Characters that the terminal cannot encode are escaped, so that printing never fails."""

from __future__ import annotations

import io
import sys
import tomllib
from pathlib import Path
from typing import Any

from rich.console import Console


def tolerate() -> None:
    """Let stdout and stderr write `\\u00e9` for a character outside their encoding. Every command calls this first."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors != "backslashreplace":
            stream.reconfigure(errors="backslashreplace")


def console(**settings: Any) -> Console:
    """A console for text with paths and prompts: lines are not wrapped, and `:name:` does not become an emoji."""
    return Console(**{"highlight": False, "soft_wrap": True, "emoji": False} | settings)


def version() -> str:
    """Name and version of this program, as pyproject.toml has them."""
    text = (Path(__file__).parent / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    return f"{project['name']} {project['version']}"
