"""What commands print to: output degrades where the terminal's encoding is narrow, and never fails."""

from __future__ import annotations

import io
import sys
from typing import Any

from rich.console import Console


def tolerate() -> None:
    """Let stdout and stderr write `\\u00e9` for a letter that their encoding lacks; every command calls it first."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors != "backslashreplace":
            stream.reconfigure(errors="backslashreplace")


def console(**settings: Any) -> Console:
    """A console for text in which paths and prompts occur: a line stays a line, and `:name:` stays what it is."""
    return Console(**{"highlight": False, "soft_wrap": True, "emoji": False} | settings)
